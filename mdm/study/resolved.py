"""The recipes of a study as they are hashed: every default written out, nothing else."""

from collections.abc import Iterable, Sequence

import yaml

from mdm.config import StudyError, nearest
from mdm.study.study import Run, Study


def chosen_runs(study: Study, names: Sequence[str]) -> list[Run]:
    """Return the runs of these names, and those of the ablations among them; all if there is no name."""
    ablations = study.ablations
    members = {name for wanted in names for name in (ablations[wanted].runs if wanted in ablations else [wanted])}
    known = {run.name for run in study.runs}
    for name in names:
        if name not in ablations and name not in known:
            valid = nearest(name, {*known, *ablations})
            raise StudyError(f"study '{study.name}' has no run or ablation '{name}'; {valid}")
    return [run for run in study.runs if not names or run.name in members]


def resolved_yaml(study: Study, run: str | None = None) -> str:
    """Write the recipes by artifact as YAML: of the whole study, or of one run with all that it is made from."""
    wanted = list(study.artifacts) if run is None else _behind(study, run)
    return yaml.safe_dump({ref: study.recipe(ref).plain() for ref in wanted}, sort_keys=False, allow_unicode=True)


def _behind(study: Study, name: str) -> list[str]:
    return behind(study, study.runs_named(name))


def behind(study: Study, runs: Iterable[Run]) -> list[str]:
    """Return the stages of runs, what measures them, and every artifact behind them, parents first."""
    found: dict[str, None] = {}

    def take(ref: str) -> None:
        for parent in study.parents(ref) if ref not in found else ():
            take(parent)
        found.setdefault(ref)

    for run in runs:
        for ref in [stage.artifact for stage in run.stages] + run.numbers:
            take(ref)
    return list(found)
