"""Neighbours are exact, and neither blocks nor the order of pictures matter to them."""

import numpy as np
import pytest

from mdm.evaluate import neighbours as module
from mdm.evaluate.neighbours import Neighbours, Search, neighbours


def pictures(count: int, values: int, seed: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, (count, values), dtype=np.uint8)


def plain(drawn: np.ndarray, known: np.ndarray, nearest: int) -> Neighbours:
    """By the definition, one picture after the other, equal distances by number."""
    squared = np.stack([np.square(one.astype(np.int64) - known).sum(axis=1) for one in drawn])
    order = np.argsort(squared, axis=1, kind="stable")[:, :nearest]
    return Neighbours(np.take_along_axis(squared, order, axis=1), order)


def same(found: Neighbours, wanted: Neighbours) -> None:
    assert found.squared.tolist() == wanted.squared.tolist() and found.index.tolist() == wanted.index.tolist()


@pytest.mark.parametrize("gpu", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize(("values", "high"), [(192, 256), (3072, 256), (48, 3), (36_300, 256)])
def test_they_are_those_of_the_definition(values, high, gpu):
    drawn, known = pictures(9, values, 1, high), pictures(120, values, 2, high)
    known[60:64], known[-1] = drawn[:4], drawn[0]  # copies, one of them twice; with three grey levels many ties
    same(neighbours(drawn, [known], 7, gpu), plain(drawn, known, 7))


def test_extremes_do_not_overflow():
    black, white = np.zeros((1, 33_025), np.uint8), np.full((2, 33_025), 255, np.uint8)
    assert neighbours(black, [white], 2).squared.tolist() == [[33_025 * 255**2] * 2]
    longer = np.full((2, 60_000), 255, np.uint8)
    assert neighbours(np.zeros((1, 60_000), np.uint8), [longer], 1).squared.tolist() == [[60_000 * 255**2]]


@pytest.mark.parametrize("seed", range(6))
def test_blocks_tiles_and_order_do_not_matter(seed, monkeypatch):
    random = np.random.default_rng(seed)
    drawn, known = pictures(23, 75, seed, 4), pictures(200, 75, seed + 100, 4)
    wanted = neighbours(drawn, [known], 5)
    monkeypatch.setattr(module, "TILE", int(random.integers(1, 30)))
    monkeypatch.setattr(module, "BLOCK", int(random.integers(1, 60)))
    cuts = np.sort(random.integers(0, 200, 4))
    same(neighbours(drawn, np.split(known, cuts), 5), wanted)
    order, mine = random.permutation(200), random.permutation(23)
    shuffled = neighbours(drawn[mine], [known[order]], 5)
    assert (shuffled.squared == wanted.squared[mine]).all()
    for found, own in zip(order[shuffled.index], mine, strict=True):  # whichever of equal ones came first
        assert (np.square(known[found].astype(int) - drawn[own]).sum(axis=1) == wanted.squared[own]).all()


def test_pictures_that_come_ever_nearer_are_all_looked_at():
    drawn = np.zeros((2, 12), np.uint8)
    known = np.repeat(np.arange(255, 0, -1, dtype=np.uint8)[:, None], 12, axis=1)
    same(neighbours(drawn, np.array_split(known, 9), 3), plain(drawn, known, 3))


def test_fewer_pictures_than_neighbours_asked_for():
    found = neighbours(pictures(3, 12, 0), [pictures(4, 12, 1)], 50)
    assert found.squared.shape == (3, 4) and (found.index >= 0).all()


def test_copies_are_counted_in_where_each_was_asked_once():
    drawn, distinct = pictures(8, 48, 0), pictures(30, 48, 1)
    copies = np.random.default_rng(2).integers(1, 5, 30)
    found = neighbours(drawn, [distinct], 10).expanded(copies, 10)
    assert found.tolist() == neighbours(drawn, [np.repeat(distinct, copies, axis=0)], 10).squared.tolist()


def test_what_cannot_be_compared_is_refused():
    search = Search(pictures(2, 12, 0), 2)
    with pytest.raises(ValueError, match="pictures of 27 values beside drawn ones of 12"):
        search.add(pictures(2, 27, 0))
    with pytest.raises(ValueError, match="not float32; round them to uint8"):
        Search(np.zeros((2, 12), np.float32), 2)
