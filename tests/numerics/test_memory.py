"""The simulated step against the bytes that PyTorch's allocator hands out in a real one."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, TrainConfig, VideoConfig
from mdm.config.sizes import Clip, shape
from mdm.diffusion.noise import spread_times
from mdm.diffusion.schedule import levels
from mdm.model import execution
from mdm.model.ema import Ema
from mdm.model.nested import build
from mdm.model.presets import paper_video, released_1024
from mdm.study import study
from mdm.study.cost import step_memory
from mdm.study.cost.memory import estimate
from mdm.train.example import Example
from mdm.train.optim import make_optimizers
from mdm.train.state import TrainingState
from mdm.train.step import training_step

TOKENS = 16
INNER = LevelConfig(resolution=16, channels=(64, 128), resnets=(1, 1), attention=(0, 1), middle=True)
WIDE = LevelConfig(resolution=8, channels=(256, 384), resnets=(1, 1), attention=(0, 1), middle=True)
OUTER = LevelConfig(resolution=64, channels=(32, 64, 64), resnets=(1, 1, 1))
MOVING = VideoConfig(frames=4, attention=(1, 1, 0), rotary=True)
CLIPS = LevelConfig(resolution=16, channels=(32, 32, 64), resnets=(1, 1, 1), video=MOVING)
CASES = {
    "mostly weights": ((WIDE,), {"batch_images": 2}, {}),
    "mostly activations": ((INNER, OUTER), {"batch_images": 8}, {}),
    "recomputed": ((INNER, OUTER), {"batch_images": 8}, {"recompute": (64,)}),
    "bf16": ((INNER, OUTER), {"batch_images": 8, "precision": "bf16"}, {}),
    "mixed batch": ((INNER, OUTER), {"batch_images": 8}, {"diffusion": DiffusionConfig(mixed_ratio=(1, 1))}),
    "continuous noise": ((INNER, OUTER), {"batch_images": 8}, {"diffusion": DiffusionConfig(parameterisation="edm")}),
    "orthogonal momentum": ((WIDE,), {"batch_images": 2, "matrix_rate": 0.01}, {}),
    "clips": ((INNER, CLIPS), {"batch_images": 8}, {}),
    "recomputed clips": ((INNER, CLIPS), {"batch_images": 8}, {"recompute": (Clip(4, 16),)}),
    "mostly weights in parts": ((WIDE,), {"batch_images": 4}, {"parts": 2}),
    "mostly activations in parts": ((INNER, OUTER), {"batch_images": 8}, {"parts": 4}),
    "steps left out": ((WIDE,), {"batch_images": 2, "skip_nonfinite": 3}, {}),
    "frozen": ((INNER, OUTER), {"batch_images": 4, "inner_rate": 0.0}, {"inherited": 1}),
}


def settings(name):
    nest, train, rest = CASES[name]
    model = ModelConfig(levels=nest, text_channels=64)
    train = TrainConfig(**{"learning_rate": 1e-4, "ema_halflife_images": 1000, **train})
    return model, train, rest.get("diffusion", DiffusionConfig()), rest


def measured(model, train, diffusion, rest):
    """Bytes of weights, moments and average, and the most that a step allocates on top of them."""
    network = build(model).to(memory_format=torch.channels_last).train()
    execution.recompute(network, rest.get("recompute", ()))
    inherited = {n for n, _ in network.named_parameters() if rest.get("inherited") and n.startswith("inner_unet.")}
    state = TrainingState(network, Ema(network, 1000), make_optimizers(network, train, inherited))
    clean, noises = ([torch.randn(train.batch_images, *shape(size)) for size in model.resolutions] for _ in range(2))
    text = torch.randn(train.batch_images, TOKENS, 64), torch.ones(train.batch_images, TOKENS)
    example = Example(clean, noises, spread_times(diffusion, train.batch_images), *text, None)
    gammas, parts = levels(diffusion, model.resolutions), rest.get("parts", 1)
    training_step(state, train, diffusion, gammas, example, accumulate=parts)  # makes the moments
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        training_step(state, train, diffusion, gammas, example, accumulate=parts)
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    inputs = sum(x.nbytes for x in (*clean, *noises, *text))
    return sum(tensor.nbytes for tensor in state.tensors().values()) + inputs + most


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_what_a_step_takes(name):
    model, train, diffusion, rest = settings(name)
    known = {key: value for key, value in rest.items() if key != "diffusion"}
    memory = estimate(model, train, diffusion, tokens=TOKENS, **known)
    assert memory.peak == pytest.approx(measured(model, train, diffusion, rest), rel=0.05)


def test_the_parts_of_an_estimate():
    model, train, diffusion, _ = settings("mostly activations")
    with torch.device("meta"):
        count = sum(p.numel() for p in build(model).parameters())
    kept = estimate(model, train, diffusion, tokens=TOKENS)
    assert kept.gradients == kept.average == 4 * count
    assert kept.parameters == pytest.approx(4 * count, rel=1e-3)  # and the frequencies of the time embedding
    assert kept.moments == pytest.approx(8 * count, rel=1e-3)  # and the count of steps
    again = estimate(model, train, diffusion, tokens=TOKENS, recompute=(64,))
    assert again.activations[64] < kept.activations[64] / 2
    assert again.activations[16] == kept.activations[16]
    double = estimate(model, train.model_copy(update={"batch_images": 16}), diffusion, tokens=TOKENS)
    assert double.activations[64] == pytest.approx(2 * kept.activations[64], rel=0.05)


def test_frozen_levels_have_neither_gradients_nor_moments():
    model, train, diffusion, rest = settings("frozen")
    memory = estimate(model, train, diffusion, tokens=TOKENS, **rest)
    assert memory.gradients < memory.parameters / 2
    assert memory.moments == pytest.approx(2 * memory.gradients, rel=1e-2)


def test_clips_are_levels_like_others():
    model, train, diffusion, _ = settings("clips")
    kept, again = (estimate(model, train, diffusion, tokens=TOKENS, recompute=r) for r in ((), (Clip(4, 16),)))
    assert list(kept.activations) == [Clip(4, 16), 16]
    assert again.activations[Clip(4, 16)] < kept.activations[Clip(4, 16)] / 2


@pytest.mark.parametrize("condition", [{"text_channels": 64}, {"classes": 10}, {}], ids=str)
def test_continuous_noise_takes_as_much_as_discrete_steps(condition):
    _, train, _, _ = settings("mostly activations")
    model = ModelConfig(levels=(INNER, OUTER), **condition)
    ways = (DiffusionConfig(), DiffusionConfig(parameterisation="edm"))
    discrete, continuous = (estimate(model, train, way, tokens=TOKENS) for way in ways)
    assert continuous.peak == pytest.approx(discrete.peak, rel=0.02)


def test_a_gpu_keeps_the_enlarged_pictures():
    """The CPU folds the enlargement into the convolution behind it, a GPU takes PyTorch's layers."""
    model, train, diffusion, _ = settings("mostly activations")
    cpu, gpu = (estimate(model, train, diffusion, tokens=TOKENS, on_gpu=on_gpu) for on_gpu in (False, True))
    enlarged = 8 * 4 * (64 * 32**2 + 64 * 64**2)  # batch, bytes, two convolutions of the outer level
    assert gpu.activations[64] >= cpu.activations[64] + 0.9 * enlarged


@pytest.mark.parametrize("preset", [released_1024, paper_video])
def test_networks_of_full_size_take_no_memory_to_estimate(preset):
    train = TrainConfig(batch_images=1, learning_rate=1e-4, ema_halflife_images=1000)
    memory = estimate(preset(), train, DiffusionConfig(), tokens=128, recompute=(64,))
    assert memory.parameters > 4 * 470e6
    assert memory.peak > memory.parameters + memory.moments + memory.average + memory.gradients


def test_the_plan_lists_every_training():
    loaded = study.load("quick")
    lines = step_memory.memory_table(loaded).splitlines()
    assert all(any(line.startswith(ref) and "8 px" in line for line in lines) for ref in loaded.of_kind("train"))
    assert any(line.startswith("assumed: nodes, gpus, accumulate") for line in lines)
