"""A small network that reads a scene: which colours and shapes, in which pairs, how many, and where.

It looks at cells of 8 x 8 pixels. Each cell says whether an object is there, which colour and which shape
it has; a pair is in the picture if some cell shows it. So a pair that was never trained on can still be read,
and a colour and a shape that are both present but on different objects are not a pair.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdm.evaluate.labels import CLASSES, COUNTS, RELATIONS, WIDTHS
from mdm.files.weights import load_weights, read_meta
from mdm.model.checkpoints import load_into

WEIGHTS = "weights.safetensors"
EMPTY_BIAS = -3.0  # most cells are background: starting there saves the first third of the training
RELATION_WIDTH = 32


@dataclass(frozen=True)
class Reading:
    """Logits of sets (colours, shapes, pairs [B, width]) and classes (count [B, 4], relation [B, 7]).

    features [B, C], the spatial mean of the last layer, are what Fréchet distances are measured in.
    """

    colours: Tensor
    shapes: Tensor
    pairs: Tensor
    count: Tensor
    relation: Tensor
    features: Tensor

    def answers(self) -> dict[str, np.ndarray]:
        sets = {key: getattr(self, key) > 0 for key in WIDTHS}
        classes = {key: getattr(self, key).argmax(dim=1) for key in CLASSES}
        return {key: value.to(torch.int8).cpu().numpy() for key, value in (sets | classes).items()}


def unit(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two convolutions beside an identity; [B, C, H, W] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            unit(channels, channels, 3, 1), nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Judge(nn.Module):
    """Pictures [B, 3, R, R] in [-1, 1] -> Reading."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = channels
        self.trunk = nn.Sequential(
            unit(3, first, 5, 2), unit(first, second, 3, 2), Residual(second),
            unit(second, third, 3, 2), Residual(third),
        )  # fmt: skip
        self.cells = nn.Conv2d(third, 2 + WIDTHS["colours"] + WIDTHS["shapes"], 1)
        nn.init.constant_(self.cells.bias[:2], EMPTY_BIAS)
        self.count_sharpness = nn.Parameter(torch.zeros(()))
        self.relation = nn.Sequential(
            nn.Linear(9, RELATION_WIDTH), nn.ReLU(),
            nn.Linear(RELATION_WIDTH, RELATION_WIDTH), nn.ReLU(), nn.Linear(RELATION_WIDTH, RELATIONS),
        )  # fmt: skip

    def hidden(self) -> list[Tensor]:
        """Weights of the hidden convolutions. The heads learn better with AdamW: 96 % of pairs instead of 93 %."""
        return [p for p in self.trunk.parameters() if p.ndim == 4]

    def forward(self, pictures: Tensor) -> Reading:
        maps = self.trunk(pictures)
        grid = _grid(maps)
        sizes = [1, 1, WIDTHS["colours"], WIDTHS["shapes"]]
        object_here, centre_here, colour, shape = self.cells(maps).flatten(2).split(sizes, dim=1)
        colour = F.logsigmoid(object_here) + colour.log_softmax(dim=1)
        pair = (colour[:, :, None] + shape.log_softmax(dim=1)[:, None]).flatten(1, 2)
        shape = F.logsigmoid(object_here) + shape.log_softmax(dim=1)
        missing = log_absent(pair)
        return Reading(
            colours=presence(log_absent(colour)),
            shapes=presence(log_absent(shape)),
            pairs=presence(missing),
            count=self._count(centre_here),
            relation=self.relation(_two_groups(pair.exp(), missing, grid)),
            features=maps.mean(dim=(2, 3)),
        )

    def _count(self, centre_here: Tensor) -> Tensor:
        """Logits [B, 4]: the cells' centres of objects add up to the number of objects."""
        total = centre_here.sigmoid().sum(dim=2)
        numbers = torch.arange(1, COUNTS + 1, device=total.device)
        return -((total - numbers) ** 2) * self.count_sharpness.exp()


def _grid(maps: Tensor) -> Tensor:
    """Coordinates [cells, 2] in [-1, 1] of a map [B, C, H, W]."""
    down, across = (torch.linspace(-1, 1, size, device=maps.device) for size in maps.shape[-2:])
    return torch.cartesian_prod(down, across).flip(1)


def log_absent(log_here: Tensor) -> Tensor:
    """Log-probability [B, K] that K things are in no cell, from those that they are in each [B, K, cells]."""
    return torch.log1p(-log_here.exp().clamp(max=1 - 1e-5)).sum(dim=-1).clamp(max=-1e-6)


def presence(missing: Tensor) -> Tensor:
    """Logit of being present from the log-probability of being absent."""
    return torch.log(-torch.expm1(missing)) - missing


def _two_groups(here: Tensor, missing: Tensor, grid: Tensor) -> Tensor:
    """What a relation depends on [B, 9]: offset, extents and sizes of the two groups, whether they are one.

    Labels tell a relation from the pair with the smaller index: the first pair present, not the last.
    here [B, K, cells] are probabilities, missing [B, K] log-probabilities.
    """
    present = -torch.expm1(missing)
    first = present * (missing.cumsum(1) - missing).exp()
    last = present * (missing.flip(1).cumsum(1).flip(1) - missing).exp()
    (where_a, extent_a, size_a), (where_b, extent_b, size_b) = (_place(w, here, grid) for w in (first, last))
    same = (first * last).sum(dim=1, keepdim=True)
    return torch.cat([where_a - where_b, extent_a, extent_b, size_a, size_b, same], dim=1)


def _place(weights: Tensor, here: Tensor, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean position [B, 2], extent [B, 2] and log-size [B, 1] of the pairs that weights [B, K] choose."""
    field = torch.einsum("bk,bkn->bn", weights, here)
    size = field.sum(dim=1, keepdim=True)
    share = field / (size + 1e-4)
    mean = share @ grid
    variance = (share @ grid**2 - mean**2).clamp(min=1e-6)
    return mean, variance.sqrt(), (size + 1e-4).log()


def to_input(pictures: np.ndarray, resolution: int) -> Tensor:
    """uint8 [B, H, W, 3] -> [B, 3, R, R] in [-1, 1]: averaged down, or bilinear up where they are smaller."""
    floats = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    side = floats.shape[-1]
    if side < resolution:
        return F.interpolate(floats, size=(resolution, resolution), mode="bilinear", align_corners=False)
    return F.interpolate(floats, size=(resolution, resolution), mode="area") if side > resolution else floats


class JudgeReader:
    """A trained judge: uint8 pictures [B, H, W, 3] -> (answers, features [B, C])."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        path = folder / WEIGHTS
        weights, shape = load_weights(path), read_meta(path)
        self._resolution, self._device = shape["resolution"], device
        self._judge = Judge(tuple(shape["channels"]))
        load_into(self._judge, weights, str(path))
        self._judge.eval().to(device)

    def __call__(self, pictures: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        with torch.inference_mode():
            reading = self._judge(to_input(pictures, self._resolution).to(self._device))
        return reading.answers(), reading.features.cpu().numpy()
