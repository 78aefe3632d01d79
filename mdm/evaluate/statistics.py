"""Mean and covariance of features as a stream: batches are added, partial statistics are merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GaussianStatistics:
    """Count, mean [D] and centred second moment [D, D] (sum of outer products) in float64."""

    count: int
    mean: np.ndarray
    moment: np.ndarray

    @classmethod
    def empty(cls, width: int) -> GaussianStatistics:
        """Statistics of no features at all: the neutral element of `merge`."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, features: np.ndarray) -> GaussianStatistics:
        """Statistics of features [N, D] held in memory."""
        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or len(features) == 0:
            raise ValueError(f"features must be a table [pictures, width], but have shape {features.shape}")
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def merge(self, other: GaussianStatistics) -> GaussianStatistics:
        """Statistics of both sets together (the pairwise update of Chan, Golub and LeVeque)."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"cannot merge features of width {len(self.mean)} and {len(other.mean)}")
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        shift = other.mean - self.mean
        # Sums of squares minus squared sums would lose the digits that this form keeps.
        moment = self.moment + other.moment + np.outer(shift, shift) * (self.count * other.count / count)
        return GaussianStatistics(count, self.mean + shift * (other.count / count), moment)

    def covariance(self) -> np.ndarray:
        """Unbiased covariance [D, D]."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 pictures, but the statistics hold {self.count}")
        return self.moment / (self.count - 1)

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """Named arrays for a safetensors file."""
        return {
            f"{prefix}.count": np.array([self.count], dtype=np.int64),
            f"{prefix}.mean": self.mean,
            f"{prefix}.moment": self.moment,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str) -> GaussianStatistics:
        """The inverse of `tensors`."""
        if f"{prefix}.count" not in tensors:
            raise ValueError(f"no statistics called {prefix!r}; the file has {sorted(tensors)}")
        return cls(int(tensors[f"{prefix}.count"][0]), tensors[f"{prefix}.mean"], tensors[f"{prefix}.moment"])
