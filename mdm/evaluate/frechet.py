"""Gaussians fitted to a stream of features, and the Fréchet distance between them with its bias and its error."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mdm.evaluate.intervals import Estimate, groups_of


@dataclass(frozen=True)
class GaussianStatistics:
    """Count, mean [D] and centred second moment [D, D] (sum of outer products) in float64."""

    count: int
    mean: np.ndarray
    moment: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Statistics of features [N, D] held in memory."""
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) == 0:
            raise ValueError(f"features must be a table [pictures, width], but have shape {features.shape}")
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merge(self, other: Self) -> Self:
        """Statistics of both sets together (the pairwise update of Chan, Golub and LeVeque)."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge features of width {len(self.mean)} and {len(other.mean)}")
        count = self.count + other.count
        shift = other.mean - self.mean
        # Sums of squares minus squared sums would lose the digits that this form keeps.
        moment = self.moment + other.moment + np.outer(shift, shift) * (self.count * other.count / count)
        return replace(self, count=count, mean=self.mean + shift * (other.count / count), moment=moment)

    def less(self, part: Self) -> Self:
        """Statistics without a part of the set: the inverse of `merge`."""
        count = self.count - part.count
        mean = self.mean + (self.mean - part.mean) * (part.count / count)
        shift = part.mean - mean
        moment = self.moment - part.moment - np.outer(shift, shift) * (count * part.count / self.count)
        return replace(self, count=count, mean=mean, moment=moment)

    def covariance(self) -> np.ndarray:
        """Unbiased covariance [D, D]."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 pictures, but the statistics hold {self.count}")
        return self.moment / (self.count - 1)

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        count = np.array([self.count], dtype=np.int64)
        return {f"{prefix}.count": count, f"{prefix}.mean": self.mean, f"{prefix}.moment": self.moment}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str) -> Self:
        if f"{prefix}.count" not in tensors:
            raise ValueError(f"no statistics called {prefix!r}; the file has {sorted(tensors)}")
        return cls(int(tensors[f"{prefix}.count"][0]), tensors[f"{prefix}.mean"], tensors[f"{prefix}.moment"])


@dataclass(frozen=True)
class Reference:
    """The real side of many distances: mean [D], covariance [D, D] and its root, taken once.

    `without`: what it would be without each group of its pictures; empty where it is taken for fixed.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray
    without: tuple[Self, ...] = ()

    @classmethod
    def of_pictures(cls, features: np.ndarray) -> Self:
        """From features [M, D] of real pictures, which other real pictures could have been."""
        whole, left = _leaving_out(features)
        return replace(cls.of(whole), without=tuple(map(cls.of, left)))

    @classmethod
    def of(cls, statistics: GaussianStatistics) -> Self:
        covariance = statistics.covariance()
        values, vectors = np.linalg.eigh(covariance)
        # Of fewer pictures than features it is singular: rounding makes its zeros slightly negative.
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return cls(statistics.count, statistics.mean, covariance, root)

    @property
    def dimension(self) -> float:
        """In how many directions the features vary: that many equal variances have this covariance's spread."""
        return float(np.trace(self.covariance) ** 2 / np.square(self.covariance).sum())

    def distance(self, other: GaussianStatistics) -> float:
        """Squared 2-Wasserstein distance |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

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


def frechet_estimate(features: np.ndarray, reference: Reference) -> Estimate:
    """Distance of features [N, D] from the reference.

    Between finite samples it is too large, by an amount that falls with the pictures of both and depends on who drew
    them; the estimate knows how much. With no more pictures than features that is not so: the covariance is singular.
    """
    whole, left = _leaving_out(features)
    without = [reference.distance(statistics) for statistics in left]
    without_real = [other.distance(whole) for other in reference.without]
    return Estimate(reference.distance(whole), np.array(without), np.array(without_real))


def _leaving_out(features: np.ndarray) -> tuple[GaussianStatistics, list[GaussianStatistics]]:
    """Statistics of all pictures, and of all but each group."""
    whole = GaussianStatistics.of(features)
    return whole, [whole.less(GaussianStatistics.of(features[group])) for group in groups_of(len(features))]
