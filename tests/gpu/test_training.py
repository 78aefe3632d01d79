"""On a CUDA device: the network computes what it computes on the CPU, and bf16 stays close."""

import time

import pytest
import torch

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SampleConfig
from mdm.diffusion.loss import training_loss
from mdm.diffusion.sampler import sample
from mdm.diffusion.schedule import levels
from mdm.diffusion.solvers import SOLVERS
from mdm.model.dropout import PictureDropout
from mdm.model.nested import build
from mdm.study import study
from mdm.train.bottlenecks import Stopwatch
from mdm.train.checkpoint import MemoryCopy
from mdm.train.state import picture_keys

pytestmark = pytest.mark.gpu
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def loss_on(device, bf16=False):
    loaded = study.load("laptop")
    config = loaded.recipe(loaded.runs[0].stages[-1].artifact).model
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


def test_what_these_tests_are_made_of_works_without_a_gpu():
    """They are skipped on most machines, where nobody would see that they no longer run."""
    assert loss_on("cpu", bf16=True) == pytest.approx(loss_on("cpu"), rel=2e-2)


@on_a_gpu
def test_the_loss_is_that_of_the_cpu():
    assert loss_on("cuda") == pytest.approx(loss_on("cpu"), rel=1e-3)


@on_a_gpu
def test_bf16_is_close():
    assert loss_on("cuda", bf16=True) == pytest.approx(loss_on("cuda"), rel=2e-2)


@on_a_gpu
def test_masks_of_dropout_are_those_of_the_cpu():
    layer, x = PictureDropout(0.3), torch.ones(6, 8, 16, 16)
    layer.keys = picture_keys(7, range(100, 106))
    wanted = layer(x, 6)
    layer.keys = layer.keys.cuda()
    assert torch.equal(layer(x.cuda(), 6).cpu(), wanted)


@on_a_gpu
def test_a_snapshot_of_a_device_is_what_it_held_then():
    snapshot, x = MemoryCopy(), torch.randn(64, 3, 64, 64, device="cuda").to(memory_format=torch.channels_last)
    for _ in range(2):
        wanted, copy = x.cpu(), snapshot.take({"x": x})["x"]
        x += 1
        torch.cuda.synchronize()
        assert copy.is_pinned() and torch.equal(copy, wanted)


@on_a_gpu
def test_the_clock_counts_the_device():
    clock, x = Stopwatch(torch.device("cuda")), torch.randn(2048, 2048, device="cuda")
    for _ in range(3):
        with clock.running():
            x = x @ x
    assert clock.take() > 0 and clock.take() == 0


@pytest.mark.parametrize("way", ["gamma", "edm"])
@pytest.mark.parametrize("name", SOLVERS)
@on_a_gpu
def test_pictures_are_those_of_the_cpu(name, way):
    level = LevelConfig(resolution=8, channels=(32,), resnets=(1,), middle=True)
    config = ModelConfig(levels=(level, LevelConfig(resolution=16, channels=(32, 32), resnets=(1, 1))))
    diffusion, resolutions = DiffusionConfig(parameterisation=way), config.resolutions
    model, drawn = build(config).eval(), []
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5)
    for device in ("cpu", "cuda"):
        shared = (model.to(device), levels(diffusion, resolutions).to(device), SampleConfig(sampler=name, steps=4))
        pictures = sample(*shared, diffusion, resolutions, None, None, None, None, image_ids=[0, 7], seed=3)
        drawn.append([x.cpu() for x in pictures])
    for cpu, cuda in zip(*drawn, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-2, atol=1e-2)


@on_a_gpu
def test_waiting_is_what_the_device_waits_not_what_the_loop_does():
    waiting, a = Stopwatch(torch.device("cuda")), torch.randn(8192, 8192, device="cuda")
    a @ a
    torch.cuda.synchronize()
    began = time.monotonic()
    with waiting.running():  # nothing to do for the device
        time.sleep(0.05)
    idle, took = waiting.seconds(), time.monotonic() - began
    assert 0.03 < idle < took + 0.02
    ready = torch.cuda.Event()
    while True:
        for _ in range(100):  # seconds of work in its queue
            a = torch.nn.functional.normalize(a @ a)
        ready.record()
        with waiting.running():
            time.sleep(0.02)
        if not ready.query():  # else this machine was busy for longer than the device, which then did wait
            break
        idle = waiting.seconds()
    assert waiting.seconds() == pytest.approx(idle, abs=0.02)
