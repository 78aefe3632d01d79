"""Where the network takes another way than PyTorch's layers for speed, the numbers are those of the layers."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mdm.heap import keep_freed_memory
from mdm.model import attention, normalise
from mdm.model.attention import PointwiseConv, attend
from mdm.model.normalise import GroupNorm

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


def test_normalisation_keeps_nothing_but_its_input(monkeypatch):
    monkeypatch.setattr(normalise, "FUSED_NUMBERS", 0)
    x, modulation = torch.randn(2, 32, 16, 16, requires_grad=True), torch.randn(2, 2, 32, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        GroupNorm(8, 32)(x, *modulation, silu=True)
    large = {t.data_ptr() for t in kept if t.numel() >= x.numel()}
    assert large == {x.data_ptr()}


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
