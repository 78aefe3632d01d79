"""Today's recipe: each option against its formula, and that without it nothing is another than before."""

import math

import pytest
import torch
from pydantic import ValidationError

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SampleConfig, StudyError
from mdm.diffusion import noise, schedule
from mdm.diffusion.loss import training_loss
from mdm.diffusion.path import path
from mdm.diffusion.residual import completed
from mdm.diffusion.sampler import sample
from mdm.diffusion.weights import floored_gain, loss_weight
from mdm.model.arithmetic import parameters
from mdm.model.attention import PixelAttention
from mdm.model.balance import NoiseBalance, balances
from mdm.model.nested import build
from mdm.study.cost.speeds import calls
from mdm.study.study import load

LEVELS = (
    {"resolution": 8, "channels": [32], "resnets": [1], "norm_groups": 8, "middle": True},
    {"resolution": 16, "channels": [8, 16], "resnets": [1, 1], "norm_groups": 4},
)
GAMMAS = torch.tensor([0.999, 0.9, 0.5, 0.1, 0.001])
SNR = GAMMAS / (1 - GAMMAS)


@pytest.mark.parametrize("loss_on", ["x0", "epsilon", "v"])
def test_a_weight_means_the_same_whatever_the_loss_is_on(loss_on: str) -> None:
    """Weights are given by what they make of the squared error of x0; epsilon has SNR of it already, v SNR + 1."""
    unit = {"x0": 1.0, "epsilon": SNR, "v": SNR + 1}[loss_on]
    wanted = {
        "min_snr": (5.0, SNR.clamp(max=5)),
        "soft_min_snr": (4.0, SNR * 4 / (SNR + 4)),
        "sigmoid_weight": (-1.0, SNR / (1 + torch.exp(SNR.log() + 1))),
    }
    for key, (value, weight) in wanted.items():
        found = loss_weight(DiffusionConfig(loss_on=loss_on, **{key: value}), GAMMAS)
        torch.testing.assert_close(found * unit, weight)
    assert loss_weight(DiffusionConfig(loss_on=loss_on), GAMMAS) is None


def test_the_floor_bounds_the_weight_of_nearly_clean_pictures() -> None:
    """JiT: an error of v is one of x0 divided by the noise, but by no less than the floor."""
    torch.testing.assert_close(floored_gain("v", GAMMAS, 0.5) ** 2, (SNR + 1).clamp(max=4))
    torch.testing.assert_close(floored_gain("epsilon", GAMMAS, 1e-6) ** 2, SNR)


def test_a_floor_too_low_to_matter_changes_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, epsilon, said = (torch.randn(64, 3, 8, 8, generator=generator) for _ in range(3))
    times = torch.arange(100, 900, 12)[:64]

    def loss(**settings: float) -> torch.Tensor:
        config = DiffusionConfig(prediction="x0", loss_on="v", **settings)
        return training_loss(lambda *_, **__: [said], config, schedule.levels(config, [8]), [x0], times, [epsilon])[0]

    torch.testing.assert_close(loss(), loss(loss_floor=1e-3))
    assert loss(loss_floor=0.5) < loss()


def test_a_residual_level_adds_to_the_enlarged_picture_inside_and_teaches_it_nothing() -> None:
    inner = torch.rand(3, 3, 4, 4, requires_grad=True)
    outer = torch.rand(2, 3, 8, 8, requires_grad=True)  # a mixed batch: fewer rows outside
    high, low = completed([outer, inner])
    assert low is inner
    flat = completed([torch.zeros(2, 3, 8, 8), torch.full((3, 3, 4, 4), 0.25)])[0]
    torch.testing.assert_close(flat, torch.full((2, 3, 8, 8), 0.25))
    high.sum().backward()
    assert inner.grad is None
    assert torch.equal(outer.grad, torch.ones_like(outer))


def test_sampling_completes_the_levels_as_training_did() -> None:
    """A network that always answers with what is missing draws exactly the picture, at every level."""
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    small = torch.nn.functional.avg_pool2d(picture, 2)
    missing = picture - completed([torch.zeros_like(picture), small])[0]
    config = DiffusionConfig(prediction="x0", loss_on="v", residual_levels=True)
    levels = schedule.levels(config, [16, 8])
    drawn = sample(
        lambda *_, **__: [missing, small], levels, SampleConfig(sampler="dpm++", steps=4), config, [16, 8],
        None, None, None, None, [0], 0,
    )  # fmt: skip
    torch.testing.assert_close(drawn[0], picture)
    torch.testing.assert_close(drawn[1], small)


@pytest.mark.parametrize(
    ("density", "mean", "deviation", "centre", "spread"),
    [("normal", -1.2, 1.2, 2.4, 2.4), ("logit-normal", -0.8, 0.8, -1.6, 1.6)],
)
def test_noise_levels_are_drawn_from_their_density(
    density: str, mean: float, deviation: float, centre: float, spread: float
) -> None:
    """ln(SNR) is -2 ln(sigma), and twice the logit of the picture's share in t x0 + (1 - t) epsilon."""
    config = DiffusionConfig(noise_levels=density, noise_mean=mean, noise_deviation=deviation)
    gammas = schedule.alpha_bar(config.schedule, config.steps)
    for times in (noise.training_times(config, 0, range(4000)), noise.spread_times(config, 4000)):
        assert times.min() >= 0
        assert times.max() < config.steps
        log_snr = (gammas[times + 1].double() / (1 - gammas[times + 1].double())).log()
        assert log_snr.median().item() == pytest.approx(centre, abs=0.15)
        quartiles = log_snr.quantile(torch.tensor([0.25, 0.75], dtype=torch.float64))
        assert (quartiles[1] - quartiles[0]).item() == pytest.approx(1.349 * spread, rel=0.08)


def test_a_lead_lets_inner_levels_go_first_and_every_level_the_whole_way() -> None:
    plain, leading = (schedule.levels(DiffusionConfig(shift_power=0.0, lead=lead), [64, 32, 16]) for lead in (0.0, 0.1))
    assert (leading[:, -1] == plain[0, -1]).all() and (leading[:, 0] == 1).all() and (leading[:, 1:] < 1).all()
    assert (leading[0, 800:] == plain[0, -1]).all()
    for level in (1, 2):  # each 100 steps ahead, to the rounding of one
        torch.testing.assert_close(leading[level, 100 * level + 1 :], leading[0, 1 : -100 * level], atol=2e-3, rtol=0)
    with pytest.raises(StudyError, match="leaves no time for 3 levels"):
        DiffusionConfig(lead=0.5).effective([64, 32, 16])


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("lead", [0.0, 0.2])
def test_with_a_lead_the_exact_network_draws_the_brightness_of_its_pictures(sampler: str, lead: float) -> None:
    """Grey pictures c 1, c ~ N(0, 0.5^2): all levels show that spread (0.22 inside, if levels begin half-way)."""
    diffusion, sizes, spread = DiffusionConfig(prediction="x0", lead=lead, shift_power=0.0), (16, 8), 0.25
    table = schedule.levels(diffusion, sizes)

    def posterior_mean(seen, told, *_, **__):
        for x, row in zip(seen, table, strict=True):
            gamma, n = row[int(told[0]) + 1], x[0].numel()
            c = x.flatten(1).mean(1) * gamma**0.5 * spread / (gamma * spread + (1 - gamma) / n)
            yield c.view(-1, 1, 1, 1).expand_as(x)

    settings = SampleConfig(sampler=sampler, steps=250, threshold="none")
    drawn = sample(
        lambda *a, **k: list(posterior_mean(*a, **k)), table, settings, diffusion, sizes, None, None, None, None,
        range(300), 0,
    )  # fmt: skip
    for level in drawn:
        assert level.mean((1, 2, 3)).std().item() == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "heun"])
def test_every_sampler_follows_a_lead_to_clean_pictures(sampler: str) -> None:
    config = DiffusionConfig(prediction="x0", lead=0.3)
    levels = schedule.levels(config, [16, 8])
    truth = [torch.full((1, 3, r, r), 0.5) for r in (16, 8)]
    settings = SampleConfig(sampler=sampler, steps=12)
    drawn = sample(lambda *_, **__: truth, levels, settings, config, [16, 8], None, None, None, None, [0], 0)
    for found, wanted in zip(drawn, truth, strict=True):
        torch.testing.assert_close(found, wanted)
    told = [moment.told for moment in path(settings, config, levels)]
    assert told == sorted(told, reverse=True)


def test_autoguidance_leads_away_from_the_guide() -> None:
    """D = D_guide + w (D - D_guide), at every level; inside the interval of guidance only."""
    config = DiffusionConfig(prediction="x0")
    levels = schedule.levels(config, [16, 8])
    own, worse = ([torch.full((1, 3, r, r), value) for r in (16, 8)] for value in (0.3, 0.1))

    def drawn(**settings: object) -> float:
        pictures = sample(
            lambda *_, **__: own, levels, SampleConfig(steps=4, threshold="none", **settings), config, [16, 8],
            None, None, None, None, [0], 0, guide=lambda *_, **__: worse,
        )  # fmt: skip
        assert pictures[0].std() < 1e-6
        return pictures[1].mean().item()

    assert drawn(autoguidance=2.0) == pytest.approx(0.5)
    assert drawn(autoguidance=1.5) == pytest.approx(0.4)
    assert drawn(autoguidance=2.0, guidance_interval=(0.99, 1.0)) == pytest.approx(0.3)


def network(**settings: object) -> torch.nn.Module:
    return build(ModelConfig(levels=LEVELS, **settings), seed=1)


def test_without_time_conditioning_the_network_does_not_see_the_time() -> None:
    pictures = [torch.randn(2, 3, 16, 16), torch.randn(2, 3, 8, 8)]
    for sees in (True, False):
        model = network(time_conditioning=sees)
        for parameter in model.parameters():  # zero layers would hide it
            torch.nn.init.normal_(parameter, std=0.1)
        early, late = (model(pictures, torch.full((2,), t)) for t in (10, 900))
        assert all(torch.equal(a, b) for a, b in zip(early, late, strict=True)) is not sees
    assert parameters(model.config) == sum(p.numel() for p in model.parameters())


def test_the_learned_balance_finds_the_loss_of_each_noise_level() -> None:
    """exp(u) minimises l / exp(u) + u where it is l; a balance that knows nothing changes no loss."""
    model = network(learned_balance=True)
    assert parameters(model.config) == sum(p.numel() for p in model.parameters())
    own = balances(model)
    assert len(own) == 2
    config = DiffusionConfig(loss_on="v")
    levels = schedule.levels(config, [16, 8])
    images, noises = ([torch.randn(8, 3, r, r) for r in (16, 8)] for _ in range(2))
    inputs = (levels, images, torch.arange(0, 1000, 125), noises)
    plain, balanced = (training_loss(model, config, *inputs, balances=u)[0] for u in ((), own))
    torch.testing.assert_close(plain, balanced)
    optimizer = torch.optim.Adam(own[0].parameters(), lr=0.02)
    log_sigma = torch.linspace(-4, 4, 64)
    truth = torch.exp(torch.sin(log_sigma))
    for _ in range(500):
        u = own[0](log_sigma)
        (truth / u.exp() + u).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (own[0](log_sigma) - truth.log()).abs().max() < 0.15


def test_a_level_of_blocks_computes_on_fewer_pixels_and_nests_by_its_feature_maps() -> None:
    config = ModelConfig(
        levels=(
            {"resolution": 16, "patch": 2, "channels": [32], "resnets": [1], "norm_groups": 8, "middle": True},
            {"resolution": 64, "patch": 4, "channels": [8, 16], "resnets": [1, 1], "norm_groups": 4},
        )
    )
    model = build(config)
    assert model.conv_in.in_channels == 48
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    # A change of one pixel moves only its neighbourhood in steps of a block: blocks are folded and unfolded in place.
    pictures, times = [torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 16, 16)], torch.tensor([500])
    said = model(pictures, times)
    assert [tuple(x.shape) for x in said] == [(1, 3, 64, 64), (1, 3, 16, 16)]
    wide = model([torch.zeros(1, 3, 32, 64), torch.zeros(1, 3, 8, 16)], times)
    assert [tuple(x.shape) for x in wide] == [(1, 3, 32, 64), (1, 3, 8, 16)]


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_a_level_attends_with_its_own_number_of_heads(heads: int) -> None:
    level = {"resolution": 16, "channels": [32], "resnets": [1], "attention": [1], "norm_groups": 8, "middle": True}
    model = build(ModelConfig(levels=({**level, "heads": heads},), text_channels=16))
    layers = [module for module in model.modules() if isinstance(module, PixelAttention)]
    assert layers and {layer.heads for layer in layers} == {heads}
    layer, x, text = layers[0], torch.randn(2, 32, 4, 4), torch.randn(2, 5, 16)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    query, key, value = layer.qkv(layer.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
    told = layer.kv_cond(layer.norm_cond(text)).chunk(2, dim=2)
    query, key, value, *told = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value, *told))
    attend = torch.nn.functional.scaled_dot_product_attention
    seen = (attend(query, key, value) + attend(query, *told)).transpose(1, 2).flatten(2).transpose(1, 2)
    wanted = x + layer.proj_out(seen.unflatten(2, (4, 4)))
    torch.testing.assert_close(layer(x, text, None), wanted + layer.ffn(wanted), rtol=1e-4, atol=1e-4)


def test_heads_that_cannot_share_the_channels_are_refused() -> None:
    with pytest.raises(ValidationError, match="5 heads cannot share 32 channels; write a divisor of 32"):
        LevelConfig(resolution=16, channels=(32,), resnets=(1,), attention=(1,), norm_groups=8, heads=5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_snr": 5, "soft_min_snr": 4}, "a loss has one weight"),
        ({"loss_floor": 0.1}, "needs prediction: x0"),
        ({"residual_levels": True, "prediction": "v"}, "needs prediction: x0"),
        ({"loss_floor": 0.1, "prediction": "x0", "loss_on": "x0"}, "has no effect"),
        ({"noise_levels": "normal"}, "needs noise_mean and noise_deviation"),
        ({"noise_mean": 0.0, "noise_deviation": 1.0}, "a uniform one has neither"),
        ({"parameterisation": "edm", "lead": 0.1}, "lead 0.1 has no effect"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DiffusionConfig(**settings)


@pytest.mark.parametrize(
    ("inner", "outer", "words"),
    [
        ({"patch": 2}, {"patch": 4, "channels": [8]}, "with patch 4 give the outer level 2 channel entries"),
        ({}, {"resolution": 8, "channels": [8], "patch": 1}, "channel entries"),
        ({"patch": 3}, {}, "in blocks of 3 px"),
    ],
)
def test_impossible_blocks_are_refused(inner: dict, outer: dict, words: str) -> None:
    base = {"resnets": [1], "norm_groups": 8}
    with pytest.raises(ValidationError, match=words):
        ModelConfig(
            levels=(
                {"resolution": 16, "channels": [32], "middle": True, **base, **inner},
                {"resolution": 64, **base, **outer, "channels": outer.get("channels", [8])},
            )
        )


def test_defaults_say_nothing_new() -> None:
    """Recipes that ask for nothing new have the content, and so the digest, that they always had."""
    assert not {"lead", "residual_levels", "noise_levels", "loss_floor"} & DiffusionConfig().model_dump().keys()
    plain = ModelConfig(levels=LEVELS).model_dump()
    assert not {"time_conditioning", "learned_balance"} & plain.keys()
    assert not {"patch", "heads"} & plain["levels"][0].keys()
    assert math.isclose(DiffusionConfig(lead=0.1).model_dump()["lead"], 0.1)


def test_autoguidance_keeps_its_interval_where_nothing_else_guides() -> None:
    settings = {"guidance_interval": (0.2, 0.8), "guidance_rescale": 0.5}
    kept = SampleConfig(guide="short", autoguidance=2.0, **settings).effective()
    assert kept.guidance_interval == (0.2, 0.8) and not kept.guidance_rescale
    assert SampleConfig(**settings).effective().guidance_interval is None


def test_a_plan_counts_the_guides_calls() -> None:
    own = {"steps": 10, "guide": "short", "autoguidance": 2.0}
    assert calls(SampleConfig(steps=10)) == 10 and calls(SampleConfig(**own)) == 20
    assert calls(SampleConfig(**own, guidance=3.0)) == 30 and calls(SampleConfig(**own, sampler="heun")) == 38


def test_a_network_does_not_guide_itself() -> None:
    itself = {
        "title": "t",
        "question": "q",
        "group": "sampling",
        "set": {"sample.guide": "base", "sample.autoguidance": 2.0},
    }
    with pytest.raises(StudyError, match="is the network it guides"):
        load("laptop", {"ablations.itself": itself})


@pytest.mark.parametrize("weight", ["min_snr", "soft_min_snr", "sigmoid_weight"])
def test_a_floor_beside_a_weight_is_refused(weight: str) -> None:
    """At SNR 1e5 soft min-SNR 4 would be 0.016 beside a floor of 0.05, where docs/reference.md promises 4."""
    with pytest.raises(ValidationError, match="keep one"):
        DiffusionConfig(prediction="x0", loss_on="v", loss_floor=0.05, **{weight: 4.0})


def test_the_learned_balance_keeps_its_digits_under_autocast() -> None:
    balance = NoiseBalance()
    torch.nn.init.normal_(balance.head.weight)
    log_sigma = torch.linspace(-5, 5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = balance(log_sigma)
    assert found.dtype == torch.float32 and torch.equal(found, balance(log_sigma))
