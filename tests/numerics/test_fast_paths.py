"""Where the network takes another way than PyTorch's layers for speed, the numbers are those of the layers."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdm.cli import keep_freed_memory
from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, StudyError
from mdm.diffusion.loss import training_loss
from mdm.diffusion.schedule import levels
from mdm.model import attention, execution, normalise
from mdm.model.attention import PointwiseConv, attend
from mdm.model.blocks import EnlargingConv
from mdm.model.nested import build
from mdm.model.normalise import GroupNorm
from mdm.model.processor import as_on

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def assert_near(found, wanted, share=1e-5):
    """Every tensor within `share` of the largest value of its float64 counterpart."""
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= share * b.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_normalisation_and_its_gradients(monkeypatch, layout, silu, modulated, fused):
    monkeypatch.setattr(normalise, "FUSED_NUMBERS", 0 if fused else 2**60)
    torch.manual_seed(0)
    norm = GroupNorm(4, 16)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x, upstream = torch.randn(3, 16, 5, 7) * 2 + 1, torch.randn(3, 16, 5, 7)
    modulation = [torch.randn(3, 16) for _ in range(2 * modulated)]
    inputs = [t.requires_grad_() for t in (x.contiguous(memory_format=layout), norm.weight, norm.bias, *modulation)]
    found = norm(inputs[0], *modulation, silu=silu)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    wanted = F.group_norm(exact[0], 4, exact[1], exact[2], norm.eps)
    if modulated:
        wanted = wanted * (1 + exact[3][:, :, None, None]) + exact[4][:, :, None, None]
    wanted = F.silu(wanted) if silu else wanted
    assert_near([found], [wanted])
    assert found.is_contiguous(memory_format=layout)
    assert_near(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, exact, upstream.double()), 3e-6
    )


def test_normalisation_of_a_lone_picture_with_a_strange_stride():
    torch.manual_seed(0)
    norm, frame = GroupNorm(4, 16), torch.randn(4, 4, 16).permute(2, 0, 1)
    with torch.no_grad():
        assert_near([norm(frame[None])], [F.group_norm(frame[None].double(), 4)])


def test_normalisation_keeps_nothing_but_its_input(monkeypatch):
    monkeypatch.setattr(normalise, "FUSED_NUMBERS", 0)
    x, modulation = torch.randn(2, 32, 16, 16, requires_grad=True), torch.randn(2, 2, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        GroupNorm(8, 32)(x, *modulation, silu=True)
    large = {t.data_ptr() for t in kept if t.numel() >= x.numel()}
    assert large == {x.data_ptr()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_normalisation_of_large_pictures_is_exact(layout, training):
    torch.manual_seed(0)
    x = (torch.randn(1, 32, 512, 256) * 2 + 1).contiguous(memory_format=layout).requires_grad_(training)
    with torch.set_grad_enabled(training):
        assert_near([GroupNorm(32, 32)(x)], [F.group_norm(x.double(), 32)], 1e-6)


def test_normalisation_leaves_its_input_alone():
    x = torch.randn(2, 32, 4, 4)
    before = x.clone()
    with torch.no_grad():
        GroupNorm(8, 32)(x, silu=True)
    assert torch.equal(x, before)


@pytest.mark.parametrize("few", [0, 2**60])
@pytest.mark.parametrize("keys", [1, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(monkeypatch, few, keys, masked):
    monkeypatch.setattr(attention, "FEW_SCORES", few)
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 8, n, 4, requires_grad=True) for n in (5, keys, keys))
    keep = (torch.arange(keys) < torch.tensor([[1], [keys]]))[:, None, None, :] if masked else None
    exact = [t.detach().double().requires_grad_() for t in (query, key, value)]
    scores = exact[0] @ exact[1].transpose(2, 3) / 2
    wanted = (scores if keep is None else scores.masked_fill(~keep, -torch.inf)).softmax(3) @ exact[2]
    found, upstream = attend(query, key, value, keep), torch.randn(2, 8, 5, 4)
    assert_near([found], [wanted])
    gradients = torch.autograd.grad(wanted, exact, upstream.double())
    for a, b in zip(torch.autograd.grad(found, (query, key, value), upstream), gradients, strict=True):
        assert (a - b).abs().max() <= 1e-6 + 1e-5 * b.abs().max()  # one key alone gives the query no gradient


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pointwise_convolution(layout):
    torch.manual_seed(0)
    layer, x = PointwiseConv(6, 10), torch.randn(2, 6, 3, 5).contiguous(memory_format=layout)
    wanted = torch.einsum("bihw,oi->bohw", x.double(), layer.weight.double()[:, :, 0, 0])
    assert_near([layer(x)], [wanted + layer.bias.double()[:, None, None]])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a switch of glibc")
def test_freed_memory_is_kept():
    import resource

    assert keep_freed_memory()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.ones(2**21)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert faults() < 2048  # one fresh tensor alone has that many pages


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("narrow", [False, True])
def test_normalisation_without_gradients(monkeypatch, layout, narrow):
    monkeypatch.setattr(normalise, "FEW_NUMBERS", 0 if narrow else 2**60)
    torch.manual_seed(0)
    norm, x = GroupNorm(4, 16), (torch.randn(3, 16, 5, 7) * 2 + 1).contiguous(memory_format=layout)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    with torch.no_grad():
        assert_near([norm(x)], [F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [3, 40])
def test_enlarging_convolution(layout, channels):
    torch.manual_seed(0)
    layer, x = EnlargingConv(channels, 4), torch.randn(2, channels, 5, 7).contiguous(memory_format=layout)
    inputs = [x.requires_grad_(), layer.weight, layer.bias]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    large = exact[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    found, wanted = layer(x), F.conv2d(large, *exact[1:], padding=1)
    upstream = torch.randn(2, 4, 10, 14)
    assert_near([found], [wanted])
    assert_near(torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, exact, upstream.double()))


def step_of(config, bf16=False, **execution_settings):
    """Loss and gradients of a small nest with dropout; the same for every call up to how it is computed."""
    torch.manual_seed(0)
    network = build(config).train()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape) / max(1, p[0].numel()) ** 0.5)
    execution.recompute(network, execution_settings.get("recompute", ()))
    execution.compile_network(network, execution_settings.get("compile", "none"), torch.device("cpu"))
    clean, noises = ([torch.randn(2, 3, r, r) for r in config.resolutions] for _ in range(2))
    text, times = torch.randn(2, 5, 16), torch.tensor([200, 700])
    torch.manual_seed(1)  # dropout
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, _ = training_loss(
            network, DiffusionConfig(), levels(DiffusionConfig(), config.resolutions), clean, times, noises, text
        )
    loss.backward()
    return [loss.detach(), *(p.grad for p in network.parameters())]


def nest(dropout):
    inner = LevelConfig(resolution=8, channels=(32, 64), resnets=(1, 1), attention=(0, 1), middle=True, dropout=dropout)
    return ModelConfig(levels=(inner, LevelConfig(resolution=16, channels=(32, 32), resnets=(1, 1))), text_channels=16)


@pytest.mark.parametrize("levels_twice", [(8,), (16,), (8, 16)])
def test_recomputed_activations_change_nothing(levels_twice):
    kept, again = step_of(nest(0.3)), step_of(nest(0.3), recompute=levels_twice)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))


def test_the_ways_of_the_cpu_are_those_of_a_gpu(monkeypatch):
    monkeypatch.setattr(normalise, "FUSED_NUMBERS", 0)
    own = torch.cat([part.flatten() for part in step_of(nest(0.0))])
    with as_on(gpu=True):
        plain = torch.cat([part.flatten() for part in step_of(nest(0.0))])
    assert 0 < (own - plain).norm() <= 1e-6 * plain.norm()


def test_recompute_names_the_levels_that_there_are():
    with pytest.raises(StudyError, match=r"recompute 32: the network has the levels 16, 8"):
        execution.recompute(build(nest(0.0)), (32,))


def test_bf16_is_close_to_float32():
    exact, rough = step_of(nest(0.0)), step_of(nest(0.0), bf16=True)
    assert rough[0].item() == pytest.approx(exact[0].item(), rel=2e-2)
    rough, exact = (torch.cat([g.flatten() for g in gradients[1:]]) for gradients in (rough, exact))
    assert (rough - exact).norm() <= 0.05 * exact.norm()


@pytest.mark.slow
@pytest.mark.parametrize("extent", ["blocks", "network"])
def test_compiled_networks_compute_the_same(extent):
    inner = LevelConfig(resolution=8, channels=(32,), resnets=(1,), attention=(1,), middle=True)
    config = ModelConfig(levels=(inner,), text_channels=16)
    compiled, plain = (torch.cat([g.flatten() for g in step_of(config, compile=x)]) for x in (extent, "none"))
    assert (compiled - plain).norm() <= 1e-5 * plain.norm()


def test_without_a_compiler_training_goes_on_and_says_so(monkeypatch, capsys):
    def broken(function):
        raise RuntimeError("no working C++ compiler\nwas found")

    monkeypatch.setattr(torch, "compile", broken)
    step_of(nest(0.0), compile="blocks")
    assert "nothing is compiled: RuntimeError: no working C++ compiler\n" in capsys.readouterr().err
