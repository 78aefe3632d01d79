"""`mdm audit WEIGHTS --against FOLDER`: does a model of one's own copy what it was trained on?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdm.config import StudyError
from mdm.config.audit import USUAL
from mdm.data.batches.reader import Pictures
from mdm.data.pictures.decode import BadPicture, Policy, decode, shrink
from mdm.data.rows import Row
from mdm.evaluate.archive import array_names, read_array
from mdm.evaluate.audit import drawn_pictures, look, show, write_pairs
from mdm.evaluate.audit_rows import facts, rows
from mdm.evaluate.known import Known, OfArray, OfData, Source
from mdm.evaluate.pictures import LEVEL
from mdm.files.atomic import ArtifactError, read_json, write_json

if TYPE_CHECKING:
    from mdm.evaluate.painter import Painter

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NEIGHBOURS = 50
DRAWN = 256  # pictures that weights draw unless told otherwise
BATCH_IMAGES = 32
EXACT: Policy = "exact"


@dataclass(frozen=True)
class Asked:
    """What is audited: weights that draw, or pictures that were drawn; against what; into which folder."""

    weights: Path | None
    pictures: Path | None
    against: Path | None
    out: Path
    num_images: int | None  # none: all that were drawn, or DRAWN
    seed: int = 0


def audit_own(asked: Asked) -> None:
    """Write audit.json, neighbours.npz and worst.png into a folder, and print the metrics."""
    if (asked.weights is None) == (asked.pictures is None):
        raise StudyError(
            "an audit looks at weights, which draw pictures, or at pictures that were drawn: write mdm audit "
            "WEIGHTS.safetensors --against FOLDER, or mdm audit --pictures FOLDER --against FOLDER"
        )
    if asked.pictures is not None and asked.against is None:
        raise StudyError("--pictures needs --against: a folder of training pictures, or a data set made here")
    drawn = given(asked.pictures, asked.num_images) if asked.pictures else painted(asked, asked.num_images or DRAWN)
    known = Known(_source(asked, max(drawn)), list(drawn))
    levels = look(drawn, known, USUAL, NEIGHBOURS)
    found = [row for level in levels for row in rows(level, USUAL)]
    asked.out.mkdir(parents=True, exist_ok=True)
    pairs = write_pairs(asked.out, levels, drawn, known)
    write_json(asked.out / "audit.json", {"metrics": found, "levels": [facts(x, pairs[x.side]) for x in levels]})
    show(found)
    worst = pairs[max(drawn)][0]
    print(f"most like a copy: drawn picture {worst.drawn} and {worst.name}, {worst.distance:.1f} of 255 apart")
    print(asked.out / "worst.png")


def given(path: Path, count: int | None) -> dict[int, np.ndarray]:
    """Pictures that were drawn: of an archive, by level where it has several, or of a folder of files."""
    if path.suffix == ".npz" and path.is_file():
        return _archived(path, count)
    pictures, _ = in_folder(path, None, count)
    return {pictures.shape[1]: _enough(pictures, path)}


def _archived(path: Path, count: int | None) -> dict[int, np.ndarray]:
    names = array_names(path)
    if sides := [int(name.removeprefix(LEVEL)) for name in names if name.startswith(LEVEL)]:
        there = len(read_array(path, f"{LEVEL}{min(sides)}"))
        return {side: _enough(part, path) for side, part in drawn_pictures(path, min(count or there, there)).items()}
    found = read_array(path, names[0])
    if len(names) > 1 or found.dtype != np.uint8 or found.ndim != 4 or found.shape[1] != found.shape[2]:
        raise ArtifactError(
            f"{path} holds {', '.join(names)}; an archive of drawn pictures has one array of uint8 [N, R, R, 3], or "
            f"several called {LEVEL}64, {LEVEL}32, ..."
        )
    return {found.shape[1]: _enough(found[:count], path)}


def _enough(pictures: np.ndarray, path: Path) -> np.ndarray:
    if len(pictures) < 4 or pictures.shape[-1] != 3:
        shape = " x ".join(map(str, pictures.shape))
        raise ArtifactError(f"{path} holds {shape} values; an audit takes 4 pictures or more, of three colours")
    return pictures


def in_folder(folder: Path, side: int | None, count: int | None = None) -> tuple[np.ndarray, list[str]]:
    """The pictures of a folder and of all inside it, by name, as squares of one side (none: that of the first)."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; name one that holds pictures ({', '.join(EXTENSIONS)})")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not paths:
        raise ArtifactError(f"{folder} holds no picture ({', '.join(EXTENSIONS)})")
    found = []
    for path in paths[:count]:
        try:
            pixels = _middle(decode(path.read_bytes()))
            side = side or pixels.shape[0]
            found.append(shrink(pixels, side))
        except BadPicture as error:
            raise ArtifactError(f"{path}: {error}; mend or remove it") from None
        except ArtifactError:
            raise ArtifactError(
                f"{path} has {pixels.shape[0]} px, and pictures of {side} px are compared; name larger ones, or draw "
                "smaller ones"
            ) from None
    return np.stack(found), [str(path.relative_to(folder)) for path in paths[:count]]


def _middle(pixels: np.ndarray) -> np.ndarray:
    """The middle square of a picture."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return pixels[top : top + short, left : left + short]


def _source(asked: Asked, side: int) -> Source:
    """Where training pictures come from: a data set made here, or a folder; without --against the model's own."""
    folder, take, decode_as = asked.against, None, EXACT
    if folder is None and asked.weights is not None:
        from mdm.evaluate.painter import stage_of

        stage = stage_of(asked.weights.parent)
        folder, take = asked.weights.resolve().parents[2] / stage.data, stage.take
        decode_as = stage.train.decode
    if folder is None or not folder.is_dir():
        raise ArtifactError(f"{folder} is no folder; name in --against the training pictures, or a data set made here")
    if (folder / "manifest.json").is_file():
        if (kind := read_json(folder / "recipe.json").get("kind")) != "data":
            raise ArtifactError(f"{folder} is an artifact of kind {kind}; name one of results/data")
        return OfData(folder, side, decode_as, take)
    return OfArray(*in_folder(folder, side))


def painted(asked: Asked, count: int) -> dict[int, np.ndarray]:
    """Draw with a stage's weights, captions and classes those of its training pictures, which copying would betray."""
    import torch

    from mdm.config.diffusion import SampleConfig
    from mdm.config.recipe import SamplesRecipe
    from mdm.evaluate.painter import WEIGHTS, Painter, stage_of

    folder = asked.weights.resolve().parent if asked.weights else Path()
    if not asked.weights or not asked.weights.is_file() or not (folder / "recipe.json").is_file():
        raise ArtifactError(
            f"{asked.weights}: weights are drawn with where they were trained, results/train/NAME/{WEIGHTS} beside its "
            "recipe.json; of others draw pictures by yourself, and name them in --pictures"
        )
    root, stage = folder.parents[1], stage_of(folder)
    told = bool(stage.text or stage.model.classes)
    sample = SampleConfig(steps=50, threshold="none") if stage.latents else SampleConfig(steps=50)
    recipe = SamplesRecipe(
        train=f"{folder.parent.name}/{folder.name}", sample=sample, seed=asked.seed,
        num_images=count, prompts=stage.data if told else None, text=stage.text,
    )  # fmt: skip
    rows_asked = _told(root / stage.data, stage.take, count) if told else [Row("", "")] * count
    painter = Painter(recipe, root, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    parts = [_paint(painter, range(k, min(k + BATCH_IMAGES, len(rows_asked))), rows_asked) for k in
             range(0, len(rows_asked), BATCH_IMAGES)]  # fmt: skip
    return {side: np.concatenate([part[side] for part in parts]) for side in parts[0]}


def _told(data: Path, take: int | None, count: int) -> list[Row]:
    """What training pictures are called, again from the first where more pictures are drawn than there are."""
    pictures = Pictures(data, take)
    places = [number % len(pictures) for number in range(count)]
    return [Row(pictures.key(n), pictures.caption(n), pictures.labels(n)) for n in places]


def _paint(painter: Painter, ids: Sequence[int], rows_asked: Sequence[Row]) -> dict[int, np.ndarray]:
    batch = [rows_asked[number] for number in ids]
    return painter.paint(ids, [row.caption for row in batch], painter.classes(batch))
