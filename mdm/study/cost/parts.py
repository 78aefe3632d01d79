"""What the networks of a cascade are together, beside the networks that draw alone: weights, and arithmetic to draw."""

from collections.abc import Iterator, Sequence

from mdm.config.units import large
from mdm.model.arithmetic import parameters
from mdm.study.cost.speeds import calls, drawing
from mdm.study.study import Run, Study


def networks(study: Study, runs: Sequence[Run]) -> Iterator[str]:
    """Yield, if one of them is a cascade, a line for each kind of run: its weights, and the arithmetic of a picture."""
    if not any(stage.base for run in runs for stage in run.stages):
        return
    yield f"{'networks that draw':<28} {'parameters':<40} GFLOPs of a picture"
    seen = set()
    for run in runs:
        line = f"{_weights(study, run):<40} {_arithmetic(study, run)}".rstrip()
        if line not in seen:
            seen.add(line)
            yield f"{run.name:<28} {line}"
    yield ""


def _weights(study: Study, run: Run) -> str:
    """Return base + upsampler = both."""
    counts = [parameters(study.recipe(stage.artifact).model) for stage in run.stages[-1].chain]
    together = f" = {large(sum(counts))}" if len(counts) > 1 else ""
    return " + ".join(map(large, counts)) + together


def _arithmetic(study: Study, run: Run) -> str:
    """Return the same of drawing one picture under the first protocol, all steps."""
    if not run.evaluations:
        return ""
    each = [_of_samples(study, ref) for ref in (*run.evaluations[0].lows, run.evaluations[0].samples)]
    together = f" = {sum(each):,.4g}" if len(each) > 1 else ""
    return " + ".join(f"{count:,.4g}" for count in each) + together


def _of_samples(study: Study, ref: str) -> float:
    return drawing(study, ref).gigaflops * calls(study.recipe(ref).sample)
