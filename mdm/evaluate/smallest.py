"""How few pictures a score can be taken from, and how far it is off there: measured, or by its formula."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Smallest:
    """The smallest sensible number of pictures on each side, and what is wrong with the score at that number.

    `refused`: with fewer there is no number at all, neither in tables nor in verdicts.
    """

    fewest: int
    bias: str
    refused: bool = False


NEIGHBOURS = 2000  # below, precision tells a network from real pictures by a few pictures: 0.98 for 0.82 at 96
DISTANCE = "too large by about as much as two such sets of real pictures are apart; only equal numbers compare"
# By families, as titles are: the longest name that begins a metric's counts.
SMALLEST = {
    "fd": Smallest(500, DISTANCE),
    "fid": Smallest(10_000, f"{DISTANCE} (5.2 at 10,000 pictures, 10.3 at 5,000)"),
    "fd_dino": Smallest(10_000, DISTANCE),
    "kid": Smallest(100, "none at any number"),
    "kd_frames": Smallest(100, "none at any number of clips"),
    "kd_motion": Smallest(100, "none at any number of clips"),
    "precision": Smallest(NEIGHBOURS, "too high, and more so with fewer pictures; only equal numbers compare", True),
    "recall": Smallest(NEIGHBOURS, "too high, and more so with fewer pictures; only equal numbers compare", True),
    "frame_consistency": Smallest(100, "none at any number of clips"),
    "density": Smallest(NEIGHBOURS, "none: 1 is expected of real pictures at any number", True),
    "coverage": Smallest(NEIGHBOURS, "real pictures reach 0.969 with five neighbours, not 1", True),
    "inception_score": Smallest(5000, "too low: by up to 7 % with 1,000 classes", True),
    "clip_score": Smallest(100, "none at any number"),
    "composition": Smallest(100, "none, but it reads no better than its judge reads real pictures"),
    "fvd": Smallest(2048, f"{DISTANCE}, and even more so: answers are 400 wide"),
    "alignment": Smallest(100, "none at any number"),
}  # fmt: skip


def smallest(metric: str) -> Smallest | None:
    """What is known of a metric's family; none of what frames a score or needs no pictures."""
    found = [name for name in SMALLEST if metric == name or metric.startswith(f"{name}_")]
    return SMALLEST[max(found, key=len)] if found else None


def too_few(metric: str, *counts: int) -> str | None:
    """Why there is no number of so many pictures on either side, if there is none."""
    known = smallest(metric)
    if known is None or not known.refused or min(counts) >= known.fewest:
        return None
    return f"too few pictures: {' and '.join(map(str, counts))}, and at least {known.fewest} of either kind are needed"
