"""The recipes of a study as they are hashed: every default written out, nothing else."""

import yaml

from mdm.config import StudyError, nearest
from mdm.study.study import Study


def resolved_yaml(study: Study, run: str | None = None) -> str:
    """Recipes by artifact as YAML: of the whole study, or of one run with all that it is made from."""
    wanted = list(study.artifacts) if run is None else _behind(study, run)
    return yaml.safe_dump({ref: study.recipe(ref).plain() for ref in wanted}, sort_keys=False, allow_unicode=True)


def _behind(study: Study, name: str) -> list[str]:
    """The scores and stages of a run and every artifact behind them, parents first."""
    runs = [run for run in study.runs if run.name == name]
    if not runs:
        raise StudyError(f"study '{study.name}' has no run '{name}'; {nearest(name, [run.name for run in study.runs])}")
    found: dict[str, None] = {}

    def take(ref: str) -> None:
        for parent in study.parents(ref):
            take(parent)
        found.setdefault(ref)

    for run in runs:
        for ref in [stage.artifact for stage in run.stages] + [e.scores for e in run.evaluations]:
            take(ref)
    return list(found)
