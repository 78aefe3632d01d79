"""The loss over levels: weights, mixed batches, min-SNR, noise."""

from __future__ import annotations

import pytest
import torch

from mdm.config import DiffusionConfig, StudyError
from mdm.diffusion import loss, noise, process, schedule

RESOLUTIONS = (16, 8)
BATCH = 6


def batch() -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    images = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    config = DiffusionConfig()
    noises = noise.training_noises(config, 0, range(BATCH), RESOLUTIONS)
    return loss.pyramid(images, RESOLUTIONS), noise.training_times(config, 0, range(BATCH)), noises


def silent(pictures, times, text=None, mask=None, labels=None):
    """A network that always answers zero."""
    return [torch.zeros_like(x) for x in pictures]


def compute(**settings: object) -> tuple[torch.Tensor, torch.Tensor]:
    config = DiffusionConfig(**settings)
    images, times, noises = batch()
    return loss.training_loss(silent, config, schedule.levels(config, RESOLUTIONS), images, times, noises)


def test_pyramid_is_a_chain_of_means() -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    chain = loss.pyramid(image, (32, 16, 4))
    assert [x.shape[-1] for x in chain] == [32, 16, 4]
    torch.testing.assert_close(chain[2][0, 0, 0, 0], image[0, 0, :8, :8].mean())
    assert [x.shape[-1] for x in loss.pyramid(image, (8, 4))] == [8, 4]
    with pytest.raises(ValueError, match=r"32 x 32 px cannot be pooled to widths \[24\]"):
        loss.pyramid(image, (24,))


@pytest.mark.parametrize("kind", process.KINDS)
def test_a_network_that_knows_the_answer_has_no_loss(kind: str) -> None:
    config = DiffusionConfig(prediction=kind, loss_on=kind)
    images, times, noises = batch()
    gammas = schedule.levels(config, RESOLUTIONS)

    def oracle(pictures, times, text, mask, labels):
        rows = zip(images, noises, gammas, strict=True)
        return [process.target(kind, x, e, g[times + 1][:, None, None, None]) for x, e, g in rows]

    total, per_level = loss.training_loss(oracle, config, gammas, images, times, noises)
    assert total == 0
    assert per_level.tolist() == [0, 0]


def test_loss_on_epsilon_is_gamma_times_the_loss_on_v() -> None:
    images, times, noises = batch()
    config = DiffusionConfig()
    gamma = schedule.levels(config, RESOLUTIONS)[0][times + 1][:, None, None, None]
    parts = (images[0], noises[0], process.add_noise(images[0], noises[0], gamma), gamma)
    on_epsilon, on_v = (
        loss.picture_losses(torch.zeros_like(images[0]), DiffusionConfig(loss_on=kind), *parts)
        for kind in ("epsilon", "v")
    )
    torch.testing.assert_close(on_epsilon, gamma.flatten() * on_v)


def test_level_weights() -> None:
    plain, per_level = compute()
    torch.testing.assert_close(plain, per_level.sum())
    weighted, unweighted = compute(level_weights=(4.0, 0.5))
    assert torch.equal(unweighted, per_level)
    torch.testing.assert_close(weighted, 4 * per_level[0] + 0.5 * per_level[1])
    with pytest.raises(StudyError, match="level_weights has 3 entries for a stage of 2 levels"):
        compute(level_weights=(1, 1, 1))


def test_mixed_ratio_keeps_the_expectation_of_the_high_level() -> None:
    config = DiffusionConfig(mixed_ratio=(2, 1), loss_on="v")
    assert loss.level_rows(config, 2, BATCH) == [4, 6]
    images, times, noises = batch()
    gammas = schedule.levels(config, RESOLUTIONS)
    seen = []

    def watching(pictures, *args, **kwargs):
        seen.append([len(x) for x in pictures])
        return silent(pictures, *args)

    _, per_level = loss.training_loss(watching, config, gammas, images, times, noises)
    gamma = gammas[0][times[:4] + 1][:, None, None, None]
    expected = process.target("v", images[0][:4], noises[0][:4], gamma).square().mean()
    torch.testing.assert_close(per_level[0], expected)  # 4 rows / (2/3 of 6) = a plain mean over its rows
    assert seen == [[4, 6]]
    with pytest.raises(StudyError, match="use a batch of at least 2"):
        loss.level_rows(config, 2, 1)


def test_shares_of_three_levels_and_a_single_one() -> None:
    assert loss.level_shares(DiffusionConfig(mixed_ratio=(1, 1, 2)), 3) == [0.25, 0.5, 1.0]
    assert loss.level_rows(DiffusionConfig(), 3, 5) == [5, 5, 5]


@pytest.mark.parametrize("loss_on", process.KINDS)
@pytest.mark.parametrize("kind", process.KINDS)
def test_loss_and_min_snr_of_every_kind_one_picture_at_a_time(kind: str, loss_on: str) -> None:
    """Hang et al. 2023: min(SNR, c) on x0, min(SNR, c) / SNR on epsilon, min(SNR, c) / (SNR + 1) on v."""
    images, _, noises = batch()
    images, noises = [x.double() for x in images], [e.double() for e in noises]
    times = torch.tensor([0, 40, 200, 500, 800, 950])
    config = DiffusionConfig(prediction=kind, loss_on=loss_on, min_snr=5.0)
    gammas = schedule.levels(config, RESOLUTIONS).double()
    answer = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()

    def network(pictures, times, *args, **kwargs):
        return [answer[:, :, : x.shape[2], : x.shape[3]] for x in pictures]

    total, _ = loss.training_loss(network, config, gammas, images, times, noises)
    wanted = 0.0
    for level, gamma_of_time in enumerate(gammas.tolist()):
        for k, time in enumerate(times.tolist()):
            g, x0, e = gamma_of_time[time + 1], images[level][k], noises[level][k]
            said = network([images[level]], None)[0][k]
            x = g**0.5 * x0 + (1 - g) ** 0.5 * e
            # What the answer says about the clean picture and about the noise.
            clean = {
                "x0": lambda g=g, x=x, said=said: said,
                "epsilon": lambda g=g, x=x, said=said: (x - (1 - g) ** 0.5 * said) / g**0.5,
                "v": lambda g=g, x=x, said=said: g**0.5 * x - (1 - g) ** 0.5 * said,
            }[kind]()
            epsilon = (x - g**0.5 * clean) / (1 - g) ** 0.5
            error = {
                "x0": clean - x0,
                "epsilon": epsilon - e,
                "v": (g**0.5 * epsilon - (1 - g) ** 0.5 * clean) - (g**0.5 * e - (1 - g) ** 0.5 * x0),
            }[loss_on]
            snr = g / (1 - g)
            weight = {"x0": min(snr, 5), "epsilon": min(snr, 5) / snr, "v": min(snr, 5) / (snr + 1)}[loss_on]
            wanted += weight * error.square().mean().item() / BATCH
    assert total.item() == pytest.approx(wanted, rel=1e-9)
    assert compute(min_snr=5.0)[0] < compute()[0]


def test_min_snr_says_the_same_whatever_the_loss_is_on() -> None:
    """A network that predicts x0 has the same weighted loss on x0, epsilon and v."""
    images, _, noises = batch()
    times = torch.tensor([0, 40, 200, 500, 800, 950])
    losses = []
    for loss_on in process.KINDS:
        config = DiffusionConfig(prediction="x0", loss_on=loss_on, min_snr=5.0)
        parts = [x.double() for x in images], times, [e.double() for e in noises]
        losses.append(loss.training_loss(silent, config, schedule.levels(config, RESOLUTIONS).double(), *parts)[0])
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[2], losses[0])


def test_default_weights_are_the_rule_of_the_paper() -> None:
    """w_r / w_R = N_R / N_r on summed errors, N the number of values, r the level and R the highest."""
    images, times, noises = batch()
    config = DiffusionConfig(loss_on="v")
    gammas = schedule.levels(config, RESOLUTIONS)
    summed = 0.0
    for x0, e, row in zip(images, noises, gammas, strict=True):
        g = row[times + 1][:, None, None, None]
        target = g.sqrt() * e - (1 - g).sqrt() * x0  # the silent network says zero
        weight = images[0][0].numel() / x0[0].numel()
        summed += weight * target.square().sum() / BATCH
    total, _ = loss.training_loss(silent, config, gammas, images, times, noises)
    torch.testing.assert_close(total, summed / images[0][0].numel())


def test_training_noise_belongs_to_the_image_counter() -> None:
    config = DiffusionConfig()
    whole = noise.training_noises(config, 7, range(10, 16), RESOLUTIONS)
    part = noise.training_noises(config, 7, range(12, 14), RESOLUTIONS)
    assert all(torch.equal(a[2:4], b) for a, b in zip(whole, part, strict=True))
    assert not torch.equal(whole[0], noise.training_noises(config, 8, range(10, 16), RESOLUTIONS)[0])
    times = noise.training_times(config, 7, range(4000))
    assert torch.equal(times[5:9], noise.training_times(config, 7, range(5, 9)))
    assert times.min() >= 0
    assert times.max() < 1000
    assert abs(times.double().mean() - 499.5) < 20
    # Neighbouring counters use neighbouring seeds: their draws must not be related.
    normal = noise.normal("noise", 7, range(4000), (4,))
    assert abs((normal[1:] * normal[:-1]).mean()) < 0.03
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03


def test_noises_of_different_levels_are_independent() -> None:
    high, low = noise.training_noises(DiffusionConfig(), 0, range(64), RESOLUTIONS)
    pooled = high.unfold(2, 2, 2).unfold(3, 2, 2).sum(dim=(-1, -2)) / 2
    assert abs((pooled * low).mean()) < 0.03


def test_shared_noise_is_pooled_and_still_of_unit_variance() -> None:
    high, low = noise.training_noises(DiffusionConfig(shared_noise=True), 0, range(64), RESOLUTIONS)
    torch.testing.assert_close(low[0, 0, 0, 0], high[0, 0, :2, :2].sum() / 2)
    assert abs(low.std() - 1) < 0.02
