"""Networks: names and sizes, purity, text, classes, mixed batches, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mdm.config import LevelConfig, ModelConfig
from mdm.files.weights import state_hash
from mdm.model.checkpoints import inner_state
from mdm.model.nested import build
from mdm.model.presets import PRESETS
from mdm.model.unet import Condition

GOLDEN = Path(__file__).parents[1] / "numerics" / "golden"


def released_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every name and shape of the published 64, 256 or 1024 network."""
    rows = [line.split("\t") for line in (GOLDEN / f"manifest_{name}.tsv").read_text().splitlines()]
    return {key: tuple(map(int, shape.split(","))) for key, shape, _ in rows}


def level(resolution: int, channels: tuple[int, ...] = (32, 32), **settings: object) -> LevelConfig:
    return LevelConfig(resolution=resolution, channels=channels, resnets=(1,) * len(channels), **settings)


def innermost(**settings: object) -> LevelConfig:
    return level(8, attention=(0, 1), middle=True, micro_conditioning={"scale": 8}, **settings)


def nest(count: int = 2, **settings: object) -> ModelConfig:
    levels = (innermost(), level(16), level(32))[:count]
    return ModelConfig(levels=levels, **({"text_channels": 16, "text_projection": 32} | settings))


def awake(network: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Weights without zeros, so that every path matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / max(1, p[0].numel()) ** 0.5)
    return network.eval()


def inputs(config: ModelConfig, batch: int = 3) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pictures = [torch.randn(batch, 3, r, r, generator=generator) for r in config.resolutions]
    return pictures, torch.arange(batch) * 400


def some_text(batch: int = 3, length: int = 5, kept: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(length) < kept).float().expand(batch, -1)
    text = torch.randn(batch, 10, 16, generator=torch.Generator().manual_seed(3))[:, :length]
    return text * mask[:, :, None], mask


@pytest.mark.parametrize(("name", "parameters"), [("64", 461_359_107), ("256", 476_613_958), ("1024", 480_970_057)])
def test_released_networks(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = build(PRESETS[f"released-{name}"]())
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == released_shapes(name)


def test_weights_are_a_function_of_configuration_and_seed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build(nest(), seed=1).state_dict()
    assert torch.equal(torch.rand(1), expected), "building must not disturb the global generator"
    assert state_hash(build(nest(), seed=1).state_dict()) == state_hash(first)
    assert state_hash(build(nest(), seed=2).state_dict()) != state_hash(first)
    assert state_hash(inner_state(first, 1)) == state_hash(build(nest(1), seed=1).state_dict())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_prediction_per_level_highest_first(count: int) -> None:
    config = nest(count)
    pictures, times = inputs(config)
    said = awake(build(config))(pictures, times, *some_text())
    assert [p.shape for p in said] == [p.shape for p in pictures]


def test_padding_changes_nothing_when_it_is_masked() -> None:
    for config in (nest(), nest(text_layers=2)):
        network, (pictures, times) = awake(build(config)), inputs(config)
        short = network(pictures, times, *some_text(length=4))
        for a, b in zip(short, network(pictures, times, *some_text(length=9)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_padding_matters_when_it_is_not_masked() -> None:
    config = nest(mask_text=False)
    network, (pictures, times) = awake(build(config)), inputs(config)
    short, long = (network(pictures, times, *some_text(length=n))[1] for n in (4, 9))
    assert (short - long).abs().max() > 1e-3


def test_a_caption_without_tokens_is_not_nan() -> None:
    config = nest(text_layers=1)
    pictures, times = inputs(config)
    said = awake(build(config))(pictures, times, *some_text(kept=0))
    assert all(p.isfinite().all() for p in said)


def test_mixed_batch_sees_the_first_rows_at_the_high_level() -> None:
    config = nest(3)
    network, (pictures, times) = awake(build(config)), inputs(config)
    text = some_text()
    whole = network(pictures, times, *text)
    mixed = network([pictures[0][:1], pictures[1][:2], pictures[2]], times, *text)
    assert [len(p) for p in mixed] == [1, 2, 3]
    torch.testing.assert_close(mixed[0], whole[0][:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[2][:1], whole[2][:1], rtol=1e-4, atol=1e-5)
    # The last picture has only its low level, so it is told nothing by the levels outside.
    alone = network.inner_unet.inner_unet.denoise([pictures[2]], times, network.encode(*text, None), None, None)[0][0]
    torch.testing.assert_close(mixed[2][2:], alone[2:], rtol=1e-4, atol=1e-5)


def test_classes_and_the_missing_class() -> None:
    config = nest(text_channels=None, text_projection=0, classes=4)
    network, (pictures, times) = awake(build(config)), inputs(config)
    assert network.inner_unet.class_emb.weight.shape[0] == 5
    one, other = (network(pictures, times, labels=torch.full((3,), c))[0] for c in (1, 4))
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="needs labels"):
        network(pictures, times)


def test_without_text_or_classes() -> None:
    config = nest(text_channels=None, text_projection=0)
    pictures, times = inputs(config)
    network = awake(build(config))
    assert all(p.isfinite().all() for p in network(pictures, times))
    with pytest.raises(ValueError, match="network without text"):
        network(pictures, times, *some_text())


def test_micro_conditioning() -> None:
    config = nest(1)
    network, (pictures, times) = awake(build(config)), inputs(config)
    default = network(pictures, times, *some_text())[0]
    given = network(pictures, times, *some_text(), micros={"scale": torch.tensor([8.0, 99.0, 3.0])})[0]
    torch.testing.assert_close(given[:2], default[:2])  # 99 is cut to the default of 8
    assert (given[2] - default[2]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"no level is told 'scales' \(micro_conditioning\).*scale"):
        network(pictures, times, *some_text(), micros={"scales": torch.ones(3)})


def test_every_level_is_told_the_same_micros_and_caps_them_by_its_own_default() -> None:
    config = ModelConfig(levels=(innermost(), level(16, micro_conditioning={"scale": 16, "sharpness": 0})))
    network, (pictures, times) = awake(build(config)), inputs(config)

    def told(**micros: float) -> list[torch.Tensor]:
        return network(pictures, times, micros={name: torch.full((3,), value) for name, value in micros.items()})

    between, default, sharp = told(scale=12.0), told(), told(sharpness=0.3)
    assert not torch.allclose(between[0], default[0], atol=1e-4), "12 is below the outer default of 16"
    assert not torch.allclose(sharp[0], default[0], atol=1e-4)
    inside = network.inner_unet
    lone = [inside.embed(times, {"scale": torch.full((3,), value)}, Condition()) for value in (12.0, 8.0)]
    assert torch.equal(*lone), "and above the inner one of 8"


def test_normalised_input_ignores_the_scale_of_the_picture() -> None:
    config = ModelConfig(levels=(innermost(), level(16, normalize_input=True)))
    network, (pictures, times) = awake(build(config)), inputs(config)
    a, b = (network([pictures[0] * scale, pictures[1]], times)[0] for scale in (1, 3))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter() -> None:
    config = nest(3, text_layers=1, classes=3)
    network, (pictures, times) = awake(build(config)).train(), inputs(config)
    said = network(pictures, times, *some_text(), labels=torch.tensor([0, 1, 3]))
    sum((p * torch.randn_like(p)).sum() for p in said).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_fresh_network_is_silent_only_behind_its_zero_layers() -> None:
    config = nest()
    network, (pictures, times) = build(config), inputs(config)
    said = network(pictures, times, *some_text())
    assert all(not p.any() for p in said)
    sum((p - 1).square().sum() for p in said).backward()
    moved = {n for n, p in network.named_parameters() if p.grad.any()}
    # conv_out is zero, so in the first step only it can learn; the rest follows in the second and third.
    assert moved == {f"{p}conv_out.{w}" for p in ("", "inner_unet.") for w in ("weight", "bias")}


def test_dropout_only_in_training() -> None:
    config = ModelConfig(levels=(innermost(dropout=0.5),))
    network, (pictures, times) = awake(build(config)), inputs(config)
    assert torch.equal(network(pictures, times)[0], network(pictures, times)[0])
    network.train()
    assert not torch.equal(network(pictures, times)[0], network(pictures, times)[0])


REFUSED = {
    "an odd time embedding": ({"time_channels": 30}, "time_channels 30 is not divisible by 8"),
    "heads that do not divide": ({"text_channels": 20, "text_layers": 1}, "over 20 channels: their 8 heads need"),
    "layers over no text": ({"text_layers": 1}, "text_layers 1 has no effect without text_channels"),
    "a projection of no text": ({"text_projection": 8}, "text_projection 8 has no effect without text_channels"),
    "a middle around a level": ({"levels": (innermost(), level(16, middle=True))}, "no effect on the level 16"),
    "no middle": ({"levels": (level(8),)}, "needs middle: true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_refused_before_anything_is_built(case: str) -> None:
    settings, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        ModelConfig(**{"levels": (innermost(),)} | settings)


@pytest.mark.parametrize("key", ["channels", "resnets", "attention"])
def test_sizes_beyond_any_computer_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="should be less than or equal to"):
        LevelConfig(**{"resolution": 8, "channels": (32, 32), "resnets": (1, 1), key: (2**31, 2**31)})


@pytest.mark.parametrize("micro", [{"a.b": 1}, {"": 1}, {"scale": float("inf")}, {"scale": float("nan")}])
def test_micro_conditioning_that_is_refused(micro: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="micro_conditioning"):
        level(8, micro_conditioning=micro)


def test_five_levels() -> None:
    """The paper's deepest nest, {64, 128, 256, 512, 1024}, at an eighth of its size."""
    sizes = ((16, (32, 32)), (32, (32, 32)), (64, (16, 32)), (128, (16, 16)))
    outer = (LevelConfig(resolution=r, channels=c, resnets=(1, 1), norm_groups=8) for r, c in sizes)
    config = ModelConfig(levels=(innermost(), *outer), text_channels=16, text_projection=32)
    network, (pictures, times) = awake(build(config)), inputs(config, batch=2)
    said = network(pictures, times, *some_text(2))
    assert [tuple(x.shape) for x in said] == [(2, 3, r, r) for r in (128, 64, 32, 16, 8)]
    sum((p * torch.randn_like(p)).sum() for p in said).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_clear_refusals() -> None:
    network = build(nest())
    pictures, times = inputs(nest())
    with pytest.raises(ValueError, match="2 levels, but 1 pictures"):
        network(pictures[:1], times, *some_text())
    with pytest.raises(ValueError, match="none was given"):
        network(pictures, times)
    with pytest.raises(ValueError, match="no higher level more than a lower one"):
        network([pictures[0], pictures[1][:2]], times[:2], *some_text(2))
