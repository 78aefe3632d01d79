"""Which chain of three resolutions fits a laptop study? Milliseconds per training picture and per network call.

    python benchmarks/chain.py            (one thread, alternating, medians; writes nothing)

The stages of the laptop study are timed as they are, beside the chain 16 -> 64 -> 256 with outer levels as thin as
GroupNorm allows, and the baselines. All in one run, because machines are noisy: read the ratios.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from mdm.config import DiffusionConfig, ModelConfig
from mdm.diffusion.loss import training_loss
from mdm.diffusion.schedule import levels
from mdm.model.nested import build
from mdm.study import study

BATCH, ROUNDS, TOKENS = 8, 7, 24
INNER = {
    "resolution": 16,
    "channels": [32, 64],
    "resnets": [1, 1],
    "attention": [0, 1],
    "middle": True,
    "norm_groups": 16,
}
TO_256 = [
    INNER,
    {"resolution": 64, "channels": [16, 16, 32], "resnets": [1, 1, 1], "norm_groups": 8},
    {"resolution": 256, "channels": [8, 8, 16], "resnets": [1, 1, 1], "norm_groups": 4},
]


def models() -> dict[str, ModelConfig]:
    """Every stage of the laptop study once, and the larger chain."""
    laptop = study.load("laptop")
    found = {}
    for run in laptop.runs:
        for stage in run.stages:
            config = laptop.recipe(stage.artifact).model
            found.setdefault(" -> ".join(map(str, reversed(config.resolutions))), config)
    shared = {"time_channels": 128, "text_channels": 64, "text_layers": 2}
    return {**found, "16 -> 64 -> 256": ModelConfig(levels=TO_256, **shared)}


def step(config: ModelConfig) -> tuple[Callable[[], None], Callable[[], None], int]:
    """A training step, a network call without gradients, and the parameters."""
    model = build(config).to(memory_format=torch.channels_last)
    diffusion, resolutions = DiffusionConfig(loss_on="v"), config.resolutions
    gammas = levels(diffusion, resolutions)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    clean, noise = ([torch.randn(BATCH, 3, r, r) for r in resolutions] for _ in range(2))
    times = torch.randint(diffusion.steps, (BATCH,))
    text, mask = torch.randn(BATCH, TOKENS, 64), torch.ones(BATCH, TOKENS)

    def train() -> None:
        training_loss(model, diffusion, gammas, clean, times, noise, text, mask)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def call() -> None:
        model(noise, times, text, mask)

    return train, call, sum(p.numel() for p in model.parameters())


def main() -> None:
    made = {name: step(config) for name, config in models().items()}
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for name, parts in made.items():
            for kind in (0, 1):
                start = time.perf_counter()
                parts[kind]()
                seconds.setdefault((name, kind), []).append(time.perf_counter() - start)
    print(
        f"{'levels':<18} {'parameters':>11} {'train ms/picture':>17} {'call ms/picture':>16}"
        f"   (batch {BATCH}, one thread)"
    )
    for name, (_, _, parameters) in made.items():
        train, call = (1e3 * statistics.median(seconds[name, kind][1:]) / BATCH for kind in (0, 1))
        print(f"{name:<18} {parameters:>11,} {train:>17.1f} {call:>16.1f}")


if __name__ == "__main__":
    main()
