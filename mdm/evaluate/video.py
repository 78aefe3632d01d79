"""Fréchet distances of clips by networks that classify actions, from a checked file.

The number depends on the network as much as on the clips, so its name says which it was. There is no loader for I3D,
the network of most papers, in the libraries that are used here; its way of reading is kept: 16 frames of 224 px,
bilinear without antialiasing, and the answers for the 400 actions as features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mdm.config import StudyError, WeightsConfig, nearest
from mdm.config.instruments import VIDEO_NETWORKS
from mdm.evaluate.weights import verified

FRAMES, SIDE, ACTIONS = 16, 224, 400
# Colours that each was trained with, as torchvision's own weights say.
S3D = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
COLOURS = {
    "s3d": S3D,
    "mvit_v2_s": ((0.45,) * 3, (0.225,) * 3),
    "swin3d_t": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def load_video(weights: WeightsConfig, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """uint8 clips [B, T, H, W, 3] -> float32 answers [B, 400]; the file is proved before torch is imported."""
    path = verified(weights.path, weights.sha256, "video")
    if weights.model not in VIDEO_NETWORKS:
        raise StudyError(
            f"video: there is no loader for '{weights.model}'; {nearest(str(weights.model), VIDEO_NETWORKS)}"
        )
    if path.suffix != ".safetensors":
        raise StudyError(f"video: {path} is no .safetensors, and pickles are not opened; convert it first")
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from torchvision.models import video

    tensors = load_file(path)
    network = getattr(video, weights.model)(num_classes=ACTIONS)
    try:
        problems = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # tensors of other shapes
        raise StudyError(f"video: {path} does not fit torchvision's {weights.model}: {error}") from None
    if wrong := [*problems.missing_keys, *problems.unexpected_keys]:
        raise StudyError(f"video: {path} does not fit torchvision's {weights.model}: {', '.join(wrong[:3])}")
    network.eval().to(device)
    mean, deviation = (torch.tensor(part, device=device).view(3, 1, 1, 1) for part in COLOURS[weights.model])

    def features(clips: np.ndarray) -> np.ndarray:
        picked = np.ascontiguousarray(clips[:, :: clips.shape[1] // FRAMES])
        with torch.inference_mode():
            frames = torch.from_numpy(picked).to(device).permute(0, 1, 4, 2, 3).float() / 255
            small = F.interpolate(frames.flatten(0, 1), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            batch = small.unflatten(0, frames.shape[:2]).transpose(1, 2)
            return network((batch - mean) / deviation).float().cpu().numpy()

    return features
