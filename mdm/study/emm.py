"""Curves over numbers of training pictures: which runs they go through."""

from mdm.config import StudyConfig, StudyError, nearest
from mdm.evaluate.metric_names import COPYING_ONSET
from mdm.study.audits import check_audited
from mdm.study.claims import ExpressionError, Reference
from mdm.study.recipes import Artifacts
from mdm.study.runs import Emm, Run

FALLING = ("copied", "calibrated")  # families of shares of copies


def emm_of(config: StudyConfig, runs: list[Run], made_of: Artifacts, valid: set[str], where: str) -> dict[str, Emm]:
    """Every curve over numbers of training pictures; an ablation stands for all of its runs."""
    found = {}
    for name, entry in config.emm.items():
        place = f"{where}: emm.{name}"
        chosen = {run.name: run for word in entry.runs for run in runs if word in (run.name, run.ablation)}
        for word in entry.runs:
            if not any(word in (run.name, run.ablation) for run in runs):
                raise StudyError(f"{place}.runs: there is no '{word}'; {nearest(word, {run.name for run in runs})}")
        if entry.metric not in valid:
            raise StudyError(f"{place}.metric: nothing measures '{entry.metric}'; {nearest(entry.metric, valid)}")
        if not entry.metric.startswith(FALLING) or entry.metric.startswith(COPYING_ONSET):
            raise StudyError(
                f"{place}.metric: {entry.metric} is no share of copies, which falls with the number of training "
                "pictures; write one of copied or calibrated"
            )
        try:
            for run in chosen.values():
                check_audited(Reference(entry.metric, run.name), run)
        except ExpressionError as error:
            raise StudyError(f"{place}: {error}") from None
        sizes = {name: _trained_on(made_of, run) for name, run in chosen.items()}
        if len(set(sizes.values())) < max(2, len(sizes)):
            listed = ", ".join(f"{run} {count}" for run, count in sizes.items())
            raise StudyError(f"{place}.runs: they must differ in their number of training pictures, and have {listed}")
        rising = dict(sorted(sizes.items(), key=lambda item: item[1]))
        found[name] = Emm(name, entry.title or name, rising, entry.metric, entry.level, entry.targets, entry.source)
    return found


def _trained_on(made_of: Artifacts, run: Run) -> int:
    """Pictures that the last stage of a run is trained on."""
    stage = made_of.artifacts[run.stages[-1].artifact].recipe
    return stage.take or made_of.artifacts[stage.data].recipe.num_images
