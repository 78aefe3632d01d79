"""Embeddings of all captions of a data set, made once: one safetensors file, packed without padding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mdm.manifest import ArtifactError, Making, sha256_file, write_atomic

if TYPE_CHECKING:
    from mdm.text.encoder import Encoder

BATCH = 256
FILE = "embeddings.safetensors"


def write(path: str | Path, captions: Iterable[str], encoder: Encoder) -> dict[str, int]:
    """Encode the distinct captions and "" into one file: half-precision features, packed without padding."""
    from safetensors.torch import save

    distinct = sorted({*captions, ""})
    parts, lengths = [], []
    for start in range(0, len(distinct), BATCH):
        features, mask = encoder.encode(distinct[start : start + BATCH])
        lengths.append(mask.sum(dim=1).long().cpu())
        parts.append(features[mask.bool()].half().cpu())
    offsets = torch.cumsum(torch.cat([torch.zeros(1, dtype=torch.long), *lengths]), dim=0)
    tensors = {
        "features": torch.cat(parts),
        "offsets": offsets,
        "captions": torch.from_numpy(np.frombuffer(json.dumps(distinct).encode(), dtype=np.uint8).copy()),
    }
    write_atomic(path, save(tensors))
    return {"captions": len(distinct), "tokens": int(offsets[-1]), "channels": encoder.channels}


class Embeddings:
    """Lookup of cached features by caption."""

    def __init__(self, path: str | Path) -> None:
        from safetensors.torch import load_file

        self.path = Path(path)
        if not self.path.is_file():
            raise ArtifactError(f"{path} does not exist; run `python -m mdm embed` for this text artifact first")
        tensors = load_file(str(path))
        self._features: torch.Tensor = tensors["features"]
        self._offsets: list[int] = tensors["offsets"].tolist()
        self._rows = {text: row for row, text in enumerate(json.loads(tensors["captions"].numpy().tobytes()))}
        #: tokens of the longest caption: every lookup has this S, so shapes do not depend on the batch
        self.tokens = max(b - a for a, b in zip(self._offsets, self._offsets[1:], strict=False))

    @property
    def channels(self) -> int:
        return self._features.shape[1]

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, caption: str) -> bool:
        return caption in self._rows

    def lookup(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features float32 [B, S, D], zero where mask [B, S] is zero; S is the longest cached caption's."""
        features = torch.zeros(len(captions), self.tokens, self.channels)
        mask = torch.zeros(len(captions), self.tokens)
        for position, caption in enumerate(captions):
            row = self._row(caption)
            start, end = self._offsets[row], self._offsets[row + 1]
            features[position, : end - start] = self._features[start:end].float()
            mask[position, : end - start] = 1.0
        return features, mask

    def _row(self, caption: str) -> int:
        if caption not in self._rows:
            raise ArtifactError(
                f"{self.path} holds {len(self)} captions, but not {caption!r}; it is of another data set"
            )
        return self._rows[caption]


def embed(recipe_path: str | Path, device: str = "cpu") -> dict[str, Any]:
    """Embed every caption of the recipe's data sets (and its optional list `captions`)."""
    from mdm.text import encoder as encoders

    making = Making(recipe_path)
    recipe, folder = making.recipe, making.folder
    captions = list(recipe.get("captions", []))
    for reference in recipe["data"]:
        captions += [row.caption for row in _index(making.root / reference)]
    encoder = encoders.load(recipe["encoder"], device)
    counts = write(folder / FILE, captions, encoder)
    return making.finish({**counts, "sha256": sha256_file(folder / FILE)}, device)


def _index(folder: Path) -> list[Any]:
    from mdm.data.shards import read_index

    return read_index(folder)
