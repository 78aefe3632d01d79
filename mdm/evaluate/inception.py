"""Inception features as clean-fid defines them: its resizing and its network, from a checked local file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdm.evaluate.weights import verified

WIDTH = 2048
SIDE = 299
CLEANFID_FILE = "inception-2015-12-05.pt"  # the only file name that clean-fid looks for in a folder


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


def load_inception(weights: Mapping[str, Any], device: str = "cpu") -> InceptionFeatures:
    """Load {"path", "sha256"}; a missing or different file is an error before torch is imported."""
    path = verified(weights["path"], weights["sha256"], "inception")
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CLEANFID_FILE).symlink_to(path.resolve())
        network = InceptionV3W(folder, download=False, resize_inside=False)
    return InceptionFeatures(network.to(device).eval(), build_resizer("clean"), device)
