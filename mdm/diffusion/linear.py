"""The best denoiser of a set of pictures among those that are linear in what they see: what averaging alone can do.

It is the simplest network of limited capacity whose optimum is known: the mean of the set, and around it the directions
in which its pictures differ, each shrunk by how much noise covers it (docs/reference.md, section 20).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class LinearNetwork:
    """In the place of a network that predicts x0: it is told a step and answers clean pictures of one level."""

    def __init__(self, pictures: Tensor, gammas: Tensor) -> None:
        """`pictures` [N,3,R,R]; gammas [1,steps+1] as `schedule.levels` gives them."""
        self._shape, self._gammas = pictures.shape[1:], gammas[0].double()
        flat = pictures.flatten(1).double()
        self.mean = flat.mean(dim=0)
        _, sizes, self.directions = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.variances = sizes.square() / len(flat)

    def __call__(
        self, noisy: Sequence[Tensor], times: Tensor, *_condition: Tensor | None, **_more: object
    ) -> list[Tensor]:
        return [self.answer(noisy[0], self._gammas[times.long() + 1])]

    def answer(self, noisy: Tensor, gammas: Tensor) -> Tensor:
        """Clean pictures [Q,3,R,R] for noisy ones of gammas [Q]."""
        gammas = gammas.double()[:, None]
        seen = (noisy.flatten(1).double() / gammas.sqrt() - self.mean) @ self.directions.T
        kept = self.variances / (self.variances + (1 - gammas) / gammas)
        return (self.mean + (seen * kept) @ self.directions).float().view(-1, *self._shape)

    def loss(self, sigmas: Tensor) -> Tensor:
        """Its mean squared error per pixel and channel at noise levels [S], for pictures of the set."""
        squares = sigmas.double()[:, None].square()
        left = self.variances * squares / (self.variances + squares)
        return left.sum(dim=1) / len(self.mean)
