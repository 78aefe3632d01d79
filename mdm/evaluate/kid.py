"""Kernel distance: the unbiased squared maximum mean discrepancy with the cubic polynomial kernel."""

import numpy as np

from mdm.evaluate.intervals import Estimate, groups_of

MIN_PICTURES = 10
MAX_REFERENCE = 10_000  # pictures; more cost minutes and change nothing that the interval would show
CHUNK = 1000  # rows of a kernel matrix held in memory


def polynomial_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 for features [N, D] and [M, D] -> [N, M].

    Of clips, [N, T, D] and [M, T, D], it is taken between frames, in whatever order: [N T, M T].
    """
    first, second = (side.reshape(-1, side.shape[-1]) for side in (first, second))
    return (first @ second.T / first.shape[1] + 1) ** 3


def kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    chunks = range(0, len(first), CHUNK)
    frames = first.shape[1] * second.shape[1] if first.ndim == 3 else 1
    return float(sum(polynomial_kernel(first[start : start + CHUNK], second).sum() for start in chunks)) / frames


def self_sum(features: np.ndarray) -> float:
    """Sum of the kernel of each picture with itself: these say nothing about the others and are left out."""
    if features.ndim == 3:
        products = np.einsum("ntd,nsd->nts", features, features)
        return float(((products / features.shape[2] + 1) ** 3).sum()) / features.shape[1] ** 2
    return float(((np.einsum("nd,nd->n", features, features) / features.shape[1] + 1) ** 3).sum())


def kernel_estimate(features: np.ndarray, reference: np.ndarray) -> Estimate:
    """KID of features [N, D] against [M, D] from every pair: subsets use fewer, and their overlap hides the error.

    Of clips, features [N, T, D]: the kernel of two is its mean over their frames, so that clips stay what varies.
    """
    if len(features) < MIN_PICTURES or len(reference) < MIN_PICTURES:
        raise ValueError(
            f"KID needs at least {MIN_PICTURES} pictures on each side, but there are {len(features)} and "
            f"{len(reference)} real ones; enlarge num_images in the protocol"
        )
    features = np.asarray(features, dtype=np.float64)
    places = np.linspace(0, len(reference) - 1, min(len(reference), MAX_REFERENCE)).astype(int)
    real = np.asarray(reference, dtype=np.float64)[places]
    sides = [[side[group] for group in groups_of(len(side))] for side in (features, real)]
    drawn, without_drawn = _among(sides[0])
    alike, without_alike = _among(sides[1])
    cross = np.array([[kernel_sum(mine, theirs) for theirs in sides[1]] for mine in sides[0]])
    (n, left), (m, kept) = (_counts(groups) for groups in sides)
    without = without_drawn + alike - 2 * (cross.sum() - cross.sum(axis=1)) / (left * m)
    without_real = drawn + without_alike - 2 * (cross.sum() - cross.sum(axis=0)) / (n * kept)
    return Estimate(float(drawn + alike - 2 * cross.sum() / (n * m)), without, without_real)


def _among(groups: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Mean kernel of two different pictures of one side, and without each group; every kernel is taken once."""
    everything = np.concatenate(groups)
    own = np.array([self_sum(group) for group in groups])
    inside = np.array([kernel_sum(group, group) for group in groups])
    beside = np.array([kernel_sum(group, everything) for group in groups])
    count, left = _counts(groups)
    pairs = beside.sum() - own.sum()
    # Gone with a group: its pairs with the others, counted in both orders, and the pairs inside it.
    kept = pairs - 2 * (beside - inside) - (inside - own)
    return float(pairs / (count * (count - 1))), kept / (left * (left - 1))


def _counts(groups: list[np.ndarray]) -> tuple[int, np.ndarray]:
    """How many pictures there are, and without each group."""
    sizes = np.array([len(group) for group in groups])
    return int(sizes.sum()), sizes.sum() - sizes
