"""Fine detail: how much of the energy of pictures lies above half the Nyquist frequency, at every level of a nest.

Noise that a network leaves in its pictures raises that share, and outlines that it blurs lower it.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mdm.data.batches.reader import Pictures
from mdm.evaluate.archive import array_names, read_batches
from mdm.evaluate.intervals import Estimate, groups_of, jackknife
from mdm.evaluate.pictures import LEVEL
from mdm.files.atomic import read_json

SMALLEST = 8  # px; fewer have no frequencies to speak of
BATCH_IMAGES = 64


def spectra(folder: Path, count: int, first: int = 0) -> dict[str, np.ndarray]:
    """Energies [count, 2] of each level of a samples artifact, or of real pictures at each of their halved sides."""
    kind = read_json(folder / "recipe.json")["kind"]
    levels = _drawn(folder / "images.npz", count) if kind == "samples" else _real(Pictures(folder), first, count)
    return {f"spectrum.{side}": np.concatenate([energies(batch) for batch in batches]) for side, batches in levels}


def _drawn(path: Path, count: int) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    for name in array_names(path):
        if name.startswith(LEVEL):
            yield int(name.removeprefix(LEVEL)), read_batches(path, name, BATCH_IMAGES, count)


def _real(pictures: Pictures, first: int, count: int) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    side = pictures.resolution
    while side >= SMALLEST:
        yield side, (pictures.image(number, side)[None] for number in range(first, first + count))
        side //= 2


def energies(pictures: np.ndarray) -> np.ndarray:
    """uint8 [B,R,R,3] -> for each picture the energy above half the Nyquist frequency, and all but the mean's [B,2]."""
    values = pictures.astype(np.float64)
    power = np.square(np.abs(np.fft.fft2(values - values.mean(axis=(1, 2), keepdims=True), axes=(1, 2)))).sum(axis=3)
    along = np.abs(np.fft.fftfreq(pictures.shape[1]))  # cycles per pixel; the Nyquist frequency is 1/2
    high = np.maximum(along[:, None], along[None]) > 0.25
    return np.stack([power[:, high].sum(axis=1), power.sum(axis=(1, 2))], axis=1)


def relative_detail(drawn: np.ndarray, real: np.ndarray) -> Estimate:
    """The share of drawn pictures over that of real ones, from the energies [N,2] of both: 1 where they are alike."""
    own, wanted = _share(drawn), _share(real)
    found = jackknife(lambda rows: _share(drawn[rows]) / wanted, len(drawn))
    left = [own / _share(np.delete(real, group, axis=0)) for group in groups_of(len(real))]
    return replace(found, without_real=np.array(left))


def _share(found: np.ndarray) -> float:
    high, every = found.sum(axis=0)
    return float(high / every) if every else 0.0  # pictures of one colour have no energy beside the mean's
