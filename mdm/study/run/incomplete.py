"""What Snakemake may take for incomplete after a kill: tables and pages, but no artifact."""

from typing import Any

from snakemake.persistence import PersistenceBase


def trust_artifacts() -> None:
    """Have Snakemake take every output of an artifact that is on disk for complete, whatever it has noted of its job.

    Snakemake marks the outputs of a job as incomplete until it has noted the job's end. A kill between the two leaves
    the mark on a file that is whole. Snakemake (9.27) then forces that job, finds that the files behind it are read as
    ancient, looks no further, not even at the targets, and ends as if all were done
    (https://github.com/snakemake/snakemake/issues/4166). An artifact needs no mark: each of its files appears by a
    rename, and the one that the next rule waits for appears last. Tables and pages keep theirs: nothing reads them as
    ancient, and only what is noted at a job's end tells whether they belong to the study as it is now.

    The marks themselves stay as they are, so a dry run, or a start beside another one, takes nothing away from it.
    """
    marked = PersistenceBase.incomplete

    async def incomplete(self: PersistenceBase, job: Any) -> list[Any]:
        return [] if "digest" in job.wildcards_dict else await marked(self, job)

    PersistenceBase.incomplete = incomplete
