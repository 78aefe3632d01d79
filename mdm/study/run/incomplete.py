"""What Snakemake may take for incomplete after a kill: tables and pages, but no artifact."""

from typing import Any

from snakemake.persistence import PersistenceBase


def trust_artifacts() -> None:
    """Make Snakemake take every output of an artifact that is on disk for complete, whatever it has noted of its job.

    Snakemake marks a job's outputs as incomplete until it has noted the job's end; a kill between the two leaves the
    mark on a whole file. Snakemake (9.27) then forces that job, finds the files behind it ancient, looks at no target,
    and ends as if all were done (https://github.com/snakemake/snakemake/issues/4166). An artifact needs no mark: its
    files appear by renames, the one that the next rule waits for last. Tables and pages keep theirs, as nothing reads
    them as ancient.

    The marks themselves stay as they are, so a dry run, or a start beside another one, takes nothing away from it.
    """
    marked = PersistenceBase.incomplete

    async def incomplete(self: PersistenceBase, job: Any) -> list[Any]:
        return [] if "digest" in job.wildcards_dict else await marked(self, job)

    PersistenceBase.incomplete = incomplete
