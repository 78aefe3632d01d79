"""The loss through a real network: gradients, bf16, pictures that are not square."""

from __future__ import annotations

import re

import pytest
import torch
from test_model_build import awake, inputs, nest, some_text
from torch import nn

from mdm.config import DiffusionConfig, ModelConfig
from mdm.diffusion import loss, noise, schedule
from mdm.model.nested import build

WAYS = {
    "v": DiffusionConfig(),
    "epsilon": DiffusionConfig(prediction="epsilon"),
    "x0": DiffusionConfig(prediction="x0", loss_on="v"),
    "edm": DiffusionConfig(parameterisation="edm"),
}
# In the first step only the last convolution of each level learns: it is zero, so nothing passes through it.
FIRST = re.compile(r"(inner_unet\.)*conv_out\.(weight|bias)")
# In the second, all but what stands before another zero layer (docs/reference.md, sections 1, 3, 4 and 5).
BEFORE_ANOTHER_ZERO_LAYER = re.compile(
    r".*\.resnets\.\d+\.(norm1|conv1|time_layer|norm2)\.(weight|bias)"  # conv2
    r"|.*\.attn\.\d+\.(norm|qkv|norm_cond|kv_cond)\.(weight|bias)"  # proj_out
    r"|.*\.ffn\.[01]\.(weight|bias)"  # ffn.3
    # Everything that modulates the residual blocks passes through their time_layer, so through conv2 as well.
    r"|(inner_unet\.)*(temb_layer[12]|cond_emb|lm_proj|class_emb|cond_layers\..*|lm_head\..*)\.(weight|bias)"
)


def step(network: nn.Module, config: DiffusionConfig, model: ModelConfig, seed: int = 0) -> torch.Tensor:
    resolutions = model.resolutions
    generator = torch.Generator().manual_seed(seed)
    images = loss.pyramid(torch.rand(4, 3, resolutions[0], resolutions[0], generator=generator) * 2 - 1, resolutions)
    times = noise.training_times(config, seed, range(4))
    noises = noise.training_noises(config, seed, range(4), resolutions)
    condition = (*some_text(4), torch.tensor([0, 1, 2, 3])) if model.classes else some_text(4)
    return loss.training_loss(network, config, schedule.levels(config, resolutions), images, times, noises, *condition)[
        0
    ]


def heard(network: nn.Module) -> set[str]:
    return {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("way", WAYS)
def test_gradients_reach_every_parameter_as_the_zero_layers_open(way: str) -> None:
    model = nest(3, text_layers=1, classes=3)
    network, seen = build(model).train(), []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    names = {name for name, _ in network.named_parameters()}
    for number in range(5):
        optimizer.zero_grad()
        step(network, WAYS[way], model, number).backward()
        seen.append(heard(network))
        optimizer.step()
    assert seen[0] == {name for name in names if FIRST.fullmatch(name)}
    assert seen[1] == {name for name in names if not BEFORE_ANOTHER_ZERO_LAYER.fullmatch(name)}
    assert seen[4] == names


@pytest.mark.parametrize("way", WAYS)
def test_bf16_autocast_is_close_to_float32(way: str) -> None:
    model = nest(3)
    network, (pictures, times) = awake(build(model)), inputs(model)
    with torch.no_grad():
        exact, loss_exact = network(pictures, times, *some_text()), step(network, WAYS[way], model)
        with torch.autocast("cpu", torch.bfloat16):
            rough, loss_rough = network(pictures, times, *some_text()), step(network, WAYS[way], model)
    for a, b in zip(rough, exact, strict=True):
        assert (a.float() - b).norm() < 0.03 * b.norm()
    assert loss_rough.dtype == torch.float32, "errors are squared and summed in float32"
    assert loss_rough.item() == pytest.approx(loss_exact.item(), rel=0.02)


def test_gradients_under_bf16_autocast_point_the_same_way() -> None:
    model, gradients = nest(2), []
    for enabled in (False, True):
        network = awake(build(model)).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = step(network, WAYS["v"], model)
        value.backward()
        gradients.append(torch.cat([p.grad.flatten().float() for p in network.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.995


@pytest.mark.parametrize("size", [(8, 8), (8, 14), (6, 10), (2, 32)])
def test_one_level_takes_any_multiple(size: tuple[int, int]) -> None:
    model = nest(1, text_channels=None, text_projection=0)
    network = awake(build(model))
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    said = network([x], torch.tensor([3, 700]))[0]
    assert said.shape == x.shape
    # Attention has no positions and convolutions no preferred direction: the picture may stand or lie.
    upright = build(model)
    upright.load_state_dict({k: v.transpose(-1, -2) if v.dim() == 4 else v for k, v in network.state_dict().items()})
    turned = upright.eval()([x.transpose(-1, -2)], torch.tensor([3, 700]))[0]
    torch.testing.assert_close(turned.transpose(-1, -2), said, rtol=1e-4, atol=1e-5)


def test_a_nest_takes_pictures_that_are_not_square() -> None:
    model = nest(3)
    network, config = awake(build(model)), DiffusionConfig()
    images = loss.pyramid(torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1, (32, 16, 8))
    noises = [torch.randn_like(x) for x in images]
    table = schedule.levels(config, model.resolutions)
    total, _ = loss.training_loss(network, config, table, images, torch.tensor([10, 800]), noises, *some_text(2))
    total.backward()
    assert total.isfinite() and all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (
            [(31, 32), (16, 16), (8, 8)],
            "level of 32 px makes its pictures 2 times smaller, so 31 x 32 does not fit.*of 2",
        ),
        ([(32, 32), (16, 16), (8, 9)], "nests one of 8 x 8, but 8 x 9 was given"),
        ([(32, 24), (16, 16), (8, 8)], "32 x 24 at the level of 32 px nests one of 16 x 12, but 16 x 16 was given"),
        ([(20, 20), (10, 10), (5, 5)], "level of 8 px makes its pictures 2 times smaller, so 5 x 5 does not fit"),
    ],
)
def test_sizes_that_do_not_nest_are_refused(sizes: list[tuple[int, int]], words: str) -> None:
    network = build(nest(3))
    with pytest.raises(ValueError, match=words):
        network([torch.zeros(1, 3, *size) for size in sizes], torch.tensor([5]), *some_text(1))
