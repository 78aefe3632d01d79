"""Schedules, their shift, and the conversions between x0, epsilon and v."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mdm.config import DiffusionConfig, StudyError
from mdm.diffusion import process, schedule

STEPS = 100


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_falls_from_clean_to_noise(name: str) -> None:
    gammas = schedule.alpha_bar(name, 1000)
    assert gammas.dtype == torch.float32
    assert gammas.shape == (1001,)
    assert gammas[0] == 1
    assert (gammas.diff() < 0).all()
    assert 0 < gammas[-1] < 0.01


@pytest.mark.parametrize("name", schedule.SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 17, 5000])
def test_any_number_of_steps(name: str, steps: int) -> None:
    gammas = schedule.alpha_bar(name, steps)
    assert gammas.shape == (steps + 1,)
    assert gammas[0] == 1
    assert (gammas.double().diff() < 0).all()
    assert gammas[-1] > 0, "the log-SNR must stay finite"


def test_sigmoid_is_that_of_its_paper() -> None:
    """Chen 2023 (arXiv 2301.10972), algorithm of section 3 with start -3, end 3, tau 1, clip 1e-9."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    first, last = sigmoid(-3), sigmoid(3)
    wanted = [(last - sigmoid(6 * i / 1000 - 3)) / (last - first) for i in range(1001)]
    exact = torch.tensor([min(max(g, 1e-9), 1.0) for g in wanted], dtype=torch.double)
    assert torch.equal(schedule.alpha_bar("sigmoid", 1000), exact.float())


def test_sigmoid_is_symmetric() -> None:
    gammas = schedule.alpha_bar("sigmoid", 1000)
    torch.testing.assert_close(gammas + gammas.flip(0), torch.ones(1001))


def test_shift_divides_the_snr_and_more_for_larger_pictures() -> None:
    gammas = schedule.alpha_bar("cosine", STEPS).double()
    shifted = [schedule.shift(gammas, ratio, 1.5) for ratio in (0.5, 1, 2, 4)]
    for a, b in itertools.pairwise(shifted):
        assert a[0] == b[0] == 1
        assert (a[1:] > b[1:]).all()
        torch.testing.assert_close((b / (1 - b))[1:] * 2**1.5, (a / (1 - a))[1:])


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_shift_is_monotone_in_resolution_and_in_power(name: str) -> None:
    gammas = schedule.alpha_bar(name, STEPS)
    for shifts in (
        [schedule.shift(gammas, 4, power) for power in (0, 0.5, 1, 2, 3)],
        [schedule.shift(gammas, ratio, 2) for ratio in (1, 2, 4, 16)],
    ):
        for a, b in itertools.pairwise(shifts):
            assert (a[1:] > b[1:]).all() and a[0] == b[0] == 1
            assert (b.diff() < 0).all()


def test_shift_twice_is_shift_by_the_product() -> None:
    gammas = schedule.alpha_bar("cosine", STEPS).double()
    twice = schedule.shift(schedule.shift(gammas, 2, 1.5), 4, 1.5)
    torch.testing.assert_close(twice, schedule.shift(gammas, 8, 1.5))


def test_levels_shift_relative_to_the_base() -> None:
    plain = schedule.alpha_bar("squared-cosine", 1000)
    rows = schedule.levels(DiffusionConfig(), (64, 32, 16))
    assert torch.equal(rows[2], plain)
    assert torch.equal(rows[0], schedule.shift(plain, 4, 1))
    rows = schedule.levels(DiffusionConfig(base_resolution=16, shift_power=2), (64,))
    assert torch.equal(rows[0], schedule.shift(plain, 4, 2))
    rows = schedule.levels(DiffusionConfig(shift_power=0), (64, 16))
    assert torch.equal(rows[0], plain)


def test_every_prediction_says_the_same() -> None:
    gamma = schedule.alpha_bar("squared-cosine", STEPS).double()[torch.tensor([1, 50, 98])][:, None, None, None]
    x0, epsilon = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    x_t = process.add_noise(x0, epsilon, gamma)
    for kind, wanted in itertools.product(process.KINDS, repeat=2):
        said = process.target(kind, x0, epsilon, gamma)
        torch.testing.assert_close(process.to_x0(said, kind, x_t, gamma), x0)
        torch.testing.assert_close(process.from_x0(x0, kind, x_t, gamma), said)
        torch.testing.assert_close(
            process.convert(said, kind, wanted, x_t, gamma), process.target(wanted, x0, epsilon, gamma)
        )


@pytest.mark.parametrize("name", schedule.SCHEDULES)
def test_conversions_survive_the_ends_of_the_schedule_in_float32(name: str) -> None:
    gamma = schedule.alpha_bar(name, 1000)[torch.tensor([1, 2, 500, 990])][:, None, None, None]
    x0, epsilon = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x_t = process.add_noise(x0, epsilon, gamma)
    v = process.from_x0(x0, "v", x_t, gamma)
    torch.testing.assert_close(process.to_x0(v, "v", x_t, gamma), x0, rtol=1e-4, atol=1e-5)
    said = process.target("v", x0, epsilon, gamma)
    torch.testing.assert_close(process.convert(said, "v", "epsilon", x_t, gamma), epsilon, rtol=1e-4, atol=1e-5)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(StudyError, match="did you mean 'cosine'"):
        schedule.alpha_bar("cosin", 10)
    with pytest.raises(StudyError, match="unknown prediction 'w'"):
        process.to_x0(torch.zeros(1), "w", torch.zeros(1), 0.5)
