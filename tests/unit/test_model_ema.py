"""The average of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mdm.model import ema


def test_beta() -> None:
    assert ema.beta(100, 1000, 10**9) == pytest.approx(0.5**0.1)
    assert ema.beta(100, 1000, 100, ramp_ratio=None) == pytest.approx(0.5**0.1)
    assert ema.beta(100, 1e9, 100) == pytest.approx(0.5**20)  # the first batch replaces the fresh weights
    assert ema.beta(100, 0, 100) == 0
    halflife_of_the_released_decay = 32 * math.log(0.5) / math.log(0.9999)
    assert ema.beta(32, halflife_of_the_released_decay, 0, ramp_ratio=None) == pytest.approx(0.9999)


def test_average_follows_the_definition() -> None:
    network, expected = nn.Linear(2, 2), torch.zeros(2, 2)
    with torch.no_grad():
        network.weight.zero_()
    average = ema.Ema(network, halflife_images=40, ramp_ratio=None)
    for step in range(1, 6):
        with torch.no_grad():
            network.weight.fill_(step)
        average.update(10, step * 10)
        kept = 0.5**0.25
        expected = kept * expected + (1 - kept) * step
    torch.testing.assert_close(average.state_dict()["weight"], expected)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_a_power_function_average_has_the_width_asked_for(width: float) -> None:
    """The weight of each step, read off an average of unit vectors; the width is the deviation of their times."""
    steps, exponent = 2000, ema.power_exponent(width)
    weights, kept = torch.zeros(steps, dtype=torch.float64), 1.0
    for step in range(steps, 0, -1):
        beta = ema.power_beta(8, exponent, 8 * step)
        weights[step - 1], kept = kept * (1 - beta), kept * beta
    assert kept == 0 and weights.sum().item() == pytest.approx(1)
    times = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    mean = (weights * times).sum()
    assert (weights * (times - mean) ** 2).sum().sqrt().item() == pytest.approx(width, rel=5e-3)
    # A power function of the time of each step's middle.
    assert (weights[1599] / weights[799]).item() == pytest.approx((1599.5 / 799.5) ** exponent, rel=1e-3)


def test_known_exponents_of_power_functions() -> None:
    """Karras et al. 2024 give 6.94 for a width of 0.1 and 16.97 for 0.05."""
    assert ema.power_exponent(0.1) == pytest.approx(6.94, abs=5e-3)
    assert ema.power_exponent(0.05) == pytest.approx(16.97, abs=5e-3)
    for wrong in (0, 0.3):
        with pytest.raises(ValueError, match=r"is not between 0 and 0\.2887"):
            ema.power_exponent(wrong)


def test_a_power_function_average_follows_the_network() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = ema.Ema(network, width=0.1)
    for step in range(1, 51):
        with torch.no_grad():
            network.weight.fill_(step)
        average.update(8, 8 * step)
        if step == 1:
            assert average.state_dict()["weight"].item() == 1
    # The mean of t^p on 0..50 is 50 (p+1) / (p+2).
    assert average.state_dict()["weight"].item() == pytest.approx(50 * 7.94 / 8.94, abs=0.6)
    with pytest.raises(ValueError, match="give one of them"):
        ema.Ema(network, 1.0, width=0.1)


def test_half_of_the_distance_after_one_halflife() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = ema.Ema(network, halflife_images=64, ramp_ratio=None)
    with torch.no_grad():
        before = network.weight.clone()
        network.weight.add_(1)
    for step in range(8):
        average.update(8, step * 8)
    torch.testing.assert_close(average.state_dict()["weight"], before + 0.5)


def test_applied_lends_the_average_and_gives_it_back() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = ema.Ema(network, 64)
    before = network.weight.item()
    with torch.no_grad():
        network.weight.add_(1)
    with average.applied():
        assert network.weight.item() == pytest.approx(before)
    assert network.weight.item() == pytest.approx(before + 1)
    assert average.state_dict()["weight"].item() == pytest.approx(before)


def test_state_of_another_network_is_refused() -> None:
    average = ema.Ema(nn.Linear(1, 1), 64)
    average.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.ones(1)})
    assert average.state_dict()["weight"].item() == 1
    with pytest.raises(ValueError, match="another network"):
        average.load_state_dict({"weight": torch.ones(1, 1)})
