"""Pictures drawn while training, always from the same noise and captions; they change no weight and no recipe."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mdm.config import SampleConfig
from mdm.config.recipe import StageRecipe
from mdm.data.batches.classes import class_label
from mdm.data.batches.loader import Batch, Loader, signal
from mdm.data.rows import png, to_bytes
from mdm.data.text.cache import Embeddings
from mdm.diffusion.sampler import sample
from mdm.files.artifact import results_root
from mdm.files.atomic import append_line, write_atomic, write_json
from mdm.model.coder import Coder, open_coder
from mdm.model.upsampler import Low, seeing
from mdm.train.example import open_embeddings
from mdm.train.loggers import Logger
from mdm.train.low import preview_low
from mdm.train.state import TrainingState

COUNT, SEED = 8, 0
STEPS, GUIDANCE = 25, 2.0
FRAMES = 4  # of a clip, evenly spread
LARGEST_CELL = 256  # pixels; higher levels are averaged down, lower ones enlarged


class Previews:
    """Draws a grid after every so many images: a column for each caption, a row for each level (of clips: for each of
    four frames), highest first."""

    def __init__(
        self, folder: Path, recipe: StageRecipe, every: int, gammas: Tensor, loggers: Sequence[Logger]
    ) -> None:
        self._folder, self._every, self._sizes, self._gammas = folder, every, recipe.sizes, gammas
        self._diffusion, self._step, self._total = recipe.diffusion, recipe.train.batch_images, recipe.num_images
        guidance = GUIDANCE if recipe.conditional else 1.0
        settings = SampleConfig(steps=STEPS, guidance=guidance, precision=recipe.train.precision)
        # Codes have no range that they could be kept within.
        self._settings = settings.model_copy(update={"threshold": "none"}) if recipe.latents else settings
        self._coder: Coder | None = None
        self._loggers, self._prompt, self._recipe = loggers, {}, recipe
        self._low: Low | None = None

    def decode_by(self, coder: Coder) -> None:
        """From now on what is drawn are codes of pictures."""
        self._coder = coder

    def prepare(self, batch: Batch, embeddings: Embeddings | None, none_class: int | None) -> None:
        """What is drawn: the captions and classes of a batch; guidance leads away from none."""
        empty = embeddings.lookup([""]) if embeddings else (None, None)
        no_class = None if none_class is None else torch.tensor([none_class])
        parts = {
            "text": batch.text, "mask": batch.mask, "negative_text": empty[0], "negative_mask": empty[1],
            "labels": batch.classes, "negative_labels": no_class,
        }  # fmt: skip
        self._low = preview_low(self._recipe, signal(batch.images), self._gammas.device)
        self._prompt = {k: None if part is None else part.to(self._gammas.device) for k, part in parts.items()}
        write_json(self._folder / "captions.json", list(batch.captions))

    def after(self, state: TrainingState) -> None:
        """Draw with the averaged weights, if it is time to."""
        images = state.images
        if not self._every or (images // self._every == (images - self._step) // self._every and images < self._total):
            return
        start, path = time.monotonic(), self._folder / f"{images:012d}.png"
        pixels = self.grid(state)
        write_atomic(path, png(pixels).data)
        for logger in self._loggers:
            logger.picture(images, pixels)
        line = {"images": images, "seconds": round(time.monotonic() - start, 3), "file": path.name}
        append_line(self._folder / "samples.jsonl", json.dumps(line))
        print(f"{images:>9,} images: drew {path} in {line['seconds']:.1f} s", flush=True)

    def grid(self, state: TrainingState) -> np.ndarray:
        """A function of the weights alone, uint8 [H, W, 3]."""
        state.model.eval()
        with state.ema.applied():
            drawn = sample(
                seeing(state.model, self._low), self._gammas, self._settings, self._diffusion, self._sizes,
                image_ids=range(COUNT), seed=SEED, **self._prompt,
            )  # fmt: skip
        state.model.train()
        drawn = [self._coder.decode(drawn[0])] if self._coder else drawn
        side, rows = min(LARGEST_CELL, drawn[0].shape[-1]), [row for level in drawn for row in _rows(level)]
        return np.concatenate([np.concatenate([_cell(p, side) for p in to_bytes(row)], axis=1) for row in rows])


def _rows(level: Tensor) -> Sequence[Tensor]:
    """Pictures [B,3,H,W] are one row of the grid, clips [B,T,3,H,W] one for each of some frames."""
    return [level] if level.ndim == 4 else level[:, :: max(1, level.shape[1] // FRAMES)].unbind(dim=1)


def _cell(pixels: np.ndarray, side: int) -> np.ndarray:
    method = Image.Resampling.NEAREST if len(pixels) <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(pixels).resize((side, side), method))


def open_previews(
    recipe_path: Path, recipe: StageRecipe, every: int, gammas: Tensor, loggers: Sequence[Logger]
) -> Previews:
    """The previews of a stage, none when `every` is 0; of held-out captions if the recipe names such."""
    previews = Previews(recipe_path.parent / "progress" / "samples", recipe, every, gammas, loggers)
    if every:
        data, text = recipe.data, recipe.text
        if recipe.validation:
            data, text = recipe.validation, recipe.validation_text
        root, label = results_root(recipe_path), class_label(recipe)
        embeddings = open_embeddings(root, text)
        loader = Loader(root / data, embeddings, COUNT, SEED, recipe.drawn[-1], class_label=label)
        previews.prepare(loader.batch(0), embeddings, label.none if label else None)
        loader.close()
        if recipe.latents:
            previews.decode_by(open_coder(root / recipe.latents.autoencoder, gammas.device))
    return previews
