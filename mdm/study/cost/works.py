"""What of a run costs time."""

from mdm.study.runs import Run


def works(run: Run) -> list[tuple[str, str]]:
    """Return (what, artifact) of everything in a run that costs time."""
    drawn = [(f"base of {one.protocol}", low) for one in run.evaluations for low in one.lows]
    drawn += [(f"draw {evaluation.protocol}", evaluation.samples) for evaluation in run.evaluations]
    along: list[tuple[str, str]] = []
    for point in run.points:
        at = f"{point.stage} at {point.images}"
        along += [(f"base of {at}", low) for low in point.evaluation.lows]
        along += [(at, point.weights), (f"draw {at}", point.evaluation.samples)]
    known = {ref for _, ref in drawn} | {stage.artifact for stage in run.stages}
    coded = [(ref.split("/")[0], ref) for ref in dict.fromkeys(ref for stage in run.stages for ref in stage.latents)]
    trained = [(stage.name, stage.artifact) for stage in run.stages]
    return coded + trained + drawn + [w for w in along if w[1] not in known]
