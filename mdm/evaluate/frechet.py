"""Fréchet distance between Gaussians fitted to features, its bias and its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdm.evaluate.jackknife import Estimate, jackknife
from mdm.evaluate.statistics import GaussianStatistics


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

    @property
    def dimension(self) -> float:
        """In how many directions the features vary: that many equal variances have this covariance's spread."""
        return float(np.trace(self.covariance) ** 2 / np.square(self.covariance).sum())

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


def frechet_estimate(features: np.ndarray, reference: Reference) -> Estimate:
    """Distance of features [N, D] from the reference, which is part of the protocol and stays fixed.

    Between finite samples it is too large, by an amount that falls with N and depends on who drew the pictures; the
    estimate knows how much. With no more pictures than features that is not so: the covariance is singular.
    """
    features = np.asarray(features, dtype=np.float64)
    return jackknife(lambda rows: reference.distance(GaussianStatistics.of(features[rows])), len(features))
