"""Inception Score: how sure a classifier is of each picture, and how many things it sees in all of them."""

from __future__ import annotations

import numpy as np


def inception_score(logits: np.ndarray, splits: int = 1) -> float:
    """exp of the mean divergence of p(class | picture) from p(class); mean over splits of rows in their order.

    With one split, as here everywhere, the order of pictures means nothing. Ten splits of pictures that come class by
    class measure the order instead.
    """
    probabilities = _softmax(np.asarray(logits, dtype=np.float64))
    return float(np.mean([_score(part) for part in np.array_split(probabilities, splits)]))


def _score(probabilities: np.ndarray) -> float:
    whole = probabilities.mean(axis=0)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    of_whole = np.log(whole, out=np.zeros_like(whole), where=whole > 0)
    return float(np.exp((probabilities * (logs - of_whole)).sum(axis=1).mean()))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
