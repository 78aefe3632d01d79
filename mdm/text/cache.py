"""Embeddings of all captions of a data set, made once, in shards; looked up where they lie on disk.

    shards/00000.safetensors    features of up to SHARD_CAPTIONS captions, packed without padding, and the captions
    lookup.safetensors          the captions' hashes in order, and where each one's features are

Each distinct caption is stored once. Memory depends neither on the number of captions nor on their length: a reader
maps the files, and the writer keeps 40 bytes per caption of the index and the texts of one shard. A killed writer goes
on with the first shard that is not whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mdm.data.duplicates import repeated
from mdm.data.index import iterate_index
from mdm.manifest import ArtifactError, Making, canonical, read_json, sha256_file, write_json
from mdm.text.shard import Mapped, Shard, write_arrays, write_shard

if TYPE_CHECKING:
    from mdm.text.encoder import Encoder

LOOKUP = "lookup.safetensors"
SHARD_CAPTIONS = 65_536


@dataclass(frozen=True)
class Captions:
    """The captions of data folders, some more before them; read anew each time."""

    folders: Sequence[Path]
    more: Sequence[str] = ()

    def __iter__(self) -> Iterator[str]:
        yield from self.more
        for folder in self.folders:
            for row in iterate_index(folder):
                yield row.caption


def write(
    folder: Path, captions: Iterable[str], encoder: Encoder, shard_captions: int = SHARD_CAPTIONS
) -> dict[str, Any]:
    """Encode the distinct captions and "" (captions are read twice); returns what the manifest says of them."""
    shards: list[dict[str, Any]] = []
    keys: list[np.ndarray] = []
    for part in _batched(_distinct(captions), shard_captions):
        part.sort()
        shards.append(_finished_shard(folder, len(shards), part, encoder))
        keys.append(np.array([_key(caption) for caption in part], dtype="<u8"))
        print(f"shard {len(shards) - 1}: {len(part):,} captions, {shards[-1]['tokens']:,} tokens", flush=True)
    places = [np.stack([np.full(len(k), n), np.arange(len(k))], axis=1) for n, k in enumerate(keys)]
    order = np.argsort(np.concatenate(keys), kind="stable")
    longest = max(shard["longest"] for shard in shards)
    write_arrays(
        folder / LOOKUP,
        {
            "keys": np.concatenate(keys)[order],
            "longest": np.array([longest], dtype="<i8"),
            "places": np.concatenate(places)[order].astype("<i4"),
        },
    )
    counts = {name: sum(shard[name] for shard in shards) for name in ("captions", "tokens")}
    return {**counts, "channels": encoder.channels, "longest": longest, "shards": shards}


def _batched(captions: Iterator[str], size: int) -> Iterator[list[str]]:
    while part := list(itertools.islice(captions, size)):
        yield part


def _distinct(captions: Iterable[str]) -> Iterator[str]:
    """Each caption where it first appears, "" before all others."""
    everything = itertools.chain([""], captions)
    firsts = iter(_first_places(everything).tolist())
    wanted = next(firsts)
    for place, caption in enumerate(itertools.chain([""], captions)):
        if place == wanted:
            yield caption
            wanted = next(firsts, None)


def _first_places(captions: Iterable[str]) -> np.ndarray:
    """Where each distinct caption first appears, ascending, int64; captions are told apart by 128 bits of a hash."""
    hashes = bytearray()
    for caption in captions:
        hashes += _hash(caption)[:16]
    return np.flatnonzero(~repeated(np.frombuffer(hashes, dtype="<u8").reshape(-1, 2)))


def _hash(caption: str) -> bytes:
    return hashlib.sha256(caption.encode()).digest()


def _key(caption: str) -> int:
    """What captions are filed under, 64 bits; two captions may share it."""
    return int.from_bytes(_hash(caption)[:8], "little")


def _finished_shard(folder: Path, number: int, captions: list[str], encoder: Encoder) -> dict[str, Any]:
    """The record of a shard; one of these captions that is whole already is left alone."""
    path = folder / "shards" / f"{number:05d}.safetensors"
    record = path.with_suffix(".json")
    identity = hashlib.sha256(canonical([captions, encoder.channels, str(encoder.stored)])).hexdigest()
    if path.is_file() and record.is_file():
        known = read_json(record)
        if known["identity"] == identity and known["sha256"] == sha256_file(path):
            return known
    tokens, longest = write_shard(path, captions, encoder)
    found = {
        "file": f"shards/{path.name}", "captions": len(captions), "tokens": tokens, "longest": longest,
        "sha256": sha256_file(path), "identity": identity,
    }  # fmt: skip
    write_json(record, found)
    return found


class Embeddings:
    """Lookup of cached features by caption."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        mapped = Mapped(self.folder / LOOKUP)
        self._keys, self._places = mapped.array("keys"), mapped.array("places")
        self._shards: dict[int, Shard] = {}
        #: tokens of the longest caption: every lookup has this S, so shapes do not depend on the batch
        self.tokens = int(mapped.array("longest")[0])
        self.channels = self._shard(0).channels

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, caption: str) -> bool:
        return self._find(caption) is not None

    def lookup(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features float32 [B, S, D], zero where mask [B, S] is zero; S is the longest cached caption's."""
        features = torch.zeros(len(captions), self.tokens, self.channels)
        mask = torch.zeros(len(captions), self.tokens)
        for position, caption in enumerate(captions):
            found = self._features(caption)
            features[position, : len(found)] = found
            mask[position, : len(found)] = 1.0
        return features, mask

    def _features(self, caption: str) -> Tensor:
        place = self._find(caption)
        if place is None:
            raise ArtifactError(
                f"{self.folder} holds {len(self)} captions, but not {caption!r}; it is of another data set"
            )
        return self._shard(place[0]).features(place[1])

    def _find(self, caption: str) -> tuple[int, int] | None:
        """Shard and row, proved by the caption itself: hashes may be shared."""
        key, text = np.uint64(_key(caption)), caption.encode()
        for entry in range(int(np.searchsorted(self._keys, key)), len(self._keys)):
            if self._keys[entry] != key:
                return None
            shard, row = self._places[entry].tolist()
            if self._shard(shard).text(row) == text:
                return shard, row
        return None

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            self._shards[number] = Shard(self.folder / "shards" / f"{number:05d}.safetensors")
        return self._shards[number]


def embed(recipe_path: str | Path, device: str | None = None) -> dict[str, Any]:
    """Embed every caption of the recipe's data sets (and its optional list `captions`); on a GPU if there is one."""
    from mdm.text import encoder as encoders

    making, device = Making(recipe_path), device or ("cuda" if torch.cuda.is_available() else "cpu")
    recipe = making.recipe
    captions = Captions([making.root / reference for reference in recipe["data"]], recipe.get("captions", ()))
    counts = write(making.folder, captions, encoders.load(recipe["encoder"], device))
    whole = hashlib.sha256(json.dumps([shard["sha256"] for shard in counts["shards"]]).encode()).hexdigest()
    return making.finish({**counts, "sha256": whole}, device)
