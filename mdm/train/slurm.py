"""A training that SLURM is about to end asks to be run again; Snakemake then sees a waiting job, not a failed one."""

import os
import re
import subprocess


def run_again(images_gained: int) -> str | None:
    """After a warning (SIGTERM) and a save: put this job back into the queue; what came of it, None outside SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    state = _state(job)
    if state != "RUNNING":
        # Cancelled, preempted or over its time: that is decided. A request now would bring back a cancelled job.
        return (
            f"SLURM is ending job {job} already ({state}); not queued again from here: "
            "unless SLURM does so itself, Snakemake, if it runs, sends another job"
        )
    if not images_gained:
        return f"not one step fits between start and warning; job {job} would come back for ever: raise minutes"
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"SLURM refused to queue job {job} again: {done.stderr.strip() or done.stdout.strip()}"
    return f"job {job} is queued again"


def _state(job: str) -> str:
    """The job's state as the scheduler sees it, or the reason why that is unknown."""
    try:
        shown = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=False
        )  # fmt: skip
    except FileNotFoundError:
        return "unknown: there is no scontrol on PATH"
    found = re.search(r"\bJobState=(\S+)", shown.stdout)
    return found[1] if found else f"unknown: {shown.stderr.strip()}"
