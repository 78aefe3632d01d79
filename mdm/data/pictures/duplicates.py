"""Which pictures of a set are there twice: equal files, or pictures that look alike.

Two look alike if their difference hashes (64 bits: is each spot of a 9 x 8 thumbnail darker than its right neighbour?)
differ in at most `distance` bits. A picture is left out if it looks like an earlier one that was kept.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

HASH_BITS = 64
LOOK_DISTANCE = 4
MOST_SPARE_BANDS = 3


def as_keys(hashes: Iterable[str]) -> np.ndarray:
    """Shorten SHA-256 in hex to 128 bits of it, uint64 [n, 2]."""
    return np.frombuffer(b"".join(bytes.fromhex(text[:32]) for text in hashes), dtype="<u8").reshape(-1, 2)


def repeated(keys: np.ndarray) -> np.ndarray:
    """Return whether each of uint64 [n, 2] was there before, bool [n]."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: of equal keys the first comes first
    again = np.zeros(len(keys), dtype=bool)
    again[order[1:]] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    return again


def look(pixels: np.ndarray) -> int:
    thumbnail = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(thumbnail, dtype=np.int16)
    return int.from_bytes(np.packbits(values[:, :-1] < values[:, 1:]).tobytes(), "big")


def look_alikes(looks: np.ndarray, distance: int) -> np.ndarray:
    """Return whether each of uint64 [n] differs in at most `distance` bits from an earlier one that was kept."""
    _, firsts = np.unique(looks, return_index=True)
    firsts.sort()  # an equal hash that comes later is never kept: whatever decides the first decides it
    gone = np.ones(len(looks), dtype=bool)
    gone[firsts] = False
    pairs = list(_near(looks[firsts], distance))
    if pairs:
        earlier, later = np.concatenate(pairs, axis=1)
        order = np.argsort(later, kind="stable")
        for a, b in zip(firsts[earlier[order]].tolist(), firsts[later[order]].tolist(), strict=True):
            gone[b] |= not gone[a]
    return gone


def _near(values: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Yield the places of all pairs of different hashes that differ in at most `distance` bits, [2, k], earlier first.

    Of distance + e bands, two such hashes share at least e: for each choice of e bands only hashes equal there are
    compared. More bands mean more choices, each with fewer to compare.
    """
    enough = math.log2(max(len(values), 2))  # bits that tell most hashes apart
    spare = next((e for e in range(1, MOST_SPARE_BANDS) if HASH_BITS * e / (distance + e) >= enough), MOST_SPARE_BANDS)
    bands = distance + spare
    edges = [band * HASH_BITS // bands for band in range(bands + 1)]
    masks = [(1 << b) - (1 << a) for a, b in itertools.pairwise(edges)]
    for chosen in itertools.combinations(masks, spare):
        yield from _near_where(values, np.uint64(sum(chosen)), distance)


def _near_where(values: np.ndarray, mask: np.uint64, distance: int) -> Iterator[np.ndarray]:
    """Yield those of the pairs that agree in the bits of the mask."""
    order = np.argsort(values & mask, kind="stable")
    masked = values[order] & mask
    starts, step = np.arange(len(values) - 1), 1
    while len(starts):
        starts = starts[masked[starts] == masked[starts + step]]
        a, b = order[starts], order[starts + step]  # ascending: the order is stable
        near = np.bitwise_count(values[a] ^ values[b]) <= distance
        if near.any():
            yield np.stack([a[near], b[near]])
        step += 1
        starts = starts[starts + step < len(values)]


def left_out(records: Iterable[dict[str, Any]], rule: str) -> tuple[list[list[int]], dict[str, int]]:
    """Return which rows of each finished shard a rule (none, files, looks) leaves out, and how many by which reason."""
    sizes, keys, looks = [], [np.empty((0, 2), dtype="<u8")], [np.empty(0, dtype=np.uint64)]
    for record in records:
        sizes.append(record["samples"])
        if rule != "none":
            keys.append(as_keys(record["hashes"]))
        if rule == "looks":
            looks.append(np.array([int(text, 16) for text in record["looks"]], dtype=np.uint64))
    if rule == "none":
        return [[] for _ in sizes], {}
    files = repeated(np.concatenate(keys))
    gone, counts = files, {"files": int(files.sum())}
    if rule == "looks":
        gone = look_alikes(np.concatenate(looks), LOOK_DISTANCE) | files
        counts["looks"] = int(gone.sum()) - counts["files"]
    ends = np.cumsum(sizes)[:-1]
    return [np.flatnonzero(part).tolist() for part in np.split(gone, ends)], counts
