"""Small artifacts for the tests of mdm.evaluate: data sets, a text cache and an untrained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mdm.config import ModelConfig
from mdm.config.recipe import KINDS
from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.sources import registry as sources
from mdm.data.text.cache import embed
from mdm.files.artifact import digest
from mdm.files.atomic import write_json
from mdm.files.weights import save_weights
from mdm.model.nested import build

ENCODER = {"name": "tiny-t5", "settings": {"channels": 32, "layers": 1, "heads": 4}, "channels": 32}
LEVELS = [
    {"resolution": 8, "channels": [32], "resnets": [1], "attention": [1], "norm_groups": 8, "middle": True},
    {"resolution": 16, "channels": [16, 16], "resnets": [1, 1], "norm_groups": 8},
]


# What a recipe needs that a test may not care about.
USUAL: dict[str, dict[str, Any]] = {
    "train": {
        "train": {"batch_images": 8, "learning_rate": 1e-3, "ema_halflife_images": 8}, "diffusion": {}, "num_images": 8,
        "start_from": "ema", "parent": None, "class_label": None, "data": "data/some", "text": None,
        "validation": None, "validation_text": None,
    },
    "samples": {
        "train": "train/some", "sample": {}, "seed": 0, "num_images": 8, "prompts": "data/some", "text": None,
    },
    "features": {"num_images": 8, "resolution": 16, "extractors": {}},
    "scores": {"features": "features/some", "reference": "features/other", "settings": {}},
}  # fmt: skip


def put(results: Path, kind: str, name: str, **recipe: Any) -> Path:
    """Write a recipe in the folder of its digest; returns the recipe's path."""
    content = KINDS[kind](**{**USUAL.get(kind, {}), **recipe}).plain()
    path = results / kind / f"{name}-{digest(content)}" / "recipe.json"
    write_json(path, content)
    return path


def ref(recipe: Path) -> str:
    """The name by which other recipes know an artifact."""
    return f"{recipe.parent.parent.name}/{recipe.parent.name}"


def scenes(results: Path, num_images: int, resolution: int = 16, seed: int = 0, **knobs: Any) -> Path:
    """A finished data set of scenes."""
    wanted = {"seed": seed, "split": "all", "num_images": num_images, "resolution": resolution, **knobs}
    settings = sources.resolve("scenes", wanted, "test")
    recipe = put(results, "data", f"scenes{seed}", source="scenes", settings=settings, shard_images=64)
    index_data(recipe)
    for shard in range(-(-num_images // 64)):
        write_shard(recipe, shard)
    write_manifest(recipe)
    return recipe


def text(results: Path, data: Path) -> Path:
    """The embedded captions of a data set."""
    recipe = put(results, "text", "tiny", encoder=ENCODER, data=[ref(data)])
    embed(recipe)
    return recipe


def network(results: Path, seed: int = 0) -> Path:
    """A training artifact whose network is built but not trained."""
    model = ModelConfig(levels=LEVELS, time_channels=32, text_channels=32).model_dump(mode="json")
    recipe = put(results, "train", "r16", seed=seed, model=model, diffusion={"steps": 50})
    save_weights(recipe.with_name("weights.safetensors"), _noticeable(build(ModelConfig(**model), seed)))
    write_json(recipe.with_name("model.json"), model)
    return recipe


def _noticeable(model: Any) -> dict[str, Any]:
    """Fresh networks end in zeros and ignore their input; every weight made different from zero."""
    import torch

    generator = torch.Generator().manual_seed(7)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }


def samples(results: Path, train: Path, prompts: Path, embeddings: Path, num_images: int = 10) -> Path:
    """The recipe of sampled pictures; nothing is drawn."""
    sample = {"sampler": "ddim", "steps": 3, "guidance": 2.0}
    return put(
        results, "samples", "quick", train=ref(train), sample=sample, prompts=ref(prompts),
        text=ref(embeddings), num_images=num_images, seed=5,
    )  # fmt: skip


def random_pictures(count: int, resolution: int, seed: int = 0) -> np.ndarray:
    """Noise as uint8 [N, R, R, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, resolution, resolution, 3), np.uint8)
