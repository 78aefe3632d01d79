"""Exact nearest neighbours of pictures among many others, which stream past in blocks.

All is done in whole numbers. Pictures are moved by 128, so that a product of two values is at most 128^2; of 1,024 such
products every partial sum is at most 2^24 and so a whole number that float32 holds, in whatever order a matrix product
adds them. Longer pictures are multiplied in parts of 1,024 values, whose sums are added as integers. So no rounding
enters, and neither blocks nor the order of pictures change a distance; equal distances go to the lower number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CENTRE = 128
PART = 2**24 // CENTRE**2  # values whose products add up exactly in float32
KEPT_BYTES = 2**29
TILE, BLOCK = 2048, 2048  # drawn pictures, and others, that are compared at once
FAR = np.iinfo(np.int64).max  # where there are fewer pictures than neighbours asked for
NARROW = np.iinfo(np.int32).max // 255**2  # values of a picture up to which squared distances fit into 32 bits

Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Neighbours:
    """Of Q pictures the k nearest others: squared distances int64 [Q,k], rising, and their numbers int64 [Q,k]."""

    squared: np.ndarray
    index: np.ndarray

    def expanded(self, copies: np.ndarray, count: int) -> np.ndarray:
        """Squared distances of the `count` nearest where picture n stands copies[n] times, int64 [Q,count].

        Right for as many as there are neighbours here: each of them stands at least once.
        """
        times = np.minimum(copies[self.index], count)
        ends = times.cumsum(axis=1)
        places = (ends[:, :, None] <= np.arange(count)).sum(axis=1)
        if (ends[:, -1] < count).any():
            raise ValueError(f"{count} neighbours, but {self.squared.shape[1]} pictures stand fewer times together")
        return np.take_along_axis(self.squared, places, axis=1)


class Search:
    """Keeps the k nearest of all pictures seen so far, for each of some drawn ones."""

    def __init__(self, drawn: np.ndarray, nearest: int, gpu: bool | None = None) -> None:
        """`drawn`: uint8 [Q,...]; `gpu`: whether products are taken there (None: where there is one)."""
        _bytes_only(drawn)
        flat = drawn.reshape(len(drawn), -1)
        self.nearest, self.seen, self._values = nearest, 0, flat.shape[1]
        self._machine = (_OnGpu if (gpu_there() if gpu is None else gpu) else _OnCpu)(self._values)
        self._tiles = [slice(first, min(first + TILE, len(flat))) for first in range(0, len(flat), TILE)]
        # Drawn pictures are moved once where that takes little memory, or else anew for each block.
        few = 4 * flat.size <= KEPT_BYTES
        self._drawn, self._moved = flat, [self._machine.put(flat[own]) for own in self._tiles] if few else []
        self._squared = np.full((len(flat), nearest), FAR)
        self._index = np.full((len(flat), nearest), -1, np.int64)

    def add(self, pictures: np.ndarray) -> None:
        """Look at some more pictures, uint8 [n,...] of the same size; their numbers go on counting."""
        _bytes_only(pictures)
        flat = pictures.reshape(len(pictures), -1)
        if len(flat) and flat.shape[1] != self._values:
            raise ValueError(f"pictures of {flat.shape[1]} values beside drawn ones of {self._values}; shrink one side")
        for first in range(0, len(flat), BLOCK):
            block = self._machine.put(flat[first : first + BLOCK])
            for place, own in enumerate(self._tiles):
                mine = self._moved[place] if self._moved else self._machine.put(self._drawn[own])
                self._merge(own, *self._machine.closer(mine, block, self._squared[own, -1], self.nearest))
            self.seen += len(flat[first : first + BLOCK])

    def _merge(self, own: slice, rows: np.ndarray, columns: np.ndarray, squared: np.ndarray) -> None:
        """Put candidates of a tile among its nearest; rows ascend, and all numbers are higher than those before."""
        touched, counts = np.unique(rows, return_counts=True)
        if not len(touched):
            return
        best, index = self._squared[own], self._index[own]
        row = np.concatenate([np.repeat(touched, self.nearest), rows])
        value = np.concatenate([best[touched].ravel(), squared])
        number = np.concatenate([index[touched].ravel(), columns + self.seen])
        order = np.lexsort((number, value, row))
        ends = (counts + self.nearest).cumsum()
        kept = order[(np.concatenate([[0], ends[:-1]])[:, None] + np.arange(self.nearest))]
        best[touched], index[touched] = value[kept], number[kept]

    def found(self) -> Neighbours:
        """The nearest of all that were added; as many as there were, if fewer than asked for."""
        there = min(self.nearest, self.seen)
        return Neighbours(self._squared[:, :there].copy(), self._index[:, :there].copy())


def neighbours(drawn: np.ndarray, blocks: Iterable[np.ndarray], nearest: int, gpu: bool | None = None) -> Neighbours:
    """The k nearest pictures of all blocks, for each of the drawn ones."""
    search = Search(drawn, nearest, gpu)
    for block in blocks:
        search.add(block)
    return search.found()


def _bytes_only(pictures: np.ndarray) -> None:
    if pictures.dtype != np.uint8:
        raise ValueError(f"neighbours are found among pictures of bytes, not {pictures.dtype}; round them to uint8")


def gpu_there() -> bool:
    """Whether products can be taken on a GPU; torch, which takes seconds, is only asked where a driver is."""
    if not Path("/proc/driver/nvidia").exists():
        return False
    import torch

    return torch.cuda.is_available()


class _OnCpu:
    """Products of drawn pictures with a block, by numpy."""

    def __init__(self, values: int) -> None:
        self._wide = np.int32 if values <= NARROW else np.int64

    def put(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures as they are multiplied, float32, and the squares of their lengths."""
        centred = np.subtract(pictures, np.float32(CENTRE), dtype=np.float32)
        norms = np.zeros(len(centred), self._wide)
        for part in _parts(centred):
            norms += np.einsum("ij,ij->i", part, part).astype(self._wide)
        return centred, norms

    def closer(self, mine: Any, theirs: Any, limit: np.ndarray, nearest: int) -> Candidates:
        """Rows, columns and squared distances of all pairs nearer than limit [rows], by rows, then columns."""
        (drawn, own), (block, norms) = mine, theirs
        squared = own[:, None] + norms
        for left, right in zip(_parts(drawn), _parts(block), strict=True):
            squared -= (2 * left @ right.T).astype(self._wide)  # twice a whole number that float32 holds is another
        most = np.iinfo(self._wide).max
        near = squared < np.minimum(limit, most).astype(self._wide)[:, None]
        if np.count_nonzero(near) > 4 * nearest * len(squared):  # the first block, or pictures sorted towards the drawn
            place = min(nearest, squared.shape[1]) - 1
            near &= squared <= np.partition(squared, place, axis=1)[:, place, None]
        rows, columns = np.nonzero(near)
        return rows, columns, squared[rows, columns].astype(np.int64)


def _parts(pictures: np.ndarray) -> list[np.ndarray]:
    return [pictures[:, first : first + PART] for first in range(0, pictures.shape[1], PART)]


class _OnGpu:
    """The same by torch: only what is near leaves the GPU."""

    def __init__(self, _values: int) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False  # it would round values, and then no sum is whole
        self._torch, self._device = torch, torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def put(self, pictures: np.ndarray) -> tuple[Any, Any]:
        """As on the processor."""
        centred = self._torch.from_numpy(np.array(pictures)).to(self._device).float() - CENTRE
        return centred, centred.long().square().sum(dim=1)

    def closer(self, mine: Any, theirs: Any, limit: np.ndarray, nearest: int) -> Candidates:
        """As on the processor."""
        (drawn, own), (block, norms) = mine, theirs
        squared = own[:, None] + norms
        for left, right in zip(drawn.split(PART, dim=1), block.split(PART, dim=1), strict=True):
            squared -= 2 * (left @ right.T).long()
        near = squared < self._torch.from_numpy(limit).to(self._device)[:, None]
        if int(near.sum()) > 4 * nearest * len(squared):
            near &= squared <= squared.kthvalue(min(nearest, squared.shape[1]), dim=1).values[:, None]
        rows, columns = near.nonzero(as_tuple=True)
        return rows.cpu().numpy(), columns.cpu().numpy(), squared[rows, columns].cpu().numpy()
