"""The best denoiser of a finite set of pictures, in closed form (docs/reference.md, section 17).

A network of any size that was trained for ever on these pictures alone would answer their mean, each weighted by how
well it explains what is seen. So it is a bound that is known without any training, and a network without weights:
pictures sampled with it are those of the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

BLOCK = 512  # pictures whose products are taken at once
LOST = 1e-20  # a weight beside one of 1 that no sum of any block would notice


@dataclass(frozen=True)
class Answer:
    """Of Q queries, levels in the order asked: the mean clean pictures [Q,3,R,R], and what is left unknown.

    unknown: mean squared distance of the clean picture from that mean, over pixels and channels, [Q] in float64. No
    denoiser that knows these pictures has a smaller loss.
    """

    clean: list[Tensor]
    unknown: list[Tensor]


class Posterior:
    """Sums over pictures, block after block, for queries whose weights are known up to a factor until the end.

    All levels of a query show one picture with independent noises, so their logarithms of probability add up.
    """

    def __init__(self, noisy: Sequence[Tensor], gammas: Tensor) -> None:
        """`noisy` [Q,3,R,R] of each level; gammas [L,Q], all below 1."""
        self._shapes = [x.shape for x in noisy]
        gammas = gammas.double()
        self._snr = gammas / (1 - gammas)
        self._roots, self._gains = gammas.sqrt().float(), (gammas.sqrt() / (1 - gammas)).float()
        # Distances do not change if all pictures are moved, and numbers near zero lose less in float32.
        self._centres: list[Tensor] = []
        self._noisy = [x.flatten(1) for x in noisy]
        queries = len(noisy[0])
        self._highest = noisy[0].new_full((queries,), -torch.inf)
        self._weight = torch.zeros_like(self._highest, dtype=torch.float64)
        self._sums = [torch.zeros_like(x) for x in self._noisy]
        self._squares = torch.zeros(len(noisy), queries, dtype=torch.float64, device=self._weight.device)

    def add(self, pictures: Sequence[Tensor]) -> None:
        """Count some more clean pictures, [n,3,R,R] of each level."""
        block = [x.flatten(1) for x in pictures]
        if not self._centres:
            self._begin(block)
        block = [x - centre for x, centre in zip(block, self._centres, strict=True)]
        norms = torch.stack([x.square().sum(dim=1) for x in block]).double()
        logits = -(self._snr.T / 2 @ norms)
        for scaled, x in zip(self._noisy, block, strict=True):
            logits += scaled @ x.T
        highest = torch.maximum(self._highest, logits.amax(dim=1).float())
        fade = (self._highest - highest).exp()
        weights = (logits - highest[:, None]).exp()
        self._highest, self._weight = highest, self._weight * fade + weights.sum(dim=1)
        self._squares = self._squares * fade + norms @ weights.T
        rows = ((weights.amax(dim=1) > LOST) | (fade < 1)).nonzero().flatten()  # in little noise one picture is all
        for total, x in zip(self._sums, block, strict=True):
            total[rows] = torch.addmm(total[rows] * fade[rows, None], weights[rows].float(), x)

    def _begin(self, block: list[Tensor]) -> None:
        """Move the origin to the mean of the first block; keep queries as what they are multiplied with."""
        self._centres = [x.mean(dim=0) for x in block]
        rows = zip(self._noisy, self._roots, self._gains, self._centres, strict=True)
        self._noisy = [(x - root[:, None] * centre) * gain[:, None] for x, root, gain, centre in rows]

    def answer(self) -> Answer:
        """What all pictures so far say together."""
        weight = self._weight[:, None]
        means = [(total / weight).float() for total in self._sums]
        left = [
            (squares / self._weight - mean.double().square().sum(dim=1)).clamp(min=0) / mean.shape[1]
            for squares, mean in zip(self._squares, means, strict=True)
        ]
        rows = zip(means, self._centres, self._shapes, strict=True)
        return Answer([(mean + centre).view(shape) for mean, centre, shape in rows], left)


def posterior(noisy: Sequence[Tensor], gammas: Tensor, blocks: Iterable[Sequence[Tensor]]) -> Answer:
    """The answer for noisy pictures of levels with gammas [L,Q], from all clean pictures, which come in blocks."""
    found = Posterior(noisy, gammas)
    for block in blocks:
        found.add(block)
    return found.answer()


class OptimalNetwork:
    """The optimal denoiser in the place of a network that predicts x0: it is told a step and answers clean pictures.

    It reads no caption, needs `prediction: x0` without `residual_levels`, and keeps the pictures in memory.
    """

    def __init__(self, pictures: Sequence[Tensor], gammas: Tensor, block: int = BLOCK) -> None:
        """`pictures` [N,3,R,R] of each level, highest first; gammas [L,steps+1] as `schedule.levels` gives them."""
        self._pictures, self._gammas = pictures, gammas
        self._places = list(pairwise([*range(0, len(pictures[0]), block), len(pictures[0])]))

    def __call__(
        self, noisy: Sequence[Tensor], times: Tensor, *_condition: Tensor | None, **_more: object
    ) -> list[Tensor]:
        blocks = ([x[first:end] for x in self._pictures] for first, end in self._places)
        return posterior(noisy, self._gammas[:, times.long() + 1], blocks).clean


class OptimalDenoiser:
    """The same of a single level by sigma: D(x; s) = sum_n w_n y_n, w = softmax(-|x - y_n|^2 / 2 s^2).

    Sampled by `karras_heun` it returns pictures of the set to the last grey level, so it tests sampler, rounding and
    whatever looks for copies, without a network. Distances and products are those of the released code, in float32:
    in much noise two exact ways of taking them differ by 1e-5 already, and among more than 25 pictures those that are
    nearly alike are mixed at random where there is hardly any. `Posterior` is the way for sets that fit no memory.
    """

    def __init__(self, pictures: Tensor) -> None:
        """`pictures` [N,C,H,W] in [-1, 1]."""
        self._flat = pictures.float().flatten(1)

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Clean pictures [B,C,H,W] in float32 of x = y + s epsilon at one level, or at one for each picture [B]."""
        level = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).reshape(-1, 1)
        distances = torch.cdist(x.float().flatten(1), self._flat)
        return (torch.softmax(-(distances**2) / (2 * level**2), dim=1) @ self._flat).view(x.shape)
