"""Copies in feature space: how like each drawn picture is to the training picture most like it (Somepalli et al. 2023).

What is near depends on the features, so the same number of training pictures against the others stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from mdm.evaluate.audit_rows import share
from mdm.evaluate.copies import similarity
from mdm.evaluate.features import FEATURES
from mdm.evaluate.intervals import jackknife, mean_with_interval, metric
from mdm.evaluate.metric_names import similarity as named

READERS = ("judge", "clip", "inception", "sscd")
ALIKE = 0.5  # cosine above which Somepalli et al. call a picture replicated, for their features (SSCD)


def similarities(drawn: Path, known: Path, count: int) -> Iterator[dict[str, Any]]:
    """The rows of every network whose features both artifacts hold; of the first `count` drawn pictures."""
    ours, theirs = (load_file(folder / FEATURES) for folder in (drawn, known))
    for reader in READERS:
        if reader in ours and reader in theirs:
            yield from rows(reader, ours[reader][:count], theirs[reader])


def rows(reader: str, drawn: np.ndarray, known: np.ndarray) -> Iterator[dict[str, Any]]:
    """Mean, share above a half, high percentiles, and the mean among training pictures."""
    found = similarity(drawn, known)
    values = found.drawn.astype(np.float64)
    mean = jackknife(lambda kept: float(values[kept].mean()), len(values))
    yield metric(named(reader), *mean_with_interval(values), len(values), mean.without)
    yield {**share("", values > ALIKE), "metric": named(reader, "_share")}
    for place in (75, 90, 95):
        estimate = jackknife(lambda kept, place=place: float(np.percentile(values[kept], place)), len(values))
        ends = (estimate.value + sign * estimate.half_width for sign in (-1, 1))
        yield metric(named(reader, f"_p{place}"), estimate.value, *ends, len(values), estimate.without)
    yield metric(named(reader, "_train"), *mean_with_interval(found.baseline), len(found.baseline))
