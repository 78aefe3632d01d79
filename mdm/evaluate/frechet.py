"""Fréchet distance between Gaussians fitted to features, its interval, and its floor on real pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdm.evaluate.statistics import GaussianStatistics

# A resample of 2048 features costs a second of linear algebra, one of 64 a millisecond.
RESAMPLES_NARROW, RESAMPLES_WIDE, NARROW_WIDTH = 200, 20, 256


def symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix [D, D]."""
    values, vectors = np.linalg.eigh(matrix)
    # A covariance of fewer pictures than features is singular: rounding makes its zeros slightly negative.
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


@dataclass(frozen=True)
class Reference:
    """The fixed side of many distances: mean [D], covariance [D, D] and its root, taken once."""

    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, statistics: GaussianStatistics) -> Reference:
        """Prepare statistics for `distance`."""
        covariance = statistics.covariance()
        return cls(statistics.mean, covariance, symmetric_root(covariance))

    def distance(self, other: GaussianStatistics) -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

        tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), so
        no general matrix root is needed: that is slow, may turn complex, and scipy 1.18 drops its error flag.
        """
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"features of width {len(self.mean)} cannot be compared with width {len(other.mean)}")
        covariance = other.covariance()
        product = self.root @ covariance @ self.root
        eigenvalues = np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)
        shift = self.mean - other.mean
        spread = np.trace(self.covariance) + np.trace(covariance) - 2 * np.sqrt(eigenvalues).sum()
        return float(max(0.0, shift @ shift + spread))


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """Fréchet distance (squared 2-Wasserstein distance) between two fitted Gaussians."""
    return Reference.of(first).distance(second)


def resamples_for(width: int) -> int:
    """How many bootstrap resamples features of this width can afford."""
    return RESAMPLES_NARROW if width <= NARROW_WIDTH else RESAMPLES_WIDE


def frechet_with_interval(
    features: np.ndarray, reference: GaussianStatistics, seed: int, resamples: int | None = None
) -> tuple[float, float, float]:
    """Distance of features [N, D] from the reference with a bootstrap interval over the N pictures.

    The reference is part of the protocol and stays fixed. A resample holds fewer distinct pictures than the
    sample, which alone adds distance; so the spread of the resamples is used and not their level.
    """
    features = np.asarray(features, dtype=np.float64)
    prepared = Reference.of(reference)
    value = prepared.distance(GaussianStatistics.of(features))
    count, width = features.shape
    generator = np.random.default_rng([seed, count])
    replicates = [
        prepared.distance(GaussianStatistics.of(features[generator.integers(0, count, count)]))
        for _ in range(resamples or resamples_for(width))
    ]
    low, high = np.quantile(replicates, [0.025, 0.975]) - np.mean(replicates)
    return value, max(0.0, value + low), value + high


def frechet_floor(features: np.ndarray, pictures: int, seed: int, splits: int) -> tuple[float, float, float]:
    """Distance of some real pictures from the other real ones: what a perfect model would be given.

    The first part holds `pictures` of them, the size of the sample it is compared with (half of all at most),
    because distances between finite samples grow as they shrink. Mean and range over seeded splits.
    """
    size = min(len(features) // 2, pictures)
    if size < 2:
        raise ValueError(f"a floor needs at least 4 real pictures, but there are {len(features)}")
    generator = np.random.default_rng([seed, len(features), size])
    distances = []
    for _ in range(splits):
        order = generator.permutation(len(features))
        parts = [GaussianStatistics.of(features[part]) for part in (order[:size], order[size:])]
        distances.append(frechet_distance(*parts))
    low, high = np.quantile(distances, [0.025, 0.975])
    return float(np.mean(distances)), float(low), float(high)
