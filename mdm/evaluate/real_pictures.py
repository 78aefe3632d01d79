"""The real pictures of prompts, where a run starts from them instead of from what a network drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdm.config.recipe import SamplesRecipe
from mdm.data.batches.reader import Pictures
from mdm.data.shards.shard import read_index
from mdm.files.atomic import ArtifactError


class RealPictures:
    """Pictures by the number of what is drawn, though its prompts count those that could not be made as well."""

    def __init__(self, recipe: SamplesRecipe, root: Path, side: int) -> None:
        self._folder, self._side, self._per_prompt = root / str(recipe.prompts), side, recipe.per_prompt
        self._pictures = Pictures(self._folder)
        #: hash of the data set that holds them
        self.sha256 = str(self._pictures.manifest["digest"])
        self._numbers = {self._pictures.key(number): number for number in range(len(self._pictures))}
        self._rows = read_index(self._folder, 0, recipe.num_images // recipe.per_prompt)

    def at(self, ids: Sequence[int]) -> np.ndarray:
        """Pictures [B, R, R, 3] as bytes, averaged to the side that is asked for."""
        keys = [self._rows[int(number) // self._per_prompt].key for number in ids]
        if missing := [key for key in keys if key not in self._numbers]:
            raise ArtifactError(
                f"{self._folder} has no picture of prompt {missing[0]}, and starting from real ones needs them all; "
                "draw fewer, or make the data set anew"
            )
        return np.stack([self._pictures.image(self._numbers[key], self._side) for key in keys])
