"""Composition in the manner of GenEval (Ghosh et al. 2023), for drawn scenes and by the judge that reads them.

Its tasks under its names: is the one object there, are both, how many, in which colours, where, and which has which
colour. The score of all is the mean of the tasks' means, so that a task with few captions counts as much as another.
Several pictures are drawn for each prompt; they are not independent, so intervals leave out groups of prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mdm.evaluate.alignment import Answers, asked, matches
from mdm.evaluate.intervals import Estimate, groups_of, metric, wilson
from mdm.evaluate.metric_names import COMPOSITION, TASKS


def composition(answers: Answers, labels: Answers, per_prompt: int = 1, end: str = "") -> Iterator[dict[str, Any]]:
    """Rows composition, composition_single_object, ...; all prompts stand once, then all of them again, and so on."""
    count = len(labels["shapes"])
    if count % per_prompt:
        raise ValueError(f"{count} pictures are not {per_prompt} for each prompt")
    prompt = np.arange(count) % (count // per_prompt)
    groups = groups_of(count // per_prompt)
    kept = [np.ones(count, bool), *(~np.isin(prompt, group) for group in groups)]
    means = {}
    for task, factor in TASKS.items():
        relevant, right = _relevant(labels, task, factor), matches(answers, labels, factor)
        # Without any group of prompts some must be left that ask for it.
        if all((relevant & rows).any() for rows in kept):
            means[task] = np.array([right[relevant & rows].mean() for rows in kept])
            yield _row(f"{COMPOSITION}_{task}{end}", means[task], int(relevant.sum()), per_prompt)
    if means:
        yield _row(f"{COMPOSITION}{end}", np.mean([*means.values()], axis=0), count, per_prompt)


def _relevant(labels: Answers, task: str, factor: str) -> np.ndarray:
    """Whose prompts are of a task: all that say something about its factor, or name one shape, or two."""
    found = asked(labels, factor)
    if factor != "shape":
        return found
    return found & ((labels["shapes"] > 0).sum(axis=1) == (1 if task == "single_object" else 2))


def _row(name: str, values: np.ndarray, n: int, per_prompt: int) -> dict[str, Any]:
    found = Estimate(float(values[0]), values[1:])
    low, high = found.value - found.half_width, found.value + found.half_width
    if found.value in (0, 1):  # nothing varies, yet other prompts might have: as if each prompt were one picture
        low, high = wilson(round(found.value * (n // per_prompt)), n // per_prompt)
    return metric(name, found.value, max(0.0, low), min(1.0, high), n, found.without)
