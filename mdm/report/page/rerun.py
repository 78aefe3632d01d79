"""The commands that repeat a study or one ablation of it exactly."""

import shlex

from mdm.study.study import Study


def commands(study: Study, commits: list[str], target: str = "all") -> list[tuple[str, str]]:
    """Pairs of what it does and the command line."""
    steps = []
    if len(commits) == 1:
        steps.append(("the source these numbers were made with", f"git checkout {commits[0]}"))
    steps += [
        ("install the locked packages", "pip install -r requirements.lock -e ."),
        ("on this machine", f"snakemake --cores all {target} --config {shlex.join(study.call.snakemake)}"),
        ("on a SLURM cluster", f"snakemake --profile slurm {target} --config {shlex.join(study.call.snakemake)}"),
        ("what would run, and what it would cost", f"python -m mdm plan {study.call.mdm}"),
    ]
    return steps
