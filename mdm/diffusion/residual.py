"""Residual levels: an outer level predicts what its picture has beyond the clean picture of the level inside."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def completed(answers: Sequence[Tensor]) -> list[Tensor]:
    """Answers [b,3,R,R], highest first -> clean pictures: each answer plus the completed one inside, enlarged.

    A fresh outer level answers zero and so begins with the enlarged picture. No gradient passes from an outer level
    into the answer inside: the inner level is taught by its own pictures alone.
    """
    found = [answers[-1]]
    for answer in reversed(answers[:-1]):
        inside = found[-1][: len(answer)].detach()
        found.append(answer + F.interpolate(inside, size=answer.shape[-2:], mode="bilinear", align_corners=False))
    return found[::-1]
