"""Gaussians fitted to a stream of features, and the Fréchet distance between them with its bias and its error."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mdm.evaluate.intervals import Estimate, groups_of, jackknife


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
    """The fixed side of many distances: mean [D], covariance [D, D] and its root, taken once."""

    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray

    @classmethod
    def of(cls, statistics: GaussianStatistics) -> Self:
        covariance = statistics.covariance()
        values, vectors = np.linalg.eigh(covariance)
        # Of fewer pictures than features it is singular: rounding makes its zeros slightly negative.
        return cls(statistics.mean, covariance, (vectors * np.sqrt(values.clip(min=0))) @ vectors.T)

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


# So many real pictures are taken for endless: their error is a tenth of that of 30,000 drawn ones or less, and each of
# their groups would cost a root of the covariance (3 s for Inception's).
ENDLESS = 10_000


def frechet_estimate(features: np.ndarray, reference: Reference, real: np.ndarray | None = None) -> Estimate:
    """Distance of features [N, D] from the reference; `real` [M, D], its features, are taken for a sample as well.

    Between finite samples it is too large, by an amount that falls with N and depends on who drew the pictures; the
    estimate knows how much. With no more pictures than features that is not so: the covariance is singular.
    """
    features = np.asarray(features, dtype=np.float64)
    found = jackknife(lambda rows: reference.distance(GaussianStatistics.of(features[rows])), len(features))
    if real is None or len(real) >= ENDLESS:
        return found
    own = GaussianStatistics.of(features)
    return replace(found, without_real=np.array([
        Reference.of(GaussianStatistics.of(np.delete(real, group, axis=0))).distance(own)
        for group in groups_of(len(real))
    ]))  # fmt: skip
