"""Embeddings of all captions of a data set, made once, in shards; looked up where they lie on disk.

    captions.safetensors        which captions are distinct (mdm/data/text/captions.py)
    shards/00000.safetensors    features of up to SHARD_CAPTIONS captions, packed without padding, and the captions
    lookup.safetensors          the captions' hashes in order, and where each one's features are

A shard's bytes depend on its captions and the encoder only, so many jobs may make shards, and a later one completes
what a kill left. Memory does not grow with the captions: a reader maps the files, a writer holds the texts of one
shard.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdm.config.recipe import TextRecipe
from mdm.data.text import captions
from mdm.data.text.captions import Listing
from mdm.data.text.encoder import Encoder, Unloaded
from mdm.data.text.gather import LOOKUP, gather, identity, shard_path
from mdm.data.text.shard import Shard, write_shard
from mdm.files.arrays import Mapped
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file, whole
from mdm.files.lock import only_writer


def embed(recipe_path: str | Path) -> dict[str, Any]:
    """Embed every caption of the recipe's data sets (and its optional list `captions`) in one go."""
    listing = captions.list_captions(recipe_path)
    embed_shards(recipe_path, 0, listing.most_shards - 1)
    return gather(recipe_path)


def embed_shards(recipe_path: str | Path, first: int, last: int) -> None:
    """Make some shards, on a GPU if there is one; those that are whole already are left alone."""
    recipe, folder, started = read_recipe(recipe_path, TextRecipe), Path(recipe_path).parent, time.monotonic()
    listing = captions.read_listing(recipe_path)
    if last >= listing.most_shards:
        most = listing.most_shards - 1
        raise ArtifactError(f"{recipe_path} has shards 0 to {most} at most, there is no shard {last}")
    encoder = Unloaded(recipe.encoder, "cuda" if torch.cuda.is_available() else "cpu")
    # Captions that are there twice leave the last shards of all without any.
    for number in range(first, min(last + 1, listing.shards)):
        made = make_shard(folder, number, listing, encoder)
        print(f"shard {number}: {made['captions']:,} captions, {made['tokens']:,} tokens", flush=True)
    name = f"{first:05d}-{last:05d}"
    with only_writer(folder / "shards", name):
        done = folder / "shards" / f"{name}.done"
        if encoder.device or not done.is_file():
            write_json(done, {"device": encoder.device, "seconds": round(time.monotonic() - started, 3)})


def make_shard(folder: Path, number: int, listing: Listing, encoder: Encoder | Unloaded) -> dict[str, Any]:
    """Return the record of a shard; one of these captions that is whole already is left alone."""
    path, texts = shard_path(folder, number), listing.shard(number)
    wanted = identity(texts, (encoder.channels, str(encoder.stored)))
    if known := whole(path, wanted):
        return known
    with only_writer(path.parent, path.stem):
        if known := whole(path, wanted):  # by another process, just now
            return known
        tokens, longest = write_shard(path, texts, encoder)
        found = {
            "file": f"shards/{path.name}", "captions": len(texts), "tokens": tokens, "longest": longest,
            "sha256": sha256_file(path), "identity": wanted,
        }  # fmt: skip
        write_json(path.with_suffix(".json"), found)
        return found


class Embeddings:
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        mapped = Mapped(self.folder / f"{LOOKUP}.safetensors")
        self._keys, self._places = mapped.array("keys"), mapped.array("places")
        self._shards: dict[int, Shard] = {}
        #: tokens of the longest caption: every lookup has this S, so shapes do not depend on the batch
        self.tokens = int(mapped.array("longest")[0])
        self.channels = self._shard(0).channels

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, caption: str) -> bool:
        return self._find(caption) is not None

    def lookup(self, wanted: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return features float32 [B, S, D], zero where mask [B, S] is zero; S is the longest cached caption's."""
        features = torch.zeros(len(wanted), self.tokens, self.channels)
        mask = torch.zeros(len(wanted), self.tokens)
        for position, caption in enumerate(wanted):
            found = self._features(caption)
            features[position, : len(found)] = found
            mask[position, : len(found)] = 1.0
        return features, mask

    def _features(self, caption: str) -> Tensor:
        place = self._find(caption)
        if place is None:
            held = f"{len(self)} captions, but not {caption!r}"
            raise ArtifactError(f"{self.folder} holds {held}; it is of another data set")
        return self._shard(place[0]).features(place[1])

    def _find(self, caption: str) -> tuple[int, int] | None:
        """Return shard and row, proved by the caption itself: hashes may be shared."""
        key, text = np.uint64(captions.key(caption)), caption.encode()
        for entry in range(int(np.searchsorted(self._keys, key)), len(self._keys)):
            if self._keys[entry] != key:
                return None
            shard, row = self._places[entry].tolist()
            if self._shard(shard).text(row) == text:
                return shard, row
        return None

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            self._shards[number] = Shard(shard_path(self.folder, number))
        return self._shards[number]
