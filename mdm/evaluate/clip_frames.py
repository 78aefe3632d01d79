"""Clips read by networks of pictures: what their frames show, and what changes from one frame to the next.

A network of pictures sees no order. So it is also shown the differences of neighbouring frames, as pictures around grey
in which an edge that comes is of another sign than one that goes; their features in order of time tell a clip from one
that stands still, that runs backwards (where the world has a direction), or whose frames are in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdm.evaluate.extractors import Extractor
from mdm.evaluate.metric_names import DESTROYED

GREY = 128
FRAMES = 64  # read at once, as many as of pictures: 64 clips of 16 frames at 299 px would fill a laptop's memory


def of_clips(name: str, extract: Extractor, destroyed: bool = False) -> Extractor:
    """An extractor of clips uint8 [B, T, R, R, 3] from one of pictures.

    CLIP gives the score of a clip (the mean over its frames) and the cosine of neighbouring frames, others
    `frames.NAME` [B, T, D] and `motion.NAME` [B, (T - 1) D]; with `destroyed` also `frames.NAME.WAY` and
    `motion.NAME.WAY` of the same clips without their motion.
    """
    if name == "video":
        return extract
    if name == "clip":
        return _told(extract)

    def read(clips: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        found = {f"frames.{name}": _read(name, extract, clips), f"motion.{name}": _motion(name, extract, clips)}
        for way in DESTROYED if destroyed else ():
            changed = destroy(clips, way)
            found[f"frames.{name}.{way}"] = _read(name, extract, changed)
            found[f"motion.{name}.{way}"] = _motion(name, extract, changed)
        return found

    return read


def differences(clips: np.ndarray) -> np.ndarray:
    """Each frame minus the one before it, halved, around grey: uint8 [B, T - 1, R, R, 3]."""
    values = clips.astype(np.int16)
    return (GREY + ((values[:, 1:] - values[:, :-1]) >> 1)).clip(0, 255).astype(np.uint8)


def destroy(clips: np.ndarray, way: str) -> np.ndarray:
    """Clips [B, T, ...] with their motion reversed, frozen at the first frame, or in an order that nothing moves in."""
    frames = clips.shape[1]
    if way == "reversed":
        return clips[:, ::-1]
    if way == "frozen":
        return np.repeat(clips[:, :1], frames, axis=1)
    # Every second frame, then the others: no frame but one keeps its follower, and nothing is drawn at random.
    order = np.concatenate([np.arange(0, frames, 2)[::-1], np.arange(1, frames, 2)])
    return clips[:, order]


def _read(name: str, extract: Extractor, clips: np.ndarray) -> np.ndarray:
    """Features of every frame, [B, T, D]."""
    flat = clips.reshape(-1, *clips.shape[-3:])
    features = _at_once(extract, flat, [""] * len(flat))[name]
    return features.reshape(*clips.shape[:2], -1)


def _at_once(extract: Extractor, frames: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
    """What an extractor says of many frames [N, R, R, 3], some at a time."""
    parts = [extract(frames[k : k + FRAMES], captions[k : k + FRAMES]) for k in range(0, len(frames), FRAMES)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _motion(name: str, extract: Extractor, clips: np.ndarray) -> np.ndarray:
    return _read(name, extract, differences(clips)).reshape(len(clips), -1)


def _told(extract: Extractor) -> Extractor:
    """CLIP: the mean score of frames with the caption of their clip, and how alike neighbouring frames are."""

    def read(clips: np.ndarray, captions: Sequence[str]) -> dict[str, np.ndarray]:
        count = clips.shape[1]
        flat = clips.reshape(-1, *clips.shape[-3:])
        found = _at_once(extract, flat, [caption for caption in captions for _ in range(count)])
        images = found["clip"].reshape(len(clips), count, -1).astype(np.float64)
        alike = np.einsum("btd,btd->bt", images[:, 1:], images[:, :-1]).mean(axis=1)
        return {"clip.score": found["clip.score"].reshape(len(clips), count).mean(axis=1), "clip.consistency": alike}

    return read
