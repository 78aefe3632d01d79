"""SSCD features (Pizzi et al. 2022), trained to know copies again, from a checked local TorchScript file."""

from collections.abc import Callable

import numpy as np

from mdm.config import WeightsConfig
from mdm.evaluate.weights import verified

SIDE = 288  # of its authors' transformation, whose colours are those of ImageNet
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_sscd(weights: WeightsConfig, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures [B, H, W, 3] -> float32 features [B, D]; the weights are proved before torch is imported."""
    path = verified(weights.path, weights.sha256, "sscd")
    import torch
    import torch.nn.functional as F

    network = torch.jit.load(path, map_location=device).eval()
    mean, deviation = (torch.tensor(part, device=device).view(3, 1, 1) for part in (MEAN, DEVIATION))

    def features(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float() / 255
            batch = F.interpolate(batch, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            return network((batch - mean) / deviation).float().cpu().numpy()

    return features
