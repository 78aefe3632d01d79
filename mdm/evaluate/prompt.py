"""`mdm generate`: one prompt, drawn by a finished run of a study, all levels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mdm.config import StudyError, nearest
from mdm.evaluate.painter import Painter
from mdm.manifest import ArtifactError
from mdm.text import encoder

if TYPE_CHECKING:
    from mdm.study import Run, Study

GAP = 8  # pixels between pictures


class LiveText:
    """Some captions encoded together, so that prompt and negative prompt are padded alike."""

    def __init__(self, spec: dict[str, Any], captions: Sequence[str]) -> None:
        self._captions = list(captions)
        self._features, self._mask = encoder.load(spec).encode(self._captions)

    def lookup(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [self._captions.index(caption) for caption in captions]
        return self._features[rows], self._mask[rows]


def generate(
    study: Study, results: Path, run_name: str, prompt: str, out: Path, count: int, seed: int, changes: dict[str, Any]
) -> Path:
    """Write a PNG with one row per picture and one column per level, lowest resolution first."""
    run = _find(study, run_name)
    train = run.stages[-1].artifact
    if not (results / train / "weights.safetensors").is_file():
        raise ArtifactError(
            f"run '{run.name}' is not trained yet ({results / train} has no weights); "
            f"train it: python -m mdm run --study {study.name}"
        )
    recipe = study.recipe(run.evaluations[0].samples) if run.evaluations else None
    if recipe is None:
        raise StudyError(f"study '{study.name}' has no protocol, so nothing says how its pictures are drawn")
    sample = {**recipe["sample"], **{key: value for key, value in changes.items() if value is not None}}
    captions = [prompt, sample["negative_prompt"]]
    text = LiveText(study.recipe(recipe["text"])["encoder"], captions) if recipe["text"] else None
    painter = Painter({**recipe, "sample": sample, "seed": seed}, results, _device(), text)
    levels = painter.paint(range(count), [prompt] * count)
    _save(levels, out)
    return out


def _find(study: Study, name: str) -> Run:
    runs = {run.name: run for run in reversed(study.runs)}
    if name not in runs:
        raise StudyError(f"study '{study.name}' has no run '{name}'; {nearest(name, runs)}")
    return runs[name]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _save(levels: dict[int, np.ndarray], out: Path) -> None:
    """Every level enlarged to the size of the highest (at least 256 px), without smoothing."""
    side = max(256, *levels)
    rows, columns = len(next(iter(levels.values()))), len(levels)
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP), "white")
    for column, (_, pictures) in enumerate(sorted(levels.items())):
        for row, pixels in enumerate(pictures):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (side + GAP), row * (side + GAP)))
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
