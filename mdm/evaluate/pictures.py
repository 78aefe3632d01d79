"""The pictures that are measured, generated or real, in batches and at the protocol's resolution."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdm.config.sizes import as_clip, in_order, parse_size
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import shrink
from mdm.evaluate.archive import array_names, read_array, read_batches
from mdm.files.atomic import ArtifactError, read_json

LEVEL = "images_"  # arrays images_64, images_32, ... of a samples archive


@dataclass(frozen=True)
class PictureSet:
    """N pictures, captions, labels ({} where there are none); `batches` yields uint8 [B, R, R, 3].

    Of clips `batches` yields [B, T, R, R, 3].
    """

    keys: list[str]
    captions: list[str]
    labels: list[dict[str, Any]]
    resolution: int
    batches: Callable[[int], Iterator[np.ndarray]]

    def __len__(self) -> int:
        return len(self.keys)

    def all(self) -> np.ndarray:
        return next(self.batches(len(self)))


def open_pictures(
    folder: Path, num_images: int | None = None, resolution: int | None = None, first: int = 0,
    frames: int | None = None,
) -> PictureSet:  # fmt: skip
    """num_images of a data or samples artifact from number `first` on (all by default), averaged down to resolution.

    `frames`: clips of so many frames are wanted, evenly taken where there are more.
    """
    kind = read_json(folder / "recipe.json")["kind"]
    if kind not in ("data", "samples"):
        raise ArtifactError(f"{folder} is an artifact of kind {kind!r} and holds no pictures; name data/… or samples/…")
    if kind == "samples":
        return _from_samples(folder, num_images, resolution)
    return _from_data(folder, num_images, resolution, first, frames)


def _from_data(
    folder: Path, num_images: int | None, resolution: int | None, first: int, frames: int | None = None
) -> PictureSet:
    stored = Pictures(folder)
    if frames and (not stored.frames or stored.frames % frames):
        raise ArtifactError(
            f"{folder} has no clips of {frames} frames, or of a multiple; name a data set of such clips"
        )
    end, side = first + (num_images or len(stored) - first), resolution or stored.resolution
    if end > len(stored):
        raise ArtifactError(f"{folder} holds {len(stored)} pictures, but {end} are asked for; enlarge the data set")

    def batches(batch_images: int) -> Iterator[np.ndarray]:
        for start in range(first, end, batch_images):
            found = np.stack([stored.image(k, side) for k in range(start, min(start + batch_images, end))])
            yield found[:, :: found.shape[1] // frames] if frames else found

    numbers = range(first, end)
    captions, labels = [stored.caption(k) for k in numbers], [stored.labels(k) for k in numbers]
    return PictureSet([stored.key(k) for k in numbers], captions, labels, side, batches)


def _from_samples(folder: Path, num_images: int | None, resolution: int | None) -> PictureSet:
    path = folder / "images.npz"
    drawn = [parse_size(name.removeprefix(LEVEL)) for name in array_names(path) if name.startswith(LEVEL)]
    highest = in_order(drawn)[-1]
    keys, captions, labels = (read_array(path, name).tolist() for name in ("keys", "captions", "labels"))
    count, side = num_images or len(keys), resolution or as_clip(highest).resolution

    def batches(batch_images: int) -> Iterator[np.ndarray]:
        for batch in read_batches(path, f"{LEVEL}{highest}", batch_images, count):
            frames = batch.reshape(-1, *batch.shape[-3:])
            yield np.stack([shrink(picture, side) for picture in frames]).reshape(*batch.shape[:-3], side, side, 3)

    return PictureSet(keys[:count], captions[:count], [json.loads(text) for text in labels[:count]], side, batches)
