"""The end of an embedding: every shard proved, the lookup over all of them, and the manifest. No torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from mdm.config.recipe import TextRecipe
from mdm.data.text import captions
from mdm.data.text.captions import Listing
from mdm.files.arrays import write_arrays
from mdm.files.artifact import Making, canonical
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.hashes import whole
from mdm.files.lock import only_writer

LOOKUP = "lookup"
FEATURES = tuple[int, str]  # width, and the type of the numbers as torch prints it


def shard_path(folder: Path, number: int) -> Path:
    """Return where a shard lies; its record stands beside it as .json."""
    return folder / "shards" / f"{number:05d}.safetensors"


def identity(texts: list[str], features: FEATURES) -> str:
    return hashlib.sha256(canonical([texts, *features])).hexdigest()


def gather(recipe_path: str | Path) -> dict[str, Any]:
    """Prove all shards of a text recipe, and write lookup.safetensors and manifest.json."""
    making, listing = Making(recipe_path, TextRecipe), captions.read_listing(recipe_path)
    with only_writer(making.folder, LOOKUP, "manifest"):
        facts = write_lookup(making.folder, listing, making.recipe.encoder.stored_as)
        parts = hashlib.sha256(json.dumps([shard["sha256"] for shard in facts["shards"]]).encode())
        jobs = [read_json(path) for path in sorted((making.folder / "shards").glob("*.done"))]
        devices = sorted({job["device"] for job in jobs if job["device"]})
        seconds = round(sum(job["seconds"] for job in jobs), 3)
        facts |= {"sha256": parts.hexdigest(), "seconds": seconds}
        return making.finish(facts, ", ".join(devices) or "not known")


def write_lookup(folder: Path, listing: Listing, features: FEATURES) -> dict[str, Any]:
    """Write where each caption is, by hash, as one file; return what the manifest says of the shards."""
    shards: list[dict[str, Any]] = []
    keys, places = [], []
    for number in range(listing.shards):
        texts = listing.shard(number)
        path = shard_path(folder, number)
        if not (found := whole(path, identity(texts, features))):
            wrong = "was damaged, or made from other captions" if path.is_file() else "does not exist"
            again = f"python -m mdm embed {folder / 'recipe.json'} --shard {number}"
            raise ArtifactError(f"{path} {wrong}; make it again: {again}")
        shards.append(found)
        keys.append(np.array([captions.key(text) for text in texts], dtype="<u8"))
        places.append(np.stack([np.full(len(texts), number), np.arange(len(texts))], axis=1).astype("<i4"))
    order = np.argsort(np.concatenate(keys), kind="stable")
    longest = max(shard["longest"] for shard in shards)
    arrays = {"keys": np.concatenate(keys)[order], "longest": np.array([longest], dtype="<i8")}
    arrays["places"] = np.concatenate(places)[order]
    write_arrays(folder / f"{LOOKUP}.safetensors", arrays)
    counts = {name: sum(shard[name] for shard in shards) for name in ("captions", "tokens")}
    return {**counts, "channels": features[0], "longest": longest, "shards": shards}
