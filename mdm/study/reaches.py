"""What `reaches` of claims asks for: two runs that are measured along their training, by a score with a direction."""

from collections.abc import Iterable

from mdm.config import StudyConfig
from mdm.evaluate.metric_names import AUTOENCODER, CONSISTENCY, EMM, FRAME_ENDS, LOW_PSNR, OF_LEVELS, TEXT_SIGNAL
from mdm.study.claims import ExpressionError, Reference, parse, references
from mdm.study.measured import check_measured
from mdm.study.runs import Claim, Run

FEWEST = 2  # moments of a curve, between which there is a line
# Families of numbers that no protocol measures along training, or of which neither more nor less is better.
NOT_REACHED_BY_TRAINING = (
    "train_", "validation_loss", "excess_loss", "images_per_second", "sample_", "network_evaluations", "parameters",
    "detail", "quality_onset", EMM, TEXT_SIGNAL, "similarity", CONSISTENCY, LOW_PSNR, *AUTOENCODER, *OF_LEVELS,
)  # fmt: skip


def check_reach(reference: Reference, config: StudyConfig, runs: Iterable[Run]) -> None:
    """Refuse a comparison of curves that will never be there."""
    if reference.run == reference.best_of:
        raise ExpressionError(f"{reference.plain}: a run reaches its own best where it is; name two runs")
    if reference.metric.startswith(NOT_REACHED_BY_TRAINING) or reference.metric.endswith(FRAME_ENDS):
        raise ExpressionError(
            f"{reference.plain}: {reference.metric} is not measured along training, or has no better and worse; name a "
            "distance, alignment or CLIP score"
        )
    if config.along is None:
        raise ExpressionError(
            f"{reference.plain} compares curves along training, and the study has none; write "
            "along: {protocol: NAME} and give stages snapshots"
        )
    names, known = (reference.run, str(reference.best_of)), list(runs)
    _check_curves(reference, names, known)
    protocol = config.along.protocol
    for run in (run for run in known if run.name in names):
        check_measured(Reference(reference.metric, run.name), protocol, config.protocols[protocol], run)


def _check_curves(reference: Reference, names: tuple[str, str], known: list[Run]) -> None:
    """Refuse runs without snapshots, and runs whose trainings make no pair."""
    seeds = [{run.seed for run in known if run.name == name and len(run.points) >= FEWEST} for name in names]
    for name, found in zip(names, seeds, strict=True):
        if not found:
            raise ExpressionError(
                f"{reference.plain}: '{name}' has no curve along its training; give its stages snapshots, and name it "
                "in along.runs, if there are any"
            )
    if not set.intersection(*seeds):
        raise ExpressionError(
            f"{reference.plain}: the two runs have no seed in common, and trainings are compared in pairs; give them "
            "some"
        )


def asked(claims: Iterable[Claim]) -> list[Reference]:
    """Every pair of curves that claims compare, once each."""
    found = [r.plain for claim in claims for r in references(parse(claim.expect)) if r.best_of]
    return list(dict.fromkeys(found))
