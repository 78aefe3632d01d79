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
