"""Which captions a text artifact holds, shard by shard: what every job that embeds some of them goes by. No torch.

Each distinct caption belongs where it first appears. Those places are found once, with 25 bytes of memory per caption,
and kept in captions.safetensors, a bit per caption; a job then reads only its own part of the index.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mdm.config.recipe import TextRecipe
from mdm.data.pictures.duplicates import repeated
from mdm.data.shards.index import iterate_index
from mdm.files.arrays import Mapped, write_arrays
from mdm.files.artifact import read_recipe, results_root
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file
from mdm.files.lock import only_writer

LISTING = "captions"
SHARD_CAPTIONS = 65_536
PORTIONS = 64  # of the hashes, each sorted by itself


@dataclass(frozen=True)
class Captions:
    """The empty caption, some more, and those of data folders; each has its place in this order."""

    folders: Sequence[Path]
    more: Sequence[str] = ()

    def parts(self) -> Iterator[Iterable[str]]:
        """Yield all captions, read anew: the first ones, then those of each folder."""
        yield ["", *self.more]
        for folder in self.folders:
            yield (row.caption for row in iterate_index(folder))

    def between(self, start: int, stop: int, begins: Sequence[int]) -> Iterator[str]:
        """Yield those at places `start` to `stop`; `begins` says where each part begins."""
        yield from ["", *self.more][start:stop]
        for folder, (begin, end) in zip(self.folders, itertools.pairwise(begins[1:]), strict=True):
            if start < end and begin < stop:
                for row in iterate_index(folder, max(start - begin, 0), min(stop, end) - begin):
                    yield row.caption


@dataclass(frozen=True)
class Listing:
    """The distinct captions by shard."""

    captions: Captions
    #: where each part of the captions begins, and where the last one ends
    begins: Sequence[int]
    #: of the distinct captions, ascending
    places: np.ndarray
    shard_captions: int

    @property
    def shards(self) -> int:
        return math.ceil(len(self.places) / self.shard_captions)

    @property
    def most_shards(self) -> int:
        """Count the shards as if no caption were there twice."""
        return most_shards(self.begins[-1], self.shard_captions)

    def shard(self, number: int) -> list[str]:
        places = self.places[number * self.shard_captions : (number + 1) * self.shard_captions]
        start, stop = int(places[0]), int(places[-1]) + 1
        wanted = np.zeros(stop - start, dtype=bool)
        wanted[places - start] = True
        return sorted(itertools.compress(self.captions.between(start, stop, self.begins), wanted.tolist()))


def most_shards(captions: int, shard_captions: int) -> int:
    """Count the shards of so many captions, if all are distinct: known before any is read."""
    return math.ceil(captions / shard_captions)


def listed(captions: Captions, shard_captions: int) -> Listing:
    """Find the distinct captions; all are read once, and told apart by 128 bits of a hash."""
    hashes, begins = bytearray(), [0]
    for part in captions.parts():
        for caption in part:
            hashes += digest(caption)[:16]
        begins.append(len(hashes) // 16)
    return Listing(captions, begins, _firsts(np.frombuffer(hashes, dtype="<u8").reshape(-1, 2)), shard_captions)


def _firsts(hashes: np.ndarray) -> np.ndarray:
    """Return where each of uint64 [n, 2] first appears, ascending; sorted in portions, which takes less memory."""
    portion, first = (hashes[:, 0] % PORTIONS).astype(np.uint8), np.zeros(len(hashes), dtype=bool)
    for number in range(PORTIONS):
        places = np.flatnonzero(portion == number)
        first[places[~repeated(hashes[places])]] = True
    return np.flatnonzero(first)


def digest(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()


def key(caption: str) -> int:
    """Return the 64 bits that captions are filed under; two captions may share them."""
    return int.from_bytes(digest(caption)[:8], "little")


def list_captions(recipe_path: str | Path) -> Listing:
    """Find the distinct captions of a text recipe and keep where they are, beside the recipe."""
    folder, captions = Path(recipe_path).parent, _captions(recipe_path)
    with only_writer(folder, LISTING):
        found = listed(captions, SHARD_CAPTIONS)
        first = np.zeros(found.begins[-1], dtype=bool)
        first[found.places] = True
        arrays = {"begins": np.array(found.begins, dtype="<i8"), "indices": _indices(captions)}
        write_arrays(folder / f"{LISTING}.safetensors", arrays | {"first": np.packbits(first)})
    return found


def read_listing(recipe_path: str | Path) -> Listing:
    """Return what `list_captions` found, if it is of the index that is there now."""
    path, captions = Path(recipe_path).with_name(f"{LISTING}.safetensors"), _captions(recipe_path)
    again = f"python -m mdm index {recipe_path}"
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; make it: {again}")
    mapped = Mapped(path)
    if not np.array_equal(mapped.array("indices"), _indices(captions)):
        raise ArtifactError(f"{path} was made from another index.tsv than is there now; make it again: {again}")
    begins = mapped.array("begins").tolist()
    places = np.flatnonzero(np.unpackbits(mapped.array("first"), count=begins[-1]))
    return Listing(captions, begins, places, SHARD_CAPTIONS)


def _captions(recipe_path: str | Path) -> Captions:
    recipe = read_recipe(recipe_path, TextRecipe)
    return Captions([results_root(recipe_path) / ref for ref in recipe.data], recipe.captions)


def _indices(captions: Captions) -> np.ndarray:
    """Return the SHA-256 of each folder's index, uint8 [folders, 32]."""
    found = [bytes.fromhex(sha256_file(folder / "index.tsv")) for folder in captions.folders]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 32)
