"""DINOv2 features as FD-DINOv2 uses them: the normalised class token of a ViT without registers, from a checked file.

The table of positions is that of 37 x 37 patches (518 px). The network's authors shrink it to the 16 x 16 of 224 px by
a scale factor of (16 + 0.1) / 37, bicubic without antialiasing; libraries do it by size, or with antialiasing, and get
other features. So it is shrunk once here, and the library never has to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mdm.config import StudyError, WeightsConfig
from mdm.evaluate.weights import verified

if TYPE_CHECKING:
    from torch import Tensor

SIDE, PATCH, HEAD = 224, 14, 64
GRID, STORED = SIDE // PATCH, 37
OFFSET = 0.1  # of its authors, against rounding of the number of patches
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASS, TABLE, LAYER = "embeddings.cls_token", "embeddings.position_embeddings", "encoder.layer."


def load_dino(weights: WeightsConfig, device: str = "cpu") -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures [B, H, W, 3] -> float32 features [B, D], 1024 of ViT-L/14; the file is proved first."""
    path = verified(weights.path, weights.sha256, "dino")
    if path.suffix != ".safetensors":
        raise StudyError(
            f"dino: {path} is no .safetensors; pickles are not opened. Write the path of model.safetensors of "
            "facebook/dinov2-large (without registers)"
        )
    import torch
    from safetensors.torch import load_file

    network = _network(load_file(path), str(path)).eval().to(device)
    mean, deviation = (torch.tensor(part, device=device).view(3, 1, 1) for part in (MEAN, DEVIATION))

    def features(pictures: np.ndarray) -> np.ndarray:
        small = np.stack([resized(picture) for picture in pictures])
        with torch.inference_mode():
            batch = torch.from_numpy(small).to(device).permute(0, 3, 1, 2).float() / 255
            return network(pixel_values=(batch - mean) / deviation).pooler_output.float().cpu().numpy()

    return features


def resized(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [224, 224, 3] by Pillow's bicubic filter, rounded to bytes as the metric's code does."""
    return np.array(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def shrunk(table: Tensor) -> Tensor:
    """Positions [1, 1 + 37 * 37, D] -> [1, 1 + 16 * 16, D] by the rule of the network's authors."""
    import torch
    import torch.nn.functional as F

    grid = table[:, 1:].float().unflatten(1, (STORED, STORED)).permute(0, 3, 1, 2)
    scale = (GRID + OFFSET) / STORED
    small = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([table[:, :1].float(), small.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _network(tensors: Mapping[str, Tensor], where: str) -> Any:
    """The blocks of transformers for 224 px, whose sizes are read from the weights."""
    from transformers import Dinov2Config, Dinov2Model

    found = {name.removeprefix("dinov2."): tensor for name, tensor in tensors.items()}
    if CLASS not in found or TABLE not in found or found[TABLE].shape[1] != 1 + STORED**2:
        raise StudyError(
            f"dino: {where} is no DINOv2 of {STORED} x {STORED} positions in the names of transformers "
            f"({CLASS}, {TABLE}, ...); write the path of model.safetensors of facebook/dinov2-large"
        )
    if any("register" in name for name in found):
        raise StudyError(f"dino: {where} has registers, and FD-DINOv2 is of the network without; name that one")
    width = found[CLASS].shape[-1]
    layers = len({name[len(LAYER) :].partition(".")[0] for name in found if name.startswith(LAYER)})
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // HEAD), image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip
    network = Dinov2Model(config)
    named = {**found, TABLE: shrunk(found[TABLE])}
    problems = network.load_state_dict(named, strict=False)
    missing = [name for name in problems.missing_keys if "mask_token" not in name]
    if missing or problems.unexpected_keys:
        wrong = ", ".join([*missing, *problems.unexpected_keys][:3])
        raise StudyError(f"dino: {where} does not fit a DINOv2 of {layers} layers of width {width}: {wrong}")
    return network.float()
