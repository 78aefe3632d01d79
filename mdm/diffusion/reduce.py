"""What a lower level shows of a higher one."""

import torch.nn.functional as F
from torch import Tensor

from mdm.config.sizes import Clip, Size, as_clip


def reduced(images: Tensor, size: Size) -> Tensor:
    """Pictures [B,3,H,W], or clips [B,T,3,H,W], as a level of `size` shows them: [B,3,R,R] or [B,t,3,R,R]."""
    if images.ndim == 5:
        images = _fewer_frames(images, size)
    elif isinstance(size, Clip):
        raise ValueError(f"a clip of {size.frames} frames cannot be made from pictures {list(images.shape)}")
    ratio = images.shape[-1] // as_clip(size).resolution
    if ratio <= 1:
        return images
    pooled = F.avg_pool2d(images.flatten(0, -4), ratio)
    return pooled.unflatten(0, images.shape[:-3])


def _fewer_frames(clips: Tensor, size: Size) -> Tensor:
    # Every k-th frame, not a mean over time, which would show the low level pictures that no camera takes. The
    # released code does the same for its one case, 16 frames to 4 or 1; its step is wrong in deeper nests.
    wanted = as_clip(size).frames
    if clips.shape[1] % wanted:
        raise ValueError(f"{wanted} frames cannot be picked evenly from clips of {clips.shape[1]} frames")
    picked = clips[:, :: clips.shape[1] // wanted]
    return picked if isinstance(size, Clip) else picked[:, 0]
