"""On a CUDA device: the network computes what it computes on the CPU, and bf16 stays close."""

import pytest
import torch

from mdm import study
from mdm.config import DiffusionConfig, ModelConfig
from mdm.diffusion.loss import training_loss
from mdm.diffusion.schedule import levels
from mdm.model import build

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def loss_on(device, bf16=False):
    loaded = study.load("laptop")
    config = ModelConfig(**loaded.recipe(loaded.runs[0].stages[-1].artifact)["model"])
    generator = torch.Generator().manual_seed(0)
    clean, noise = ([torch.randn(4, 3, r, r, generator=generator) for r in config.resolutions] for _ in range(2))
    text, mask = torch.randn(4, 12, config.text_channels, generator=generator), torch.ones(4, 12)
    diffusion, times = DiffusionConfig(), torch.tensor([10, 300, 600, 990])
    model = build(config).to(device)
    parts = [
        [x.to(device) for x in clean],
        times.to(device),
        [x.to(device) for x in noise],
        text.to(device),
        mask.to(device),
    ]
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        loss, _ = training_loss(model, diffusion, levels(diffusion, config.resolutions).to(device), *parts)
    loss.backward()
    return loss.item()


def test_the_loss_is_that_of_the_cpu():
    assert loss_on("cuda") == pytest.approx(loss_on("cpu"), rel=1e-3)


def test_bf16_is_close():
    assert loss_on("cuda", bf16=True) == pytest.approx(loss_on("cuda"), rel=2e-2)
