"""What a cascade costs: its networks count together, and so do the pictures that its bases draw."""

from collections.abc import Callable, Mapping
from typing import Any

from mdm.study.runs import Evaluation, Stage

Json = Callable[[str | None, str], Any]
DRAWING = ("seconds", "network_evaluations_per_image")


def parameters(stage: Stage, known: Mapping[str, int | None]) -> int | None:
    """Weights of all networks that draw one after the other until this stage has drawn; None if one is not known."""
    counts = [known.get(one.name) for one in stage.chain]
    return None if None in counts else sum(count for count in counts if count is not None)


def drawing(evaluation: Evaluation, json: Json) -> dict[str, Any] | None:
    """The manifest of the pictures, with the time and the calls of all networks that led to them."""
    own = json(evaluation.samples, "manifest.json")
    if own is None:
        return None
    for low in evaluation.lows:
        before = json(low, "manifest.json") or {}
        own = own | {key: own[key] + before[key] for key in DRAWING if key in own and key in before}
    return own
