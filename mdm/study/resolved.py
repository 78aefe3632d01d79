"""The recipes of a study as they are hashed: every default written out, nothing else."""

import yaml

from mdm.study.study import Study


def resolved_yaml(study: Study, run: str | None = None) -> str:
    """Write the recipes by artifact as YAML: of the whole study, or of one run with all that it is made from."""
    wanted = list(study.artifacts) if run is None else _behind(study, run)
    return yaml.safe_dump({ref: study.recipe(ref).plain() for ref in wanted}, sort_keys=False, allow_unicode=True)


def _behind(study: Study, name: str) -> list[str]:
    """Return the stages of a run, what measures it, and every artifact behind them, parents first."""
    found: dict[str, None] = {}

    def take(ref: str) -> None:
        for parent in study.parents(ref):
            take(parent)
        found.setdefault(ref)

    for run in study.runs_named(name):
        for ref in [stage.artifact for stage in run.stages] + run.numbers:
            take(ref)
    return list(found)
