"""Distances of clips: of what their frames show, and of how they move, framed by real clips without their motion."""

from __future__ import annotations

import numpy as np

from mdm.config.instruments import ScoreSettings
from mdm.evaluate.frechet import Reference
from mdm.evaluate.intervals import jackknife, mean_with_interval, metric, over_prompts
from mdm.evaluate.kid import kernel_estimate
from mdm.evaluate.metric_names import CONSISTENCY, DESTROYED, DISTANCES
from mdm.evaluate.scores_besides import Rows, Side, frechet_rows, row


def clip_distances(generated: Side, reference: Side, floor: Side | None, _: ScoreSettings) -> Rows:
    """Kernel distances of both kinds; what other real clips get, and what they get reversed, frozen and shuffled."""
    for kind in ("frames", "motion"):
        for network in DISTANCES:
            array = f"{kind}.{network}"
            if array not in generated.arrays:
                continue
            name, real = f"kd_{kind}_{network}", reference.arrays[array]
            yield row(name, kernel_estimate(generated.arrays[array], real), len(generated.arrays[array]))
            for key, end in ((array, "floor"), *((f"{array}.{way}", way) for way in DESTROYED)):
                if floor is not None and key in floor.arrays:
                    yield row(f"{name}_{end}", kernel_estimate(floor.arrays[key], real), len(floor.arrays[key]))


def video_distances(generated: Side, reference: Side, floor: Side | None, _: ScoreSettings) -> Rows:
    """Fréchet distance of what a network of clips says; its name tells which network it was."""
    if "video" not in generated.arrays:
        return
    fixed = Reference.of_pictures(reference.arrays["video"])
    name = f"fvd_{generated.manifest['extractors']['video']['model']}"
    for side, end in ((generated, ""), (floor, "_floor")):
        if side is not None:
            yield from frechet_rows(name, side.arrays["video"], fixed, end)


def consistency(generated: Side, reference: Side, _floor: Side | None, _: ScoreSettings) -> Rows:
    """Cosine of neighbouring frames; stills have the most of it, so what real clips have stands beside it."""
    for name, side in ((CONSISTENCY, generated), (f"{CONSISTENCY}_real", reference)):
        if "clip.consistency" in side.arrays:
            values = side.arrays["clip.consistency"].astype(np.float64)
            left = jackknife(lambda places, values=values: float(values[places].mean()), len(values)).without
            yield over_prompts(metric(name, *mean_with_interval(values), len(values), left), side.per_prompt)
