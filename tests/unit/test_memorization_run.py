"""A small run by the released code's rules, whole: trained, interrupted, and drawn from without any caption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_classes import NEVER, World
from test_song_study import CLASSES

from mdm.diffusion.karras import released_latents
from mdm.evaluate.generate import generate
from mdm.files.weights import load_weights, state_hash
from mdm.train.export import export
from mdm.train.loop import train

COUNT, BATCH = 40, 16
RULES = {
    "batch_images": BATCH, "learning_rate": 1e-3, "betas": [0.9, 0.999], "weight_decay": 1e-3, "decay": "coupled",
    "warmup_images": 48, "cooldown_images": 0, "images_counted": "before-step", "sanitize_gradients": True,
    "clip_norm": None, "order": "same-every-epoch", "condition_dropout": 0, "matrix_rate": None, "ema_width": None,
    "ema_halflife_images": 500_000 * BATCH / 512, "ema_ramp": 0.05 * 50_000 / COUNT * BATCH / 512,
}  # fmt: skip
SETTINGS = {key: value for key, value in CLASSES.items() if not key.startswith("base.train.")} | {
    **{f"base.train.{key}": value for key, value in RULES.items()},
    "base.sample": {"sampler": "karras", "steps": 3, "threshold": "none"},
    "base.stages": {"r8": {"resolutions": [8], "num_images": 64}},
    "protocols": {"drawn": {"description": "ten", "num_images": 10, "labels": "used"}},
    "along": None,
    "excess": None,
}


@pytest.mark.parametrize("kind", ["vp", "ve", "edm"])
def test_an_interrupted_training_ends_with_the_same_bits_and_draws(tmp_path: Path, kind: str) -> None:
    settings = {key: value for key, value in SETTINGS.items() if not key.startswith("protocols.")}
    settings |= {"base.diffusion": {"parameterisation": kind}}
    whole, broken = (World(tmp_path / name, settings) for name in ("whole", "broken"))
    whole.run()
    recipe = broken.path(broken.train)
    train(recipe, recipe.parent / "slice-32.ckpt", None, NEVER)
    train(recipe, recipe.parent / "final.ckpt", recipe.parent / "slice-32.ckpt", NEVER)
    export(recipe)
    for name in ("weights.safetensors", "weights-raw.safetensors"):
        hashes = {state_hash(load_weights(world.path(world.train).parent / name)) for world in (whole, broken)}
        assert len(hashes) == 1
    generate(whole.path(whole.samples), batch_images=4)
    archive = np.load(whole.path(whole.samples).parent / "images.npz")
    labels = [json.loads(row)["shapes"] for row in archive["labels"]]
    assert labels == released_latents(range(10), 8, 8)[1].tolist(), "the scenes show eight shapes"
    assert archive["images_8"].shape == (10, 8, 8, 3)
