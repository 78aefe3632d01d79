"""Has Snakemake stand still before it notes the end of a job: Python imports this when the folder is on its path.

$STOPPED names a file with one rule a line, those that Snakemake has stood still at before. It stops at the first job of
any other rule, whose output then is on disk and still marked as incomplete, adds the rule and waits to be killed.
"""

import os
import sys
import time
from pathlib import Path

FOR_EVER = 10**6


def stop_at_new_rules(stopped: Path) -> None:
    from snakemake.persistence import PersistenceBase

    note_the_end = PersistenceBase.finished

    async def finished(self, job):
        if job.output and job.rule.name not in stopped.read_text().split():
            with stopped.open("a") as stream:
                stream.write(f"{job.rule.name}\n")
            time.sleep(FOR_EVER)
        await note_the_end(self, job)

    PersistenceBase.finished = finished


if sys.orig_argv[1:3] == ["-m", "snakemake"]:
    stop_at_new_rules(Path(os.environ["STOPPED"]))
