"""Sampling traces and losses of the released code: every step, sampler, threshold and depth against ours.

golden/traces.npz was made by running apple/ml-mdm (commit de8cde2) unchanged, outside this repository: its
Diffusion or NestedDiffusion (nested: shifted schedule, double loss, no residual) around networks of 4, 8 and 16 px
in float64, with its random draws taken in order from one torch generator per case. `meta` (JSON) describes every
case; arrays are `{case}.{step}.{level}`, the pictures after a step (the last one clipped to [-1, 1]; highest level
first), and `{case}.losses`, one per picture. Weights follow from their names (golden/README.md), everything else from
seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from released_networks import GOLDEN, with_golden_weights
from torch import Tensor

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SampleConfig
from mdm.diffusion import loss, sampler, schedule
from mdm.model.nested import build

STORED = np.load(GOLDEN / "traces.npz", allow_pickle=False)
META = json.loads(bytes(STORED["meta"]))
RESOLUTIONS = {1: (4,), 2: (8, 4), 3: (16, 8, 4)}
# The stored numbers are exact; what is left in float64 are the schedule's coefficients, float32 on both sides.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


@cache
def network(count: int, dtype: torch.dtype, normalize: bool = False, mask_text: bool = False, layers: int = 0):
    shared = {"channels": (32, 32), "resnets": (1, 1), "norm_groups": 16}
    inner = LevelConfig(resolution=4, attention=(0, 1), middle=True, micro_conditioning={"scale": 4}, **shared)
    middle = LevelConfig(resolution=8, micro_conditioning={"scale": 8}, normalize_input=normalize, **shared)
    outer = LevelConfig(resolution=16, micro_conditioning={"scale": 16}, **shared)
    config = ModelConfig(
        levels=(inner, middle, outer)[:count], time_channels=128, text_channels=24, text_projection=40,
        text_layers=layers, mask_text=mask_text,
    )  # fmt: skip
    return with_golden_weights(build(config)).to(dtype)


def condition(batch: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Captions of five and three tokens in turn, padded to five."""
    mask = (torch.arange(5) < torch.tensor([[5], [3]] * batch)[:batch]).float()
    text = torch.randn(batch, 5, 24, generator=torch.Generator().manual_seed(seed))
    return (text * mask[:, :, None]).to(dtype), mask.to(dtype)


def draws(case: dict[str, Any], batch: int, dtype: torch.dtype) -> Iterator[list[Tensor]]:
    """Normal pictures of all levels in the order in which the released code draws them."""
    generator = torch.Generator().manual_seed(case["seed"])
    while True:
        yield [torch.randn(batch, 3, r, r, generator=generator).to(dtype) for r in RESOLUTIONS[case["levels"]]]


def diffusion(case: dict[str, Any]) -> DiffusionConfig:
    known = DiffusionConfig.model_fields.keys() & case.keys()
    return DiffusionConfig(**{key: case[key] for key in known} | {"steps": case.get("total", 1000)})


def assert_close(ours: Tensor, stored: str, dtype: torch.dtype) -> None:
    golden = torch.from_numpy(STORED[stored]).to(ours.dtype)
    assert ours.shape == golden.shape
    assert (ours - golden).abs().max() <= TOLERANCE[dtype] * golden.abs().max(), stored


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", META["traces"])
def test_traces(name: str, dtype: torch.dtype) -> None:
    case = META["traces"][name]
    config, count, model = diffusion(case), case["levels"], network(case["levels"], dtype)
    sequence, visited = draws(case, 1, dtype), []

    def watched(pictures, *args, **kwargs):
        visited.append([x[:1] for x in pictures])
        return model(pictures, *args, **kwargs)

    keys = ("sampler", "steps", "eta", "guidance", "threshold")
    final = sampler.sample(
        *(watched, schedule.levels(config, RESOLUTIONS[count]), SampleConfig(**{key: case[key] for key in keys})),
        *(config, RESOLUTIONS[count], *condition(1, 101, dtype), *condition(1, 102, dtype)),
        image_ids=[0], seed=0, noise=lambda step: next(sequence),
    )  # fmt: skip
    assert len(visited) == case["steps"]
    for step, pictures in enumerate([*visited[1:], final], start=1):
        for level, x in enumerate(pictures):
            if step == case["steps"] or f"{name}.1.0" in STORED.files:
                assert_close(x, f"{name}.{step}.{level}", dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", META["losses"])
def test_losses(name: str, dtype: torch.dtype) -> None:
    case = META["losses"][name]
    config, resolutions, batch = diffusion(case), RESOLUTIONS[case["levels"]], case["batch"]
    model = network(case["levels"], dtype, case["normalize_input"], case["mask_text"], case["text_layers"])
    generator = torch.Generator().manual_seed(200)
    images = (torch.rand(batch, 3, resolutions[0], resolutions[0], generator=generator) * 2 - 1).to(dtype)
    times = torch.from_numpy(STORED[f"{name}.time"]).long()
    with torch.no_grad():
        total, _ = loss.training_loss(
            *(model, config, schedule.levels(config, resolutions), loss.pyramid(images, resolutions), times),
            *(next(draws(case, batch, dtype)), *condition(batch, 103, dtype)),
        )
    golden = STORED[f"{name}.losses"].mean()
    assert abs(total.item() - golden) <= TOLERANCE[dtype] * golden
