"""Kernel distance: the unbiased squared maximum mean discrepancy with the cubic polynomial kernel."""

import numpy as np

from mdm.evaluate.intervals import Estimate, groups_of

MIN_PICTURES = 10
MAX_REFERENCE = 10_000  # pictures; more cost minutes and change nothing that the interval would show
CHUNK = 1000  # rows of a kernel matrix held in memory


def polynomial_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(x.y / D + 1)^3 for features [N, D] and [M, D] -> [N, M]."""
    return (first @ second.T / first.shape[1] + 1) ** 3


def kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
    chunks = range(0, len(first), CHUNK)
    return float(sum(polynomial_kernel(first[start : start + CHUNK], second).sum() for start in chunks))


def self_sum(features: np.ndarray) -> float:
    """Sum of the kernel of each picture with itself: these say nothing about the others and are left out."""
    return float(((np.einsum("nd,nd->n", features, features) / features.shape[1] + 1) ** 3).sum())


def kernel_estimate(features: np.ndarray, reference: np.ndarray) -> Estimate:
    """KID of features [N, D] against [M, D] from every pair: subsets use fewer, and their overlap hides the error."""
    if len(features) < MIN_PICTURES or len(reference) < MIN_PICTURES:
        raise ValueError(
            f"KID needs at least {MIN_PICTURES} pictures on each side, but there are {len(features)} and "
            f"{len(reference)} real ones; enlarge num_images in the protocol"
        )
    features = np.asarray(features, dtype=np.float64)
    places = np.linspace(0, len(reference) - 1, min(len(reference), MAX_REFERENCE)).astype(int)
    real = np.asarray(reference, dtype=np.float64)[places]
    groups = [features[group] for group in groups_of(len(features))]
    # Every kernel is taken once: those of all pictures are sums over the groups.
    own = np.array([self_sum(group) for group in groups])
    inside = np.array([kernel_sum(group, group) for group in groups])
    beside = np.array([kernel_sum(group, features) for group in groups])
    cross = np.array([kernel_sum(group, real) for group in groups])
    n, left = len(features), len(features) - np.array([len(group) for group in groups])
    pairs = beside.sum() - own.sum()
    # Gone with a group: its pairs with the others, counted in both orders, and the pairs inside it.
    kept = pairs - 2 * (beside - inside) - (inside - own)
    value = pairs / (n * (n - 1)) - 2 * cross.sum() / (n * len(real))
    without = kept / (left * (left - 1)) - 2 * (cross.sum() - cross) / (left * len(real))
    among_real = (kernel_sum(real, real) - self_sum(real)) / (len(real) * (len(real) - 1))
    return Estimate(float(value + among_real), without + among_real)
