"""Inception features as clean-fid defines them: its resizing and its network, from a checked local file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mdm.config import StudyError, WeightsConfig
from mdm.evaluate.weights import verified

if TYPE_CHECKING:
    import torch

WIDTH = 2048
SIDE = 299


class InceptionFeatures:
    """uint8 pictures [B, H, W, 3] -> float32 features [B, 2048], clean-fid's `clean` mode."""

    def __init__(self, network: Callable[[Any], Any], resize: Callable[[np.ndarray], np.ndarray], device: str) -> None:
        self._network, self._resize, self._device = network, resize, device

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        import torch

        # Bicubic with antialiasing on floats, not rounded back to bytes: the rounding moves FID.
        resized = np.stack([self._resize(picture) for picture in pictures])
        with torch.inference_mode():
            batch = torch.from_numpy(resized.transpose(0, 3, 1, 2).copy()).to(self._device)
            return self._network(batch).cpu().numpy()


def load_inception(weights: WeightsConfig, device: str = "cpu") -> InceptionFeatures:
    """Load {"path", "sha256"}; a missing or different file is an error before torch is imported."""
    path = verified(weights.path, weights.sha256, "inception")
    import torch
    from cleanfid.resize import build_resizer

    script = torch.jit.load(path, map_location=device).eval()
    # clean-fid's file has the layers at the top; the copy that a package holds wraps it once more.
    whole = script if hasattr(script, "layers") else getattr(script, "net", None)
    if not hasattr(whole, "layers"):
        raise StudyError(f"inception: {path} is no TorchScript of the Inception network: it has no layers")

    def features(pictures: torch.Tensor) -> torch.Tensor:
        return whole.layers.forward((pictures - 128) / 128).view(len(pictures), WIDTH)

    return InceptionFeatures(features, build_resizer("clean"), device)
