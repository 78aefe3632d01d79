"""What a study claims and draws over several runs: its claims and its curves, each checked against what is measured."""

from collections.abc import Collection
from typing import Any

from mdm.config import StudyConfig, StudyError, nearest
from mdm.evaluate.metric_names import DISTANCES, EMM, measurable, quality_onset
from mdm.study.audits import Audits
from mdm.study.claims import ExpressionError, check_expression
from mdm.study.emm import emm_of
from mdm.study.imagenet_protocols import IMAGENET
from mdm.study.measured import check_measured
from mdm.study.reaches import check_reach
from mdm.study.recipes import Artifacts
from mdm.study.runs import Claim, Emm, Run
from mdm.study.standard_protocols import STANDARDS


def claimed(
    config: StudyConfig, runs: list[Run], made: Artifacts, audits: Audits, where: str
) -> tuple[dict[str, Emm], dict[str, Claim]]:  # fmt: skip
    """The curves over numbers of training pictures, and the claims, of a study."""
    sides = {r for run in runs for stage in run.stages for r in stage.resolutions}
    audited = audits.names(sides)
    curves = emm_of(config, runs, made, audited, where)
    metrics = measurable(sides, bool(config.excess)) | audited | ({EMM} if curves else set()) | _onsets(config)
    return curves, _claims(config, runs, metrics, curves, where)


def _onsets(config: StudyConfig) -> set[str]:
    """When pictures are as good as they get, by every network that measures them along their training."""
    protocol = config.protocols[config.along.protocol] if config.along else None
    return {quality_onset(name) for name in DISTANCES if protocol and getattr(protocol, name)}


def _claims(
    config: StudyConfig, trained: list[Run], metrics: set[str], curves: dict[str, Emm], where: str
) -> dict[str, Claim]:  # fmt: skip
    found, runs = {}, {run.name: run for run in trained}
    for name, entry in config.claims.items():
        protocol = entry.protocol or next(iter(config.protocols), "none")
        _known(protocol, config.protocols, f"{where}: claims.{name}.protocol")
        try:
            for needed in check_expression(entry.expect, metrics, runs, config.protocols, curves):
                place = needed.protocol or protocol
                if needed.best_of:
                    check_reach(needed, config, trained)
                elif needed.metric != EMM:
                    check_measured(needed, place, config.protocols[place], runs[needed.run])
        except ExpressionError as error:
            raise StudyError(f"{where}: claims.{name}.expect: {error}") from None
        if entry.number_from not in (None, "own"):
            _known(
                entry.number_from.partition("/")[0], {**STANDARDS, **IMAGENET}, f"{where}: claims.{name}.number_from"
            )
        found[name] = Claim(name, entry.statement, entry.source, entry.expect, protocol, entry.number_from)
    return found


def _known(word: str, valid: Collection[Any], place: str) -> None:
    if word not in valid:
        raise StudyError(f"{place}: there is no '{word}'; {nearest(word, valid)}")
