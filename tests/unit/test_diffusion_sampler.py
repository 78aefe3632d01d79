"""Samplers: noise per picture, guidance, thresholds, all levels."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from test_model_build import awake, nest

from mdm.config import DiffusionConfig, SampleConfig, StudyError
from mdm.diffusion import guidance, sampler, schedule, solvers
from mdm.model.nested import build

DIFFUSION = DiffusionConfig(steps=50)
CONFIG = nest(2)
RESOLUTIONS = CONFIG.resolutions
GAMMAS = schedule.levels(DIFFUSION, RESOLUTIONS)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return awake(build(CONFIG))


def texts(count: int, length: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, length, 16, generator=torch.Generator().manual_seed(0)), torch.ones(count, length)


def draw(network, ids=(0, 1, 2), negative=None, **settings: object) -> list[torch.Tensor]:
    config = SampleConfig(**({"steps": 4} | settings))
    text, mask = texts(8)
    rows = torch.tensor(ids)
    return sampler.sample(
        *(network, GAMMAS, config, DIFFUSION, RESOLUTIONS, text[rows], mask[rows]),
        *(negative or (None, None)),
        image_ids=ids,
        seed=3,
    )


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_a_picture_does_not_depend_on_its_batch(network, name: str) -> None:
    settings = {"sampler": name, "eta": 0.5 if name == "ddim" else 0.0}
    together = draw(network, (0, 1, 2), **settings)
    assert [tuple(x.shape) for x in together] == [(3, 3, 16, 16), (3, 3, 8, 8)]
    assert all(x.abs().max() <= 1 and x.isfinite().all() for x in together)
    for a, b in zip(together, draw(network, (2, 1), **settings), strict=True):
        torch.testing.assert_close(a[[2, 1]], b, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together[0][0], together[0][1], atol=1e-2)


def by_hand(pictures, times, text=None, mask=None, labels=None):
    """A denoiser whose rows cannot touch one another, not even in the last bit of a sum."""
    return [0.3 * x + 0.1 * x.flip(-1) + 0.2 * (times / 50)[:, None, None, None] for x in pictures]


WAYS = {"gamma": DIFFUSION, "edm": DiffusionConfig(parameterisation="edm")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_a_picture_is_the_same_to_the_last_bit_in_every_batch(name: str, way: str) -> None:
    config = SampleConfig(sampler=name, steps=5, eta=0.7 if name == "ddim" else 0.0, threshold="dynamic")
    shared = (by_hand, schedule.levels(WAYS[way], RESOLUTIONS), config, WAYS[way], RESOLUTIONS)
    whole = sampler.sample(*shared, None, None, None, None, image_ids=range(7), seed=3)
    for ids in ([4], [6, 0], [2, 3, 4, 5, 6]):
        part = sampler.sample(*shared, None, None, None, None, image_ids=ids, seed=3)
        assert all(torch.equal(a[ids], b) for a, b in zip(whole, part, strict=True))
    other = sampler.sample(*shared, None, None, None, None, image_ids=[0], seed=4)
    assert not torch.equal(other[0], whole[0][:1])


@pytest.mark.parametrize("name", solvers.SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 49, 50])
def test_any_number_of_steps(name: str, steps: int) -> None:
    times = []

    def watching(pictures, told, *args, **kwargs):
        times.append(int(told[0]))
        return by_hand(pictures, told)

    final = sampler.sample(
        *(watching, GAMMAS, SampleConfig(sampler=name, steps=steps), DIFFUSION, RESOLUTIONS, None, None, None, None),
        image_ids=[0], seed=0,
    )  # fmt: skip
    assert all(x.isfinite().all() for x in final)
    assert len(times) == (2 * steps - 1 if name == "heun" else steps)
    assert all(0 <= t < 50 for t in times), "the network is told t - 1"
    assert times == sorted(times, reverse=True)


def test_all_levels_are_returned_clipped(network) -> None:
    final = draw(network, threshold="none", guidance=6.0, negative=texts(1))
    assert [tuple(x.shape) for x in final] == [(3, 3, 16, 16), (3, 3, 8, 8)]
    assert all(x.abs().max() <= 1 for x in final)


def test_ddim_with_eta_one_is_ddpm(network) -> None:
    for a, b in zip(draw(network, sampler="ddpm"), draw(network, sampler="ddim", eta=1.0), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_ddim_with_eta_one_has_the_variance_of_the_posterior() -> None:
    for gammas in GAMMAS.double().tolist():
        for t, s in ((50, 40), (25, 24), (2, 1), (9, 0)):
            g, after = gammas[t], gammas[s]
            alpha = g / after
            # 1 / (precision of x_s given x0 + precision of x_t given x_s)
            exact = 0.0 if s == 0 else 1 / (1 / (1 - after) + alpha / (1 - alpha))
            assert solvers.posterior_variance(g, after) == pytest.approx(exact, rel=1e-6)


def test_guidance_of_one_is_no_guidance_and_no_second_batch(network) -> None:
    sizes = []

    def watching(pictures, *args, **kwargs):
        sizes.append(len(pictures[0]))
        return network(pictures, *args, **kwargs)

    plain = draw(watching)
    assert set(sizes) == {3}
    none = texts(1, length=2)
    unmoved = draw(watching, negative=none, guidance=1.0, guidance_rescale=0.7, guidance_interval=(0.2, 0.6))
    assert sizes == [3] * 8, "one call a step, of the prompt alone"
    assert all(torch.equal(a, b) for a, b in zip(plain, unmoved, strict=True))
    sizes.clear()
    guided = draw(watching, negative=none, guidance=3.0)
    assert set(sizes) == {6}
    nearly = draw(network, negative=none, guidance=1.000001)
    torch.testing.assert_close(nearly[0], plain[0], rtol=1e-3, atol=1e-3)
    assert (guided[0] - plain[0]).abs().max() > 0.01


def test_bf16_pictures_are_close_to_float32(network) -> None:
    exact, rough = (
        draw(network, negative=texts(1), guidance=3.0),
        draw(network, negative=texts(1), guidance=3.0, precision="bf16"),
    )
    assert rough[0].dtype == torch.float32
    assert 0 < (rough[0] - exact[0]).abs().mean() < 0.05


def test_guidance_only_inside_its_interval(network) -> None:
    sizes = []

    def watching(pictures, *args, **kwargs):
        sizes.append(len(pictures[0]))
        return network(pictures, *args, **kwargs)

    # 4 steps of 50 start at noise levels 41, 31, 20, 10.
    draw(watching, negative=texts(1), guidance=3.0, guidance_interval=(0.3, 0.7))
    assert sizes == [3, 6, 6, 3]


def test_a_negative_prompt_leads_away_from_itself(network) -> None:
    away, towards = (draw(network, negative=pair, guidance=3.0) for pair in (texts(1), (texts(2)[0][1:], texts(1)[1])))
    assert (away[0] - towards[0]).abs().max() > 0.01
    # Guided away from the very prompt that it is guided towards, nothing is left of guidance.
    text, mask = texts(8)
    same = draw(network, (2,), negative=(text[2:3], mask[2:3]), guidance=5.0)
    torch.testing.assert_close(same[0], draw(network, (2,))[0], rtol=1e-3, atol=1e-4)


def test_guidance_is_linear_and_rescaling_restores_the_deviation() -> None:
    negative, positive = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(guidance.guided(negative, positive, 0, 0), negative)
    torch.testing.assert_close(guidance.guided(negative, positive, 3, 0), 3 * positive - 2 * negative)
    rescaled = guidance.guided(negative, positive, 3, 1.0)
    torch.testing.assert_close(rescaled.std(dim=(1, 2, 3)), positive.std(dim=(1, 2, 3)))


def test_thresholds() -> None:
    x = (
        torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.1, 5])[:, None, None, None]
    )
    assert torch.equal(guidance.threshold(x, "none"), x)
    assert torch.equal(guidance.threshold(x, "clip"), x.clamp(-1, 1))
    for kind, share, highest in (("dynamic", 0.995, 100), ("dynamic-deepfloyd", 0.95, 1.5)):
        limit = torch.quantile(x.abs().flatten(1), share, dim=1).clamp(1, highest)[:, None, None, None]
        torch.testing.assert_close(guidance.threshold(x, kind), x.clamp(-limit, limit) / limit)


@pytest.mark.parametrize("count", [1, 2, 21, 100])
def test_quantile(count: int) -> None:
    values = torch.randn(3, count, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 0.5, 0.95, 1.0):
        torch.testing.assert_close(guidance.quantile(values, share), torch.quantile(values, share, dim=1))


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_progress_is_reported(network, name: str) -> None:
    seen = []
    text, mask = texts(1)
    sampler.sample(
        *(network, GAMMAS, SampleConfig(sampler=name, steps=3), DIFFUSION, RESOLUTIONS, text, mask, None, None),
        image_ids=[0, 1],
        seed=0,
        on_step=lambda step, steps: seen.append((step, steps)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_classes_are_guided_by_the_missing_class() -> None:
    config = nest(1, text_channels=None, text_projection=0, classes=3)
    network, gammas = awake(build(config)), schedule.levels(DIFFUSION, (8,))
    plain, guided = (
        sampler.sample(
            *(network, gammas, SampleConfig(steps=2, guidance=w), DIFFUSION, (8,), None, None, None, None),
            image_ids=[0, 1],
            seed=0,
            labels=torch.tensor([0, 2]),
            negative_labels=torch.tensor([3]),
        )[0]
        for w in (1.0, 4.0)
    )
    assert (plain - guided).abs().max() > 1e-3


def test_refusals(network) -> None:
    with pytest.raises(StudyError, match="60 sampling steps, but the schedule has 50"):
        draw(network, steps=60)
    with pytest.raises(ValueError, match="guidance needs text for both"):
        draw(network, guidance=2.0)
    with pytest.raises(ValueError, match="guidance needs a condition to guide towards"):
        sampler.sample(
            *(by_hand, GAMMAS, SampleConfig(guidance=2, steps=2), DIFFUSION, RESOLUTIONS, None, None, None, None),
            image_ids=[0], seed=0,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": "dpm++", "eta": 0.5}, "eta 0.5 has no effect with sampler: dpm\\+\\+; leave it out or write ddim"),
        ({"sampler": "ddpm", "eta": 1}, "eta 1.0 has no effect with sampler: ddpm"),
        ({"guidance_interval": (0.7, 0.3)}, r"guidance_interval \[0.7, 0.3\] is empty"),
        ({"guidance_interval": (0.1, 1.3)}, "less than or equal to 1"),
        ({"guidance_rescale": 1.5}, "less than or equal to 1"),
        ({"steps": 0}, "greater than 0"),
        ({"sampler": "euler"}, "'ddpm', 'ddim', 'dpm"),
    ],
)
def test_sampling_settings_that_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SampleConfig(**settings)


def test_without_guidance_its_settings_do_not_count() -> None:
    wanted = {"guidance_rescale": 0.5, "guidance_interval": (0.1, 0.9), "negative_prompt": "a blur"}
    assert SampleConfig(guidance=1, steps=9, **wanted).effective() == SampleConfig(steps=9)
    assert SampleConfig(guidance=2, **wanted).effective() == SampleConfig(guidance=2, **wanted)
