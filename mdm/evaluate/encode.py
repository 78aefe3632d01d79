"""The codes of a data set, made once by an autoencoder: a shard for each shard of pictures, and a manifest over them.

A shard's bytes depend on its pictures and the autoencoder only, so many jobs may make shards, and a later one completes
what a kill left (docs/how-it-works.md).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdm.config.recipe_latent import AutoencoderRecipe, LatentsRecipe
from mdm.data.batches.codes import shard_path
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import BadPicture
from mdm.evaluate.judge_network import to_input
from mdm.files.arrays import header
from mdm.files.artifact import Making, canonical, read_recipe, results_root
from mdm.files.atomic import ArtifactError, read_json, replacing, write_json
from mdm.files.hashes import sha256_file, whole
from mdm.files.lock import only_writer
from mdm.model.coder import Coder, open_coder

BATCH = 32


class Encoding:
    """What all shards of one data set's codes have in common."""

    def __init__(self, recipe_path: str | Path) -> None:
        recipe, root = read_recipe(recipe_path, LatentsRecipe), results_root(recipe_path)
        self.folder, self.autoencoder = Path(recipe_path).parent, root / recipe.autoencoder
        made = read_json(self.autoencoder / "recipe.json")
        self.network = AutoencoderRecipe.of(made, self.autoencoder / "recipe.json").network
        self.pictures = Pictures(root / recipe.data)
        self._weights = read_json(self.autoencoder / "manifest.json")["sha256"]
        counts = self.pictures.shard_samples
        self.firsts = np.cumsum([0, *counts]).tolist()

    def __len__(self) -> int:
        return len(self.pictures.shard_samples)

    def identity(self, number: int) -> str:
        """Return what the bytes of a shard depend on, hashed."""
        shard = self.pictures.manifest["shards"][number]
        parts = [self._weights, self.network.resolution, shard["sha256"], list(shard.get("left_out", ()))]
        return hashlib.sha256(canonical(parts)).hexdigest()


def encode(recipe_path: str | Path) -> dict[str, Any]:
    """Encode every picture of the recipe's data set in one go."""
    encode_shards(recipe_path, 0, len(Encoding(recipe_path)) - 1)
    return gather_codes(recipe_path)


def encode_shards(recipe_path: str | Path, first: int, last: int) -> None:
    """Make some shards, on a GPU if there is one; those that are whole already are left alone."""
    encoding, coder = Encoding(recipe_path), None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Pictures that could not be used may leave the last shards of all empty, and so not there.
    for number in range(first, min(last + 1, len(encoding))):
        path = shard_path(encoding.folder, number)
        with only_writer(path.parent, path.stem):
            if not whole(path, encoding.identity(number)):
                coder = coder or open_coder(encoding.autoencoder, device)
                made = make_shard(encoding, number, coder)
                print(f"shard {number}: {made['samples']:,} pictures", flush=True)
    write_json(encoding.folder / "shards" / f"{first:05d}-{last:05d}.done", {"device": str(device)})


def make_shard(encoding: Encoding, number: int, coder: Coder) -> dict[str, Any]:
    """Write a shard and its record, which is returned."""
    numbers = range(encoding.firsts[number], encoding.firsts[number + 1])
    side, channels, path = encoding.network.grid, encoding.network.codes, shard_path(encoding.folder, number)
    missing: list[int] = []
    sums = np.zeros((3, channels))
    with replacing(path) as stream:
        stream.write(header({"moments": ("F16", 2, (len(numbers), 2, side, side, channels))}, {}))
        for start in range(0, len(numbers), BATCH):
            here, gone = numbers[start : start + BATCH], len(missing)
            moments = _encoded(encoding, here, coder, missing)
            halves = moments.astype(np.float16)
            if not np.isfinite(halves).all():
                raise ArtifactError(f"codes of {encoding.pictures.folder} reach {np.abs(moments).max():.3g}, too large")
            stream.write(halves.tobytes())
            left = np.isin(here, missing[gone:], invert=True)  # zeros are codes of no picture
            sums += _sums(halves[left].astype(np.float64))
    found = {
        "file": f"shards/{path.name}", "samples": len(numbers), "missing": [n - numbers.start for n in missing],
        "sums": sums.tolist(), "sha256": sha256_file(path), "identity": encoding.identity(number),
    }  # fmt: skip
    write_json(path.with_suffix(".json"), found)
    return found


def _encoded(encoding: Encoding, numbers: Sequence[int], coder: Coder, missing: list[int]) -> np.ndarray:
    """Return moments [B,2,H,W,C] float32 of pictures; nothing but zeros for one that cannot be read."""
    side = encoding.network.resolution
    pixels = np.zeros((len(numbers), side, side, 3), np.uint8)
    gone = []
    for row, number in enumerate(numbers):
        try:
            pixels[row] = encoding.pictures.image(number, side)
        except BadPicture as error:
            print(f"warning: {error}. It is left out", flush=True)
            gone.append(row)
    found = coder.encode(to_input(pixels, side)).permute(0, 1, 3, 4, 2).cpu().numpy()
    found[gone] = 0
    missing += [numbers[row] for row in gone]
    return found


def _sums(moments: np.ndarray) -> np.ndarray:
    """Return, for each channel, how many numbers there are, their sum, and the sum of squares of drawn codes [3,C]."""
    mean, deviation = moments[:, 0], moments[:, 1]
    parts = (np.ones_like(mean), mean, np.square(mean) + np.square(deviation))
    return np.stack([part.sum(axis=(0, 1, 2)) for part in parts])


def gather_codes(recipe_path: str | Path) -> dict[str, Any]:
    """Prove all shards and write the manifest, with the scale that the codes of this data set have."""
    making, encoding = Making(recipe_path, LatentsRecipe), Encoding(recipe_path)
    shards = []
    for number in range(len(encoding)):
        path = shard_path(encoding.folder, number)
        if not (found := whole(path, encoding.identity(number))):
            wrong = "was damaged, or made from other pictures" if path.is_file() else "does not exist"
            again = f"python -m mdm encode {recipe_path} --shard {number}"
            raise ArtifactError(f"{path} {wrong}; make it again: {again}")
        shards.append(found)
    count, total, squares = np.sum([shard["sums"] for shard in shards], axis=0)
    if not count.all():
        raise ArtifactError(f"none of the pictures of {encoding.pictures.folder} can be read; make the data set again")
    mean = total / count
    proof = hashlib.sha256(json.dumps([shard["sha256"] for shard in shards]).encode()).hexdigest()
    jobs = [read_json(path)["device"] for path in sorted((making.folder / "shards").glob("*.done"))]
    facts = {
        "samples": len(encoding.pictures), "data_digest": encoding.pictures.manifest["digest"],
        "channels": encoding.network.codes, "side": encoding.network.grid, "sha256": proof, "shards": shards,
        "codes": {"mean": mean.tolist(), "deviation": np.sqrt(squares / count - np.square(mean)).tolist()},
    }  # fmt: skip
    return making.finish(facts, ", ".join(sorted(set(jobs))) or "not known")
