"""Joint batches: clips first, then pictures, which the levels of clips never see (docs/reference.md, section 8)."""

import torch

from mdm.config.recipe import StageRecipe
from mdm.config.sizes import Clip
from mdm.data.batches.loader import Batch, Loader
from mdm.diffusion.loss import level_rows


def clip_rows(recipe: StageRecipe) -> int:
    """How many rows of a batch are clips: those that the lowest level of clips sees."""
    rows = level_rows(recipe.diffusion, len(recipe.sizes), recipe.train.batch_images)
    return max(n for n, size in zip(rows, recipe.sizes, strict=True) if isinstance(size, Clip))


class JointLoader:
    """Batches of a loader of clips and one of pictures; both advance by their share of every batch."""

    def __init__(self, clips: Loader, stills: Loader, batch_images: int, clip_images: int) -> None:
        self._clips, self._stills = clips, stills
        self._batch, self._clip_images = batch_images, clip_images

    def images(self, images_seen: int) -> list[int]:
        """Which images of the endless run this rank reads: its clips, then its stills."""
        share = self._clip_images
        return [*self._clips.images(images_seen), *self._stills.images(images_seen + share)]

    def batch(self, images_seen: int) -> Batch:
        """This rank's part of the global batch that starts after `images_seen` images."""
        step = images_seen // self._batch
        clips = self._clips.batch(step * self._clip_images)
        stills = self._stills.batch(step * (self._batch - self._clip_images))
        text, mask, classes = (
            None if a is None else torch.cat([a, b])
            for a, b in ((clips.text, stills.text), (clips.mask, stills.mask), (clips.classes, stills.classes))
        )
        return Batch(
            torch.cat([clips.ids, stills.ids]), clips.images, text, mask, classes,
            clips.captions + stills.captions, stills.images,
        )  # fmt: skip
