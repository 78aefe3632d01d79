"""Weights and arithmetic counted from a configuration, against torch's own counters."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mdm.config import DiffusionConfig
from mdm.config.sizes import shape
from mdm.diffusion.loss import training_loss
from mdm.diffusion.schedule import levels
from mdm.model import arithmetic as layers
from mdm.model import execution
from mdm.model.nested import build
from mdm.model.presets import PRESETS
from mdm.study import study

TOKENS, BATCH = 24, 6


def studied():
    """Every network that the laptop study trains, once."""
    loaded, found = study.load("laptop"), {}
    for ref in loaded.of_kind("train"):
        model = loaded.recipe(ref).model
        if model not in found.values():
            found[ref] = model
    return found


STUDIED = studied()
THREE = next(model for model in STUDIED.values() if model.resolutions == (64, 32, 16))
CLASSES = THREE.model_copy(update={"classes": 10, "text_channels": None, "text_layers": 0})
NETWORKS = [pytest.param(make(), id=name, marks=pytest.mark.slow) for name, make in PRESETS.items()]
NETWORKS += [pytest.param(model, id=ref) for ref, model in STUDIED.items()] + [pytest.param(CLASSES, id="classes")]


def counted(config, diffusion=None, frozen=0, recompute=(), batch=1):
    """By torch's counter on the meta device: (weights, GFLOPs of a call, of a training step), per picture."""
    diffusion = diffusion or DiffusionConfig()
    with torch.device("meta"):
        network = build(config)
        for name, parameter in network.named_parameters():
            if frozen and name.startswith("inner_unet." * (len(config.levels) - frozen)):
                parameter.requires_grad_(False)
        execution.recompute(network, recompute)
        pictures = [torch.empty(batch, *shape(size)) for size in config.resolutions]
        channels = config.text_channels
        text = (torch.empty(batch, TOKENS, channels), torch.ones(batch, TOKENS)) if channels else (None, None)
        times, gammas = torch.zeros(batch, dtype=torch.long), levels(diffusion, config.resolutions).to("meta")
        labels = torch.zeros(batch, dtype=torch.long) if config.classes else None
        with FlopCounterMode(display=False) as call, torch.no_grad():
            network(pictures, times, *text, labels=labels)
        with FlopCounterMode(display=False) as step:
            training_loss(network, diffusion, gammas, pictures, times, pictures, *text, labels)[0].backward()
    weights = sum(parameter.numel() for parameter in network.parameters())
    return weights, *(counter.get_total_flops() / 1e9 / batch for counter in (call, step))


@pytest.mark.parametrize("config", NETWORKS)
def test_weights_and_arithmetic_are_those_of_the_network(config):
    weights, call, step = counted(config)
    assert layers.parameters(config) == weights
    assert layers.gigaflops(config, TOKENS) == pytest.approx(call, rel=1e-3)
    assert layers.step_gigaflops(config, DiffusionConfig(), TOKENS) == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "accuracy"),
    [({"frozen_levels": 1}, 1e-3), ({"frozen_levels": 2}, 1e-3), ({"recompute": (64,)}, 0.05),
     ({"diffusion": DiffusionConfig(mixed_ratio=(1, 1, 1))}, 1e-3)],
)  # fmt: skip
def test_what_makes_a_step_cheaper_or_dearer(settings, accuracy):
    settings = {"diffusion": DiffusionConfig(), "frozen_levels": 0, "recompute": (), **settings}
    _, _, step = counted(THREE, settings["diffusion"], settings["frozen_levels"], settings["recompute"], BATCH)
    assert layers.step_gigaflops(THREE, tokens=TOKENS, **settings) == pytest.approx(step, rel=accuracy)
