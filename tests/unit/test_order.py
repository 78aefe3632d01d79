"""The order of samples: every epoch complete, every place found at once, nothing but seed and manifest behind it."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from mdm.data.batches.order import WINDOW_IMAGES, Order, draws


@pytest.mark.parametrize("case", range(40))
def test_every_epoch_shows_every_sample_once(case):
    """Over random numbers, sizes (some zero) and windows of shards."""
    rng = np.random.default_rng(case)
    shards = rng.integers(0, 40, rng.integers(1, 30))
    shards[rng.integers(len(shards))] = 1 + case
    order = Order(shards.tolist(), seed=case, window_images=int(rng.integers(1, 200)))
    assert order.total == shards.sum()
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(order.numbers(epoch * order.total, order.total)), np.arange(order.total))


def test_any_place_equals_the_uninterrupted_run():
    order, rng = Order([7, 30, 1, 12, 50], 3, window_images=20), np.random.default_rng(0)
    whole = order.numbers(0, 450)
    for start in rng.integers(0, 400, 200):
        count = int(rng.integers(0, 50))
        fresh = Order([7, 30, 1, 12, 50], 3, window_images=20)
        np.testing.assert_array_equal(fresh.numbers(int(start), count), whole[start : start + count])


def test_epochs_and_seeds_differ():
    rows = [tuple(Order([64], seed).numbers(epoch * 64, 64)) for seed in range(4) for epoch in range(4)]
    assert len(set(rows)) == 16


def test_the_order_is_frozen():
    """Weights depend on it: raise RECIPE_VERSION in the commit that changes it."""
    numbers = Order([1000] * 200, 0).numbers(190_000, 30_000)
    assert hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()[:16] == "59304882ef62b585"


def test_windows_read_few_shards_and_mix_them():
    order = Order([100] * 50, 0, window_images=1000)
    epoch = order.numbers(0, 5000)
    for start in range(0, 5000, 1000):
        shards = epoch[start : start + 1000] // 100
        assert len(set(shards)) == 10 and np.abs(np.diff(shards)).mean() > 1
        here, following = order.shards_near(start + 500)
        assert set(here) == set(shards) and len(following) == 5
        after = order.numbers(start + 1000, 1000) // 100
        assert set(following) <= set(after)


def test_a_place_far_inside_twelve_million_needs_one_window_of_memory():
    tracemalloc.start()
    order = Order([10_000] * 1200, 0)
    numbers = order.numbers(10_000_000, 1024)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(numbers)) == 1024 and numbers.max() < 12_000_000
    assert len(set(numbers // 10_000)) <= WINDOW_IMAGES // 10_000 + 1 and peak < 12e6


def test_shuffles_are_even():
    """Each sample at each place about equally often: chi-square of 4000 epochs of 8 samples."""
    order = Order([8], 0)
    places = order.numbers(0, 8 * 4000).reshape(4000, 8)
    counts = np.stack([np.bincount(column, minlength=8) for column in places.T])
    assert ((counts - 500) ** 2 / 500).sum() < 100  # 49 degrees of freedom: the 99.998 % point


def test_draws_depend_on_every_part_of_the_key():
    places = np.arange(1000)
    found = [draws(places, *key) for key in ((0, 1), (1, 0), (0, 1, 0), ("0", "x"))]
    assert len({part.tobytes() for part in found}) == 4
    assert abs(found[0].astype(float).mean() / 2**64 - 0.5) < 0.03
