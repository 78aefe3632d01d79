"""Every extractor sees every picture once; what it saw is written down for all metrics that follow."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from mdm.config.recipe import SamplesRecipe
from mdm.config.recipe_measured import FeaturesRecipe
from mdm.data.sources.registry import rule
from mdm.evaluate.clip_frames import of_clips
from mdm.evaluate.extractors import Extractor, load_extractors
from mdm.evaluate.frechet import GaussianStatistics
from mdm.evaluate.labels import encode
from mdm.evaluate.pictures import PictureSet, open_pictures
from mdm.evaluate.progress import progress
from mdm.evaluate.spectrum import spectra
from mdm.files.artifact import Making
from mdm.files.atomic import read_json, write_atomic
from mdm.files.hashes import sha256_file

BATCH_IMAGES = 64
FEATURES, STATISTICS = "features.safetensors", "statistics.safetensors"


def extract_features(recipe_path: str | Path, batch_images: int = BATCH_IMAGES) -> None:
    """Write features.safetensors, statistics.safetensors and manifest.json of a features recipe."""
    import torch

    making = Making(recipe_path, FeaturesRecipe)
    recipe, folder, root = making.recipe, making.folder, making.root
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = open_pictures(root / recipe.images, recipe.num_images, recipe.resolution, recipe.first, recipe.frames)
    # A measurement must not depend on the model of the card: newer ones would round products to 10 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    extractors = load_extractors(recipe.extractors, root, device, recipe.resize, recipe.logits)
    if recipe.frames:
        extractors = {name: of_clips(name, extract, recipe.destroyed) for name, extract in extractors.items()}
    arrays, statistics = read_pictures(pictures, extractors, batch_images, recipe.keep_rows)
    if recipe.spectrum:
        arrays |= spectra(root / recipe.images, len(pictures), recipe.first)
    arrays |= {f"labels.{key}": value for key, value in encode(pictures.labels[: recipe.keep_rows]).items()}
    write_atomic(folder / FEATURES, save(arrays))
    tensors = {k: v for name, part in statistics.items() for k, v in part.tensors(name).items()}
    write_atomic(folder / STATISTICS, save(tensors))
    machine = torch.cuda.get_device_name() if device == "cuda" else device
    facts = {**describe(recipe, root), "resolution": pictures.resolution, "sha256": sha256_file(folder / FEATURES)}
    making.finish(facts, machine)


def read_pictures(
    pictures: PictureSet, extractors: Mapping[str, Extractor], batch_images: int, keep_rows: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, GaussianStatistics]]:
    """All arrays of all extractors [N, ...], and the statistics of their features.

    `keep_rows`: only the first so many rows of arrays, which a million pictures would fill the memory with.
    """
    kept = 0
    parts: dict[str, list[np.ndarray]] = {}
    statistics: dict[str, GaussianStatistics] = {}
    captions = iter(pictures.captions)
    with progress("features", len(pictures)) as bar:
        for batch in pictures.batches(batch_images):
            words = list(itertools.islice(captions, len(batch)))
            for name, extract in extractors.items():
                for key, value in (found := extract(batch, words)).items():
                    parts.setdefault(key, []).append(value[: max(0, (keep_rows or len(pictures)) - kept)])
                if name in found:
                    seen = GaussianStatistics.of(found[name])
                    statistics[name] = statistics[name].merge(seen) if name in statistics else seen
            kept += len(batch)
            bar.update(len(batch))
    return {key: np.concatenate(values) for key, values in parts.items()}, statistics


def describe(recipe: FeaturesRecipe, root: Path) -> dict[str, Any]:
    """Where the pictures came from and who read them: all that a score needs to know beside the features."""
    source, judge = read_json(root / recipe.images / "recipe.json"), recipe.extractors.get("judge")
    drawn = source["kind"] == "samples"
    prompts = SamplesRecipe.of(source, recipe.images).prompts if drawn else None
    data = prompts or (None if drawn else recipe.images)  # pictures drawn without captions follow no data set's rule
    return {
        "images": recipe.images,
        "prompts": prompts,
        "num_images": recipe.num_images,
        "resize": recipe.resize,
        **({"frames": recipe.frames} if recipe.frames else {}),
        "rule": rule(root / data / "recipe.json") if data else None,
        "index_sha256": read_json(root / data / "manifest.json").get("index_sha256") if data else None,
        "extractors": recipe.plain()["extractors"],
        "judge_on_real": read_json(root / judge / "judge.json")["metrics"] if judge else [],
    }
