"""What an upsampler enlarges when it draws: pictures that its base drew before, or real ones, by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mdm.config import StudyError
from mdm.config.recipe import SamplesRecipe, StageRecipe
from mdm.data.batches.loader import from_bytes
from mdm.data.pictures.decode import shrink
from mdm.diffusion.augmentation import augmented
from mdm.evaluate.archive import array_names, read_batches, read_rows
from mdm.evaluate.pictures import LEVEL
from mdm.evaluate.real_pictures import RealPictures
from mdm.files.atomic import ArtifactError, read_json
from mdm.model.upsampler import Low

BLOCK = 64  # pictures read at a time
LEAST = 1e-4  # mean squared error of bytes that counts as none; 88 dB
Source = Callable[[Sequence[int]], np.ndarray]  # numbers of B pictures -> uint8 [B, r, r, 3]


class LowPictures:
    """Small pictures by number, ready for an upsampler; of a network that is none, nothing."""

    def __init__(self, recipe: SamplesRecipe, stage: StageRecipe, root: Path, source: Source | None = None) -> None:
        """`source`: pictures that are drawn at this moment; else the artifact that the recipe names holds them."""
        self._augmentation, self._size = stage.augmentation, stage.low_size
        self._noise, self._seed = recipe.sample.low_noise, recipe.seed
        self.sha256: str | None = None
        self._source = source
        if self._augmentation is None:
            return
        if source is None and recipe.low is None:
            raise StudyError(
                f"{recipe.train} is an upsampler: it draws from pictures of {self._size} px, and nothing says which; "
                "draw with a run of a study (its protocols, or mdm generate), which names its base"
            )
        if source is None:
            self._open(recipe, root)

    def _open(self, recipe: SamplesRecipe, root: Path) -> None:
        folder = root / str(recipe.low)
        manifest, kind = read_json(folder / "manifest.json"), folder.parent.name
        self.sha256 = manifest["sha256" if kind == "samples" else "digest"]
        by_base = kind == "samples"
        self._source = drawn(folder, self._size) if by_base else RealPictures(recipe, root, int(self._size or 0)).at

    def of(self, numbers: Sequence[int], device: torch.device) -> Low | None:
        """Noise of a picture is a function of seed and number; the network is told its level."""
        if self._augmentation is None:
            return None
        pixels = from_bytes(self._source(numbers).copy())
        levels = torch.full((len(numbers),), self._noise)
        low = augmented(self._augmentation, pixels, levels, self._seed, numbers)
        return Low(low, levels).each(lambda x: x.to(device))

    def psnr(self, path: Path, side: int, count: int) -> float | None:
        """How closely drawn pictures, made small again, are what they were made from: dB of their mean squared error.

        Where this is low the upsampler does not follow its base; where it is high, mistakes are those of the base.
        """
        if self._source is None or self._size is None:
            return None
        total = 0.0
        for first, large in enumerate(read_batches(path, f"{LEVEL}{side}", BLOCK, count)):
            numbers = range(first * BLOCK, first * BLOCK + len(large))
            again = np.stack([shrink(picture, self._size) for picture in large]).astype(np.float64)
            total += float(np.square(again - self._source(numbers)).mean(axis=(1, 2, 3)).sum())
        return float(10 * np.log10(255**2 / max(total / count, LEAST)))


def drawn(folder: Path, size: int | None) -> Source:
    """Pictures of a samples artifact, as they are stored there."""
    path, name = folder / "images.npz", f"{LEVEL}{size}"
    if name not in (names := array_names(path)):
        raise ArtifactError(f"{path} holds {', '.join(names)}, but the upsampler enlarges {name}; draw its base again")
    return lambda numbers: read_rows(path, name, numbers)
