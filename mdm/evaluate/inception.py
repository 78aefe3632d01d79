"""Inception features: the network from a checked local file, pictures resized as clean-fid or as TensorFlow 1 does.

The two rules give distances that are 8 % apart at 64 px, so that a distance says which it used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdm.config import StudyError, WeightsConfig
from mdm.evaluate.weights import verified

WIDTH = 2048
SIDE = 299


def tf1_resize(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> float32 [299, 299, 3] as TensorFlow 1 resizes: bilinear, no antialiasing, corner to corner.

    Pixel i of the result lies at i times the ratio of the sides: without the half pixel that others add.
    """
    for axis in (0, 1):
        side = picture.shape[axis]
        place = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
        low = place.astype(int)
        share = (place - np.floor(place)).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        near, far = (np.take(picture, part, axis).astype(np.float32) for part in (low, np.minimum(low + 1, side - 1)))
        picture = near + (far - near) * share
    return picture


@dataclass(frozen=True)
class Inception:
    """uint8 pictures [B, H, W, 3] -> float32 features [B, 2048]; `classifier` [classes, 2048], if the file has one.

    The classifier's bias is left out, as it is in every published Inception Score.
    """

    features: Callable[[np.ndarray], np.ndarray]
    classifier: np.ndarray | None

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return self.features(pictures)


def load_inception(weights: WeightsConfig, device: str = "cpu", resize: str = "clean") -> Inception:
    """The network of a file, which is proved before torch is imported."""
    path = verified(weights.path, weights.sha256, "inception")
    import torch
    from cleanfid.resize import build_resizer

    script = torch.jit.load(path, map_location=device).eval()
    # clean-fid's file has the layers at the top; the copy that a package holds wraps it once more.
    whole = script if hasattr(script, "layers") else getattr(script, "net", None)
    if not hasattr(whole, "layers"):
        raise StudyError(f"inception: {path} is no TorchScript of the Inception network: it has no layers")

    resized = tf1_resize if resize == "tf1" else build_resizer("clean")

    def features(pictures: np.ndarray) -> np.ndarray:
        # Resized pictures stay floats: rounding them back to bytes moves FID.
        floats = np.stack([resized(picture) for picture in pictures]).transpose(0, 3, 1, 2).copy()
        with torch.inference_mode():
            batch = torch.from_numpy(floats).to(device)
            return whole.layers.forward((batch - 128) / 128).view(len(batch), WIDTH).cpu().numpy()

    return Inception(features, _classifier(whole))


def _classifier(network: Any) -> np.ndarray | None:
    """Weights of the last layer, as NVIDIA's file calls it."""
    named = dict(network.named_parameters()) | dict(network.named_buffers())
    found = named.get("output.weight")
    if found is None or found.ndim != 2 or found.shape[1] != WIDTH:
        return None
    return found.detach().float().cpu().numpy()
