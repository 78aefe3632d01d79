"""Random access to the pictures, captions and labels of a finished data set."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from mdm.manifest import ArtifactError, read_json

OPEN_SHARDS = 256
NEEDED = ("digest", "samples", "resolution", "shards")


class Pictures:
    """The samples of a data folder by number 0..len-1, in the order of the manifest."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_json(self.folder / "manifest.json")
        missing = [key for key in NEEDED if key not in self.manifest]
        if missing:
            raise ArtifactError(f"{self.folder}/manifest.json lacks {', '.join(missing)}; make the data set again")
        self.resolution: int = self.manifest["resolution"]
        self._ends = np.cumsum([shard["samples"] for shard in self.manifest["shards"]])
        self._files: dict[int, list[dict[str, Any]]] = {}
        self._open: dict[int, int] = {}
        # The prefetching thread and the caller may read at the same time.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.manifest["samples"]

    def key(self, number: int) -> str:
        """The key of a sample in index.tsv."""
        return self._place(number)[1]["key"]

    def caption(self, number: int) -> str:
        return self._read(number, "txt").decode()

    def labels(self, number: int) -> dict[str, Any]:
        """What the source says is in the picture ({} where it says nothing)."""
        return json.loads(self._read(number, "json"))["labels"]

    def image(self, number: int, resolution: int | None = None) -> np.ndarray:
        """A picture as uint8 [H, W, 3], averaged down to `resolution` if one is given."""
        from PIL import Image

        place = self._place(number)[1]
        with Image.open(io.BytesIO(self._read(number, "png" if "png" in place else "jpg"))) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        if pixels.shape[:2] != (self.resolution, self.resolution):
            raise ArtifactError(
                f"{self.folder}: picture {place['key']} is {pixels.shape[1]} x {pixels.shape[0]}, the "
                f"manifest says {self.resolution} x {self.resolution}; make the data set again"
            )
        return pixels if resolution is None else shrink(pixels, resolution)

    def _place(self, number: int) -> tuple[int, dict[str, Any]]:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.folder} has samples 0 to {len(self) - 1}, not {number}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        if shard not in self._files:
            self._files[shard] = self._record(shard)
        files = self._files[shard]
        return shard, files[number - int(self._ends[shard]) + len(files)]

    def _record(self, shard: int) -> list[dict[str, Any]]:
        listed = self.manifest["shards"][shard]
        path = (self.folder / listed["file"]).with_suffix(".json")
        record = read_json(path)
        if record["sha256"] != listed["sha256"]:
            raise ArtifactError(f"{path} is not the shard that the manifest lists; run `mdm manifest` again")
        return record["files"]

    def _read(self, number: int, extension: str) -> bytes:
        shard, place = self._place(number)
        offset, size = place[extension]
        with self._lock:
            data = os.pread(self._descriptor(shard), size, offset)
        if len(data) != size:
            raise ArtifactError(f"{self.folder / self.manifest['shards'][shard]['file']} is shorter than its record")
        return data

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[shard] = os.open(self.folder / self.manifest["shards"][shard]["file"], os.O_RDONLY)
        return self._open[shard]

    def close(self) -> None:
        """Give the file descriptors back."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])


def shrink(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """Average uint8 [H, H, C] down to [resolution, resolution, C]; exact means where the ratio is whole."""
    stored = pixels.shape[0]
    if resolution == stored:
        return pixels
    if resolution > stored:
        raise ArtifactError(
            f"pictures are stored at {stored} px and cannot be shown at {resolution} px; make the data set "
            f"at {resolution} px or more"
        )
    if stored % resolution:
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.BOX))
    step = stored // resolution
    blocks = pixels.reshape(resolution, step, resolution, step, -1)
    return np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
