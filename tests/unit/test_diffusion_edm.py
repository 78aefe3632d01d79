"""EDM (Karras et al. 2022) through our loss and samplers, against its formulas written out for one picture."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from test_model_build import awake, nest

from mdm.config import DiffusionConfig, SampleConfig
from mdm.diffusion import loss, noise, path, sampler, schedule
from mdm.model.nested import build

EDM = DiffusionConfig(parameterisation="edm")
CONFIG = nest(3, text_channels=None, text_projection=0)
RESOLUTIONS = CONFIG.resolutions
SHIFT = schedule.levels(EDM, RESOLUTIONS)[:, 0].tolist()


def test_sigma_grows_with_resolution() -> None:
    assert pytest.approx([2, math.sqrt(2), 1]) == SHIFT
    steeper = DiffusionConfig(parameterisation="edm", shift_power=3.0, base_resolution=16)
    assert schedule.levels(steeper, RESOLUTIONS)[:, 0].tolist() == pytest.approx([2**1.5, 1, 0.5**1.5])


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return awake(build(CONFIG)).double()


def published(said, y, sigma: float, data: float) -> torch.Tensor:
    """D of table 1, given the network's answer to c_in y."""
    skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.sqrt(sigma**2 + data**2)
    return skip * y + out * said


def answers(network, noisy, sigma: float, data: float = 0.5) -> list[torch.Tensor]:
    """D of every level for one picture y [1,3,R,R] per level, the level's sigma being SHIFT times the base's."""
    seen = [y / math.sqrt((s * sigma) ** 2 + data**2) for y, s in zip(noisy, SHIFT, strict=True)]
    said = network(seen, torch.tensor([math.log(sigma) / 4]))
    return [published(f, y, s * sigma, data) for f, y, s in zip(said, noisy, SHIFT, strict=True)]


def batch(count: int = 4) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = loss.pyramid(torch.rand(count, 3, 32, 32, generator=generator).double() * 2 - 1, RESOLUTIONS)
    noises = [torch.randn(x.shape, generator=generator).double() for x in images]
    return images, noises, torch.tensor([0.002, 0.3, 1.0, 80.0][:count]).double()


@pytest.mark.parametrize(
    "settings", [{}, {"sigma_data": 1.3}, {"level_weights": (4, 2, 1)}, {"mixed_ratio": (1, 1, 2)}]
)
def test_loss_is_the_published_one(network, settings) -> None:
    config = DiffusionConfig(parameterisation="edm", **settings)
    images, noises, sigmas = batch()
    table = schedule.levels(config, RESOLUTIONS).double()
    with torch.no_grad():
        total, per_level = loss.training_loss(network, config, table, images, sigmas, noises)
    data, rows, wanted = config.sigma_data, loss.level_rows(config, 3, 4), [0.0, 0.0, 0.0]
    for k, sigma in enumerate(sigmas.tolist()):
        noisy = [x[k : k + 1] + s * sigma * e[k : k + 1] for x, e, s in zip(images, noises, SHIFT, strict=True)]
        # Alone in its batch, a picture that the high levels do not see must not be shown to them.
        if k >= rows[0]:
            continue
        with torch.no_grad():
            clean = answers(network, noisy, sigma, data)
        for level, (d, s) in enumerate(zip(clean, SHIFT, strict=True)):
            weight = ((s * sigma) ** 2 + data**2) / (s * sigma * data) ** 2
            wanted[level] += (weight * (d - images[level][k]).square().mean()).item() / rows[level]
    weights = config.level_weights or (1, 1, 1)
    checked = [level for level, seen in enumerate(rows) if seen == rows[0]]
    for level in checked:
        assert per_level[level].item() == pytest.approx(wanted[level], rel=1e-6)
    assert total.item() == pytest.approx(sum(w * x for w, x in zip(weights, per_level.tolist(), strict=True)), rel=1e-9)


def test_small_sigmas_lose_nothing_in_float32(network) -> None:
    images, noises, _ = batch()
    sigmas = torch.full((4,), 0.002)
    table = schedule.levels(EDM, RESOLUTIONS)
    single = build(CONFIG)
    single.load_state_dict({name: value.float() for name, value in network.state_dict().items()})
    with torch.no_grad():
        exact, _ = loss.training_loss(network, EDM, table.double(), images, sigmas.double(), noises)
        rough, _ = loss.training_loss(
            single.eval(), EDM, table, [x.float() for x in images], sigmas, [x.float() for x in noises]
        )
    torch.testing.assert_close(rough.double(), exact, rtol=1e-4, atol=0)


def algorithm_1(network, steps: int, start: list[torch.Tensor]) -> list[torch.Tensor]:
    """Karras et al. 2022, algorithm 1 with S_churn 0, on y = x0 + sigma epsilon of all levels at once."""
    ends = [s ** (1 / 7) for s in (80, 0.002)]
    sigmas = [(ends[0] + i / max(steps - 1, 1) * (ends[1] - ends[0])) ** 7 for i in range(steps)] + [0.0]
    y = [s * sigmas[0] * z for s, z in zip(SHIFT, start, strict=True)]
    for now, then in pairwise(sigmas):
        slope = [(v - d) / (s * now) for v, d, s in zip(y, answers(network, y, now), SHIFT, strict=True)]
        trial = [v + s * (then - now) * k for v, k, s in zip(y, slope, SHIFT, strict=True)]
        if then:
            clean = answers(network, trial, then)
            second = [(v - d) / (s * then) for v, d, s in zip(trial, clean, SHIFT, strict=True)]
            slope = [(a + b) / 2 for a, b in zip(slope, second, strict=True)]
            trial = [v + s * (then - now) * k for v, k, s in zip(y, slope, SHIFT, strict=True)]
        y = trial
    return [v.clamp(-1, 1) for v in y]


def draw(network, **settings) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(1, 3, r, r, generator=generator).double() for r in RESOLUTIONS]
    config = SampleConfig(**{"sampler": "heun", "threshold": "none"} | settings)
    table = schedule.levels(EDM, RESOLUTIONS)
    nothing = (None, None, None, None)
    return sampler.sample(
        network, table, config, EDM, RESOLUTIONS, *nothing, image_ids=[0], seed=0, noise=lambda step: start
    )


@pytest.mark.parametrize("steps", [1, 4, 18])
def test_heun_is_algorithm_1(network, steps) -> None:
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(1, 3, r, r, generator=generator).double() for r in RESOLUTIONS]
    with torch.no_grad():
        wanted = algorithm_1(network, steps, start)
    for ours, theirs in zip(draw(network, steps=steps), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm++"])
def test_every_solver_draws_from_an_edm_network(network, name) -> None:
    for steps in (1, 3, 1500):  # there is no table of steps that could run out
        if steps < 1500:
            assert all(x.isfinite().all() for x in draw(network, sampler=name, steps=steps))
    assert len(path.path(SampleConfig(sampler=name, steps=1500), EDM, schedule.levels(EDM, RESOLUTIONS))) == 1501


def test_the_path_is_karras() -> None:
    moments = path.path(SampleConfig(sampler="heun", steps=18), EDM, schedule.levels(EDM, RESOLUTIONS))
    sigmas = [((1 - m.gammas[-1]) / m.gammas[-1]).sqrt().item() for m in moments]
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[17] == pytest.approx(0.002, rel=1e-6)
    assert sigmas[18] == 0 and moments[18].clean
    assert [m.told for m in moments[:18]] == pytest.approx([math.log(s) / 4 for s in sigmas[:18]])
    shares = [m.share for m in moments]
    assert shares[0] == 1 and shares == sorted(shares, reverse=True)
    # SNR of the levels: divided by the ratio of their resolutions.
    for moment in moments[:18]:
        snr = moment.gammas / (1 - moment.gammas)
        torch.testing.assert_close(snr[2] / snr, torch.tensor([4, 2, 1]).double(), rtol=1e-6, atol=0)


def test_guidance_interval_is_a_share_of_the_path() -> None:
    config, sizes = nest(1, classes=3, text_channels=None, text_projection=0), []
    model = awake(build(config))

    def watched(pictures, *args, **kwargs):
        sizes.append(len(pictures[0]))
        return model(pictures, *args, **kwargs)

    sampler.sample(
        *(watched, schedule.levels(EDM, (8,)), SampleConfig(steps=4, guidance=2, guidance_interval=(0.3, 0.8)), EDM),
        *((8,), None, None, None, None),
        image_ids=[0], seed=0, labels=torch.tensor([1]), negative_labels=torch.tensor([3]),
    )  # fmt: skip
    # sigma^(1/7) falls from 1 to 0.22 in even steps: 1, 0.74, 0.48, 0.22.
    assert sizes == [1, 2, 2, 1]


def test_sigmas_are_log_normal_and_belong_to_the_image_counter() -> None:
    config = DiffusionConfig(parameterisation="edm", log_sigma_mean=-0.4, log_sigma_deviation=1.0)
    sigmas = noise.training_times(config, 7, range(4000))
    assert torch.equal(sigmas[5:9], noise.training_times(config, 7, range(5, 9)))
    assert sigmas.log().mean().item() == pytest.approx(-0.4, abs=0.05)
    assert sigmas.log().std().item() == pytest.approx(1.0, abs=0.05)
    spread = noise.spread_times(config, 64).log()
    assert spread.mean().item() == pytest.approx(-0.4, abs=1e-3)
    assert spread.std().item() == pytest.approx(1.0, abs=0.05)


def test_a_unit_deviation_makes_it_the_v_prediction() -> None:
    """With sigma_data 1, c_in y is x_t and the answer F is -v: both parameterisations have the same loss."""
    edm, gamma = DiffusionConfig(parameterisation="edm", sigma_data=1.0), DiffusionConfig(loss_on="v")
    model = awake(build(nest(1, text_channels=None, text_projection=0)))

    def deaf(pictures, times, *args, **kwargs):
        return model(pictures, torch.zeros(len(pictures[0])))

    def negated(*args, **kwargs):
        return [-x for x in deaf(*args, **kwargs)]

    images, noises, _ = batch()
    images, noises = [images[2].float()], [noises[2].float()]
    table, times = schedule.levels(gamma, (8,)), torch.tensor([20, 300, 600, 900])
    g = table[0][times + 1]
    as_v = loss.training_loss(deaf, gamma, table, images, times, noises)[0]
    as_f = loss.training_loss(negated, edm, schedule.levels(edm, (8,)), images, ((1 - g) / g).sqrt(), noises)[0]
    torch.testing.assert_close(as_f, as_v, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"parameterisation": "edm", "loss_on": "v"}, "loss_on v has no effect with parameterisation: edm"),
        ({"parameterisation": "edm", "min_snr": 5}, "min_snr 5.0 has no effect"),
        ({"parameterisation": "edm", "steps": 100}, r"steps 100 has no effect.*default: 1000"),
        ({"sigma_data": 1.0}, "sigma_data 1.0 has no effect with parameterisation: gamma"),
    ],
)
def test_settings_of_the_other_parameterisation_are_refused(settings, words) -> None:
    with pytest.raises(ValidationError, match=words):
        DiffusionConfig(**settings)
