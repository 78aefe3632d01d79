"""How often Snakemake looks for jobs that can start."""

import threading

from snakemake.scheduling.job_scheduler import JobScheduler


def look_once_at_a_time() -> None:
    """Let Snakemake wait for its next look with one timer.

    Its limit of jobs a second makes it look again a second after every look (9.27). A job that ends makes it look as
    well, which begins another such chain: after 125 jobs more than 100 timers were running, and looking took an eighth
    of a core from the trainings. A look that is due already serves all.
    """

    def look_again(self: JobScheduler, delay: float) -> None:
        if getattr(self, "_look_is_due", False):
            return

        def look() -> None:
            self._look_is_due = False  # before the scheduler wakes, which may want the next
            self._open_jobs.release()

        self._look_is_due = True
        threading.Timer(delay, look).start()

    JobScheduler._schedule_reevalutation = look_again
