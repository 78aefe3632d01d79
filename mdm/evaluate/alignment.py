"""Does the picture show what its caption says? Exact matches of a judge's answers, factor by factor."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mdm.evaluate.intervals import groups_of, metric, over_prompts, proportion, wilson
from mdm.evaluate.labels import UNKNOWN
from mdm.evaluate.metric_names import FACTORS

Answers = Mapping[str, np.ndarray]


def asked(labels: Answers, factor: str) -> np.ndarray:
    """Which captions say something about the factor, bool [N]."""
    values = labels[FACTORS[factor]]
    if factor == "relation":
        return values > 0  # "none" is not something a caption asks for
    return (values != UNKNOWN).reshape(len(values), -1).all(axis=1)


def matches(answers: Answers, labels: Answers, factor: str) -> np.ndarray:
    """Whether the whole set (or the class) is right, bool [N]; one colour too many is wrong."""
    equal = answers[FACTORS[factor]] == labels[FACTORS[factor]]
    return equal.reshape(len(equal), -1).all(axis=1)


def correct(answers: Answers, labels: Answers, factor: str | None) -> np.ndarray:
    """Outcome for each picture whose caption asks for the factor; None: everything the caption asks for."""
    if factor:
        return matches(answers, labels, factor)[asked(labels, factor)]
    right = np.logical_and.reduce([matches(answers, labels, name) | ~asked(labels, name) for name in FACTORS], axis=0)
    return right[asked(labels, "binding")]


def chance(
    answers: Answers, labels: Answers, factor: str | None, shifts: int, per_prompt: int = 1
) -> tuple[float, int]:  # fmt: skip
    """The same answers scored against other prompts' labels (cyclic shifts): mean, and pictures.

    `per_prompt`: all prompts stand once, then all of them again, and so on; a shift by all of them would be no guess.
    """
    relevant = np.flatnonzero(asked(labels, factor or "binding"))
    answers, labels = _rows(answers, relevant), _rows(labels, relevant)
    n = len(relevant)
    if n // per_prompt < 2:
        return float("nan"), 0
    steps = np.unique(np.linspace(1, n - 1, min(shifts, n - 1)).astype(int))
    steps = steps[steps % (n // per_prompt) != 0]
    outcomes = [correct(answers, _rows(labels, np.roll(np.arange(n), step)), factor).mean() for step in steps]
    return float(np.mean(outcomes)), n


def shares_without(outcome: np.ndarray, relevant: np.ndarray) -> list[float] | None:
    """Share of true outcomes without each group (relevant: who has one); None where a group holds all of them."""
    place = np.full(len(relevant), -1)
    place[relevant] = np.arange(len(outcome))
    found = []
    for group in groups_of(len(relevant)) if len(relevant) >= 4 else ():
        left = np.delete(outcome, place[group][place[group] >= 0])
        if not len(left):
            return None
        found.append(float(left.mean()))
    return found or None


def _rows(arrays: Answers, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {key: values[rows] for key, values in arrays.items()}


def alignment(answers: Answers, labels: Answers, shifts: int, per_prompt: int = 1) -> list[dict[str, Any]]:
    """Rows alignment, alignment_chance, alignment_colour, ... for every factor that some caption asks for."""
    rows = []
    for factor in (None, *FACTORS):
        name = f"alignment_{factor}" if factor else "alignment"
        outcome, relevant = correct(answers, labels, factor), asked(labels, factor or "binding")
        by_chance, n = chance(answers, labels, factor, shifts, per_prompt)
        if len(outcome) and n:
            found = proportion(name, outcome, shares_without(outcome, relevant))
            rows.append(over_prompts(found, per_prompt, share=True))
            rows.append(metric(f"{name}_chance", by_chance, *wilson(round(by_chance * n), n), n))
    return rows
