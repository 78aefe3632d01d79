"""One shard of embedded captions: a safetensors file, written in one pass and read where it lies on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mdm.data.text.encoder import Encoder, Unloaded
from mdm.files.arrays import HEADER_BYTES, Mapped, header
from mdm.files.atomic import ArtifactError, replacing

BATCH = 256
HALVES = {torch.float16: "F16", torch.bfloat16: "BF16"}
KINDS = {name: kind for kind, name in HALVES.items()}


def write_shard(path: Path, captions: Sequence[str], encoder: Encoder | Unloaded) -> tuple[int, int]:
    """Encode the captions in this order, packed without padding; returns all tokens and the longest caption's."""
    lengths: list[Tensor] = []
    with replacing(path) as stream:
        stream.write(bytes(8 + HEADER_BYTES))
        for start in range(0, len(captions), BATCH):
            features, mask = encoder.encode(captions[start : start + BATCH])
            lengths.append(mask.sum(dim=1).long().cpu())
            kept = features[mask.bool()]
            half = kept.to(encoder.stored).cpu()
            if not half.isfinite().all():
                raise ArtifactError(
                    f"the encoder's features reach {float(kept.abs().max()):.3g}, which {encoder.stored} cannot hold; "
                    "write stored: bfloat16 in the encoder's settings"
                )
            stream.write(half.view(torch.uint8).numpy())
        tokens = torch.cat(lengths).numpy()
        texts = [caption.encode() for caption in captions]
        rest = {
            "offsets": _ends(tokens),
            "text_offsets": _ends(np.array([len(text) for text in texts])),
            "texts": np.frombuffer(b"".join(texts), np.uint8),
        }
        for array in rest.values():
            stream.write(array.tobytes())
        total = int(tokens.sum())
        stream.seek(0)
        stream.write(header({"features": (HALVES[encoder.stored], 2, (total, encoder.channels))}, rest))
    return total, int(tokens.max())


def _ends(lengths: np.ndarray) -> np.ndarray:
    """Return where each part begins, and where the last one ends, int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype("<i8")


class Shard:
    def __init__(self, path: Path) -> None:
        mapped = Mapped(path)
        self._features, self._kind = mapped.array("features"), KINDS[mapped.kind("features")]
        self._offsets, self._text_offsets = mapped.array("offsets"), mapped.array("text_offsets")
        self._texts = mapped.array("texts")
        self.channels: int = self._features.shape[1]

    def text(self, row: int) -> bytes:
        return self._texts[self._text_offsets[row] : self._text_offsets[row + 1]].tobytes()

    def features(self, row: int) -> Tensor:
        """Return the features of a row, [tokens, D], as stored."""
        bits = np.array(self._features[self._offsets[row] : self._offsets[row + 1]])
        return torch.from_numpy(bits).view(self._kind)
