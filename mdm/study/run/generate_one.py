"""`mdm generate`: one prompt or class, drawn by a finished run of a study, all levels side by side."""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mdm.config import SampleConfig, StudyError
from mdm.config.base import parse
from mdm.config.recipe import EncoderRecipe, SamplesRecipe, StageRecipe
from mdm.data.text import encoder
from mdm.evaluate.low import Source
from mdm.evaluate.painter import Painter
from mdm.files.atomic import ArtifactError, write_atomic
from mdm.study.runs import Run
from mdm.study.stage_settings import check_sample
from mdm.study.study import Study

GAP = 8  # pixels between pictures
FORMATS = {".png": "PNG", ".jpg": "JPEG"}


class LiveText:
    """Some captions encoded together, so that prompt and negative prompt are padded alike."""

    def __init__(self, spec: EncoderRecipe, captions: Sequence[str]) -> None:
        self._captions = list(captions)
        self._features, self._mask = encoder.load(spec).encode(self._captions)

    def lookup(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [self._captions.index(caption) for caption in captions]
        return self._features[rows], self._mask[rows]


@dataclass(frozen=True)
class Wanted:
    """What to draw: a prompt for a network that reads text, a class for one that knows classes."""

    prompt: str | None
    number: int | None
    count: int
    seed: int

    def subject(self) -> str:
        """Describe what is drawn: `"two red circles"`, `class 3`, or both."""
        parts = [f'"{self.prompt}"'] if self.prompt is not None else []
        parts += [f"class {self.number}"] if self.number is not None else []
        return ", ".join(parts) or "without a condition"

    def check(self, stage: StageRecipe, run: str) -> None:
        """Refuse what the network of this stage cannot use, and ask for what it needs."""
        if self.count < 1:
            raise StudyError(f"--count {self.count} draws nothing; write 1 or more")
        if stage.text and self.prompt is None:
            raise StudyError(f"run '{run}' reads text; give a prompt, e.g. mdm generate \"two red circles\"")
        if self.prompt is not None and not stage.text:
            raise StudyError(f"run '{run}' reads no text; leave the prompt {self.prompt!r} out")
        classes = stage.model.classes
        if classes and self.number not in range(classes):
            seen = "none was given" if self.number is None else f"not {self.number}"
            raise StudyError(f"run '{run}' needs --class, a number from 0 to {classes - 1}; {seen}")
        if self.number is not None and not classes:
            raise StudyError(f"run '{run}' knows no classes; leave --class {self.number} out")


def generate(study: Study, results: Path, run_name: str, wanted: Wanted, out: Path, changes: dict[str, Any]) -> str:
    """Write a picture with one row per draw and one column per level, lowest resolution first; say what was made."""
    started = time.monotonic()
    run = study.runs_named(run_name)[0]
    if out.suffix.lower() not in FORMATS:
        raise StudyError(f"--out {out}: write a name that ends with {' or '.join(FORMATS)}")
    train = run.stages[-1].artifact
    if not (results / train / "weights.safetensors").is_file():
        raise ArtifactError(
            f"run '{run.name}' is not trained yet ({results / train} has no weights); "
            f"train it: python -m mdm run --study {study.name}"
        )
    recipe = study.recipe(run.evaluations[0].samples) if run.evaluations else None
    if recipe is None:
        raise StudyError(f"study '{study.name}' has no protocol, so nothing says how its pictures are drawn")
    wanted.check(_asked(study, run), run.name)
    if recipe.sample.latents == "real":
        raise StudyError(f"run '{run.name}' decodes real pictures and draws none; name another run")
    changed = {key: value for key, value in changes.items() if value is not None}
    sample = parse(SampleConfig, {**recipe.sample.model_dump(), **changed}, "mdm generate")
    check_sample(sample, study.recipe(train), f"run '{run.name}'")
    captions = [wanted.prompt or "", sample.negative_prompt]
    text = LiveText(study.recipe(recipe.text).encoder, captions) if recipe.text else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes = None if wanted.number is None else [wanted.number] * wanted.count
    low = _low(study, results, recipe, captions[:1] * wanted.count, classes, wanted.seed, device)
    recipe = recipe.model_copy(update={"sample": sample, "seed": wanted.seed})
    painter = Painter(recipe, results, device, text, low)
    levels = painter.paint(range(wanted.count), captions[:1] * wanted.count, classes)
    size = _save(levels, out)
    return "\n".join([
        f"{wanted.subject()}: {wanted.count} picture{'s' * (wanted.count > 1)}, "
        f"at {', '.join(map(str, sorted(levels)))} px from left to right",
        f"run {run.name} of study {study.name} ({train}), seed {wanted.seed}, {sample.sampler}, "
        f"{sample.steps} steps, guidance {sample.guidance:g}",
        f"{out} ({size[0]} x {size[1]} px), {time.monotonic() - started:.1f} s; any picture viewer or browser opens it",
    ])  # fmt: skip


def _asked(study: Study, run: Run) -> StageRecipe:
    """Return the stage that says what to ask for: the last one, or a base of it if that alone knows classes."""
    chain = [study.recipe(stage.artifact) for stage in reversed(run.stages[-1].chain)]
    return next((stage for stage in chain if stage.model.classes), chain[0])


def _low(
    study: Study, results: Path, recipe: SamplesRecipe, captions: Sequence[str], classes: Sequence[int] | None,
    seed: int, device: torch.device,
) -> Source | None:  # fmt: skip
    """Draw what an upsampler enlarges with its base, as the study says; nothing for a network that draws alone."""
    if recipe.low is None:
        return None
    if not recipe.low.startswith("samples/"):
        raise StudyError(f"this run enlarges real pictures ({recipe.low}); draw with a run that says sample.low: drawn")
    base = study.recipe(recipe.low)
    if not (results / base.train / "weights.safetensors").is_file():
        raise ArtifactError(f"its base is not trained yet ({results / base.train} has no weights); run the study first")
    negative = base.sample.negative_prompt
    text = LiveText(study.recipe(base.text).encoder, [captions[0], negative]) if base.text else None
    below = _low(study, results, base, captions, classes, seed, device)
    painter = Painter(base.model_copy(update={"seed": seed}), results, device, text, below)
    drawn = painter.paint(range(len(captions)), captions, classes)[painter.resolutions[0]]
    return lambda numbers: drawn[list(numbers)]


def _save(levels: dict[int, np.ndarray], out: Path) -> tuple[int, int]:
    """Write the sheet, every level enlarged to the size of the highest (at least 256 px); return its size."""
    side = max(256, *levels)
    rows, columns = len(next(iter(levels.values()))), len(levels)
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP), "white")
    for column, (_, pictures) in enumerate(sorted(levels.items())):
        for row, pixels in enumerate(pictures):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * (side + GAP), row * (side + GAP)))
    stream = io.BytesIO()
    sheet.save(stream, FORMATS[out.suffix.lower()])
    write_atomic(out, stream.getvalue())
    return sheet.size
