"""Training pictures as the networks of each level see them, block after block, for comparing drawn ones with them.

A level shows the means of squares of pixels of the highest level, which networks see unrounded; here they are rounded
to bytes (halves to even), as drawn pictures are. Pictures that cannot be used are left out, as in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import BadPicture, Policy, shrink
from mdm.files.atomic import ArtifactError

BLOCK = 1024
Block = tuple[np.ndarray, dict[int, np.ndarray]]
KEPT_BYTES = 2**29  # sets up to this size are decoded once, however often they are asked for


class Source(Protocol):
    """Pictures by number at one side; None where one cannot be used."""

    def __len__(self) -> int: ...

    def picture(self, number: int) -> np.ndarray | None: ...

    def name(self, number: int) -> str: ...


class OfData:
    """The first pictures of a data artifact."""

    def __init__(self, folder: Path, side: int, decode: Policy = "exact", take: int | None = None) -> None:
        self._pictures, self._side, self._decode = Pictures(folder), side, decode
        if self._pictures.frames:
            raise ArtifactError(f"{folder} holds clips, and copies are looked for among pictures; name a set of these")
        self._count = min(take or len(self._pictures), len(self._pictures))

    def __len__(self) -> int:
        return self._count

    def picture(self, number: int) -> np.ndarray | None:
        try:
            return self._pictures.image(number, self._side, self._decode)
        except BadPicture:
            return None

    def name(self, number: int) -> str:
        return self._pictures.key(number)


class OfArray:
    """Pictures in memory, uint8 [N,R,R,3]."""

    def __init__(self, pictures: np.ndarray, names: Sequence[str] | None = None) -> None:
        self._pictures, self._names = pictures, names

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, number: int) -> np.ndarray | None:
        return self._pictures[number]

    def name(self, number: int) -> str:
        return self._names[number] if self._names else str(number)


class Known:
    """The pictures of a source at every level."""

    def __init__(self, source: Source, sides: Sequence[int]) -> None:
        self.source, self.sides = source, tuple(sides)
        self._kept: list[Block] | None = None
        self._keeps = 3 * sum(side**2 for side in sides) * len(source) <= KEPT_BYTES

    def at(self, number: int, side: int) -> np.ndarray:
        """A picture that can be used, as a level shows it."""
        found = self.source.picture(number)
        if found is None:
            raise ArtifactError(f"picture {self.source.name(number)} cannot be read any more; make the data set again")
        return shrink(found, side)

    def blocks(self) -> Iterator[Block]:
        """Numbers [n] of those that can be used and uint8 [n,R,R,3] of each level, some pictures at a time."""
        if self._kept is not None:
            yield from self._kept
            return
        kept = []
        for first in range(0, len(self.source), BLOCK):
            read = {n: self.source.picture(n) for n in range(first, min(first + BLOCK, len(self.source)))}
            usable = {number: picture for number, picture in read.items() if picture is not None}
            if not usable:
                continue
            levels = {side: np.stack([shrink(one, side) for one in usable.values()]) for side in self.sides}
            yield np.array(list(usable)), levels
            if self._keeps:
                kept.append((np.array(list(usable)), levels))
        self._kept = kept if self._keeps else None


class Distinct:
    """Which pictures were seen first, and how often each of them stands."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._numbers: list[int] = []
        self._copies: list[int] = []

    def fresh(self, numbers: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """The pictures of a block that no picture before was equal to; all are counted."""
        new = []
        for row, number in enumerate(numbers.tolist()):
            look = hashlib.blake2b(pictures[row].tobytes(), digest_size=16).digest()
            place = self._places.setdefault(look, len(self._numbers))
            if place == len(self._numbers):
                self._numbers.append(number)
                self._copies.append(0)
                new.append(row)
            self._copies[place] += 1
        return pictures[new]

    @property
    def numbers(self) -> np.ndarray:
        """Of each distinct picture its number in the set, where it stands first."""
        return np.array(self._numbers, dtype=np.int64)

    @property
    def copies(self) -> np.ndarray:
        """How often each distinct picture stands in the set."""
        return np.array(self._copies, dtype=np.int64)
