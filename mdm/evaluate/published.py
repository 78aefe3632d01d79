"""Statistics of reference pictures that others published: numbers by path and hash, never code."""

from __future__ import annotations

import zipfile

import numpy as np

from mdm.config import StudyError
from mdm.config.instruments import PublishedConfig
from mdm.evaluate.frechet import GaussianStatistics, Reference
from mdm.evaluate.inception import WIDTH
from mdm.evaluate.weights import verified

ARRAYS = ("mu", "sigma")


def published_reference(published: PublishedConfig) -> Reference:
    """The real side of a Fréchet distance; taken for fixed, for the pictures behind it are not here."""
    path = verified(published.path, published.sha256, "published")
    try:
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in ARRAYS if name not in stored]
            if missing:
                raise StudyError(f"published: {path} has no array {missing[0]}; it holds {sorted(stored.files)}")
            mean, covariance = (np.asarray(stored[name], dtype=np.float64) for name in ARRAYS)
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError(f"published: {path} is no .npz of plain numbers ({error}); pickles are not opened") from None
    if mean.shape != (WIDTH,) or covariance.shape != (WIDTH, WIDTH):
        raise StudyError(
            f"published: {path} has mu {list(mean.shape)} and sigma {list(covariance.shape)}; Inception's features "
            f"have [{WIDTH}] and [{WIDTH}, {WIDTH}]"
        )
    count = published.num_images
    return Reference.of(GaussianStatistics(count, mean, covariance * (count - 1)))


def published_said(published: PublishedConfig) -> str:
    """What stands beside the number."""
    return (
        f"; published: against the statistics with sha256 {str(published.sha256)[:12]}, of {published.num_images} "
        f"pictures ({published.preparation})"
    )
