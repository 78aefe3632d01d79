"""A trained network ready to draw: from prompts and image ids to bytes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mdm.config.recipe import SamplesRecipe, SnapshotRecipe, StageRecipe
from mdm.data.batches.classes import class_label
from mdm.data.batches.loader import from_bytes
from mdm.data.rows import Row, to_bytes
from mdm.data.text.cache import Embeddings
from mdm.diffusion import schedule
from mdm.diffusion.karras import truncated_bytes
from mdm.diffusion.sampler import sample
from mdm.evaluate.low import LowPictures, Source
from mdm.evaluate.real_pictures import RealPictures
from mdm.files.atomic import read_json
from mdm.files.weights import load_weights, state_hash
from mdm.model.checkpoints import load_into
from mdm.model.coder import open_coder
from mdm.model.networks import build
from mdm.model.upsampler import seeing

WEIGHTS = "weights.safetensors"  # the averaged ones


def truncated_to_bytes(pictures: Tensor) -> np.ndarray:
    """Pictures [B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3] by the released rule."""
    return truncated_bytes(pictures).permute(0, 2, 3, 1).cpu().numpy()


class Lookup(Protocol):
    """Captions to features [B,S,D] and mask [B,S]: a cache on disk, or a live encoder."""

    def lookup(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]: ...


def stage_of(folder: Path) -> StageRecipe:
    """The stage that trained the weights in a folder: its own, or that of a snapshot on its way."""
    path = folder / "recipe.json"
    content = read_json(path)
    if content["kind"] == "snapshot":
        path = folder.parents[1] / SnapshotRecipe.of(content, path).train / "recipe.json"
        content = read_json(path)
    return StageRecipe.of(content, path)


def averaged_network(train: Path, device: torch.device) -> tuple[nn.Module, str]:
    """The averaged network of a stage or of a snapshot, ready to answer, and the hash of its weights."""
    stage, weights = stage_of(train), load_weights(train / WEIGHTS)
    model = build(stage.model)
    load_into(model, weights, str(train / WEIGHTS))
    model.eval().to(device, memory_format=torch.channels_last)
    return model, state_hash(weights)


def _together(first: str, second: str) -> str:
    """The hash of two files of weights that draw together."""
    return hashlib.sha256(f"{first}+{second}".encode()).hexdigest()


class Painter:
    """Draws picture k from (weights, prompt k, seed, k) alone, whatever batch it is in."""

    def __init__(
        self,
        recipe: SamplesRecipe,
        root: Path,
        device: torch.device,
        embeddings: Lookup | None = None,
        low: Source | None = None,
    ) -> None:
        """`low`: where an upsampler's small pictures come from, if not from the artifact that the recipe names."""
        train = root / recipe.train
        stage = stage_of(train)
        self._diffusion, self._class_label = stage.diffusion, class_label(stage)
        self._sample, self._seed, self._device = recipe.sample, recipe.seed, device
        self._prompts = recipe.prompts
        self._sizes, self.resolutions = stage.sizes, stage.drawn
        self._gammas = schedule.levels(self._diffusion, self._sizes).to(device)
        self._embeddings = embeddings or (Embeddings(root / recipe.text) if recipe.text else None)
        self.rows_evaluated = 0
        self._model, self.weights_hash = self._network(train)
        self._guide = None
        if recipe.guide:
            self._guide, guide_hash = self._network(root / recipe.guide)
            self.weights_hash = _together(self.weights_hash, guide_hash)
        self._coder = None
        if stage.latents:
            self._coder = open_coder(root / stage.latents.autoencoder, device)
            self.weights_hash = _together(self.weights_hash, self._coder.weights_hash)
        self._real = None
        if recipe.sample.latents == "real" and recipe.prompts:
            self._real = RealPictures(recipe, root, stage.drawn[0])
            self.weights_hash = _together(self.weights_hash, self._real.sha256)
        self.low = LowPictures(recipe, stage, root, low)
        if self.low.sha256:  # pictures enlarged from others are others, though the weights be the same
            self.weights_hash = _together(self.weights_hash, self.low.sha256)

    def _network(self, train: Path) -> tuple[nn.Module, str]:
        """The averaged network of a stage or of a snapshot, which counts its work, and its hash."""
        model, weights_hash = averaged_network(train, self._device)
        model.register_forward_pre_hook(self._count)
        return model, weights_hash

    def _count(self, _model: nn.Module, arguments: tuple[Any, ...]) -> None:
        # Guidance and Heun steps call the network more often than there are steps: count, do not compute.
        self.rows_evaluated += len(arguments[0][-1])

    def classes(self, rows: Sequence[Row]) -> list[int] | None:
        if self._class_label is None:
            return None
        return [self._class_label.of(row.labels, f"prompt {row.key} of {self._prompts}") for row in rows]

    def paint(
        self, ids: Sequence[int], captions: Sequence[str], classes: Sequence[int] | None = None
    ) -> dict[int, np.ndarray]:
        """B prompts -> uint8 pictures [B, R, R, 3] by resolution R."""
        if self._coder and self._real:
            codes = self._coder.encode(from_bytes(self._real.at(ids)))[:, 0]
            return {self.resolutions[0]: to_bytes(self._coder.decode(codes))}
        none = [self._class_label.none] if self._class_label else None
        low = self.low.of(ids, self._device)
        guide = None if self._guide is None else seeing(self._guide, low)
        pictures = sample(
            seeing(self._model, low), self._gammas, self._sample, self._diffusion, self._sizes,
            *self._text(captions), *self._text([self._sample.negative_prompt]), ids, self._seed,
            labels=self._labels(classes), negative_labels=self._labels(none), guide=guide,
        )  # fmt: skip
        if self._coder:
            pictures = [self._coder.decode(pictures[0])]
        # The released code truncates where this project rounds; halves, which only matter there, fall differently.
        as_bytes = truncated_to_bytes if self._sample.sampler == "karras" else to_bytes
        return {r: as_bytes(level) for r, level in zip(self.resolutions, pictures, strict=True)}

    def _labels(self, classes: Sequence[int] | None) -> Tensor | None:
        known = classes is not None and self._class_label is not None
        return torch.tensor(classes, device=self._device) if known else None

    def _text(self, captions: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        if self._embeddings is None:
            return None, None
        features, mask = self._embeddings.lookup(captions)
        return features.to(self._device), mask.to(self._device)
