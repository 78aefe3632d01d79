"""What training tells: one line per tick for people, JSON lines for figures, a status file for onlookers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.manifest import write_atomic, write_json
from mdm.sizes import Size

BEAT_SECONDS = 20


def clock(seconds: float) -> str:
    """`4:07` minutes."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """Averages losses between ticks; ticks are at fixed image counts, so a resumed log equals an unbroken one."""

    def __init__(
        self, folder: Path, resolutions: tuple[Size, ...], total: int, tick_images: int, device: torch.device
    ) -> None:
        self._history, self._status = folder / "history.jsonl", folder / "status.json"
        self.resolutions, self._total, self._tick = resolutions, total, tick_images
        # Count, loss, loss of each level; on the device, so that no step waits for its own numbers.
        self._sums = torch.zeros(2 + len(resolutions), dtype=torch.float64, device=device)
        self._seconds, self._mark, self._mark_images = 0.0, time.monotonic(), 0
        self._told = self._mark
        folder.mkdir(parents=True, exist_ok=True)

    def tensors(self) -> dict[str, Tensor]:
        """The unfinished tick: part of the training state."""
        return {"progress.sums": self._sums, "progress.seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, tensors: dict[str, Tensor], images: int) -> None:
        """Continue at `images`: later lines of an interrupted slice are taken back."""
        if tensors:
            self._sums.copy_(tensors["progress.sums"])
            self._seconds = float(tensors["progress.seconds"])
        self._mark, self._mark_images = time.monotonic(), images
        kept = [line for line in self._lines() if line["images"] <= images]
        write_atomic(self._history, "".join(json.dumps(line) + "\n" for line in kept))

    def _lines(self) -> list[dict[str, Any]]:
        """Complete lines only: a kill can leave half of the last one."""
        if not self._history.exists():
            return []
        return [json.loads(t) for t in self._history.read_text().splitlines(keepends=True) if t.endswith("\n")]

    @property
    def seconds(self) -> float:
        """Training seconds up to now, over all restarts."""
        return self._seconds + time.monotonic() - self._mark

    def add(self, images: int, count: int, loss: Tensor, per_level: Tensor) -> bool:
        """Count a batch; true if a tick ends with it."""
        self._sums += torch.cat([torch.ones_like(per_level[:1]), loss.detach().reshape(1), per_level]).double() * count
        if time.monotonic() - self._told > BEAT_SECONDS:
            self._beat(images)
        return images // self._tick > (images - count) // self._tick or images >= self._total

    def _beat(self, images: int) -> None:
        """Say between ticks that training goes on; losses stay on the device."""
        speed, eta = self._pace(images)
        now = {"images": images, "num_images": self._total, "images_per_second": round(speed, 2), "eta_seconds": eta}
        write_json(self._status, now)
        print(f"{images:>9,}/{self._total:,} images  {speed:7.1f} images/s  ETA {clock(eta)}", flush=True)
        self._told = time.monotonic()

    def _pace(self, images: int) -> tuple[float, float]:
        """Images per second since the start of this process, and seconds left."""
        speed = (images - self._mark_images) / max(time.monotonic() - self._mark, 1e-9)
        return speed, round((self._total - images) / max(speed, 1e-9), 1)

    def tick(self, images: int, rate: float, norm: float, validation: dict[str, list[float]] | None) -> None:
        """Write the line of a finished tick; of several held-out measurements the first continues the curve."""
        _, loss, *levels = (self._sums / self._sums[0]).tolist()
        names = [str(resolution) for resolution in self.resolutions]
        speed, eta = self._pace(images)
        line: dict[str, Any] = {
            "images": images, "seconds": round(self.seconds, 2), "loss": round(loss, 6),
            "losses": dict(zip(names, (round(x, 6) for x in levels), strict=True)),
            "learning_rate": rate, "gradient_norm": round(norm, 5), "images_per_second": round(speed, 2),
        }  # fmt: skip
        if validation:
            draws = {name: [round(x, 6) for x in values] for name, values in validation.items()}
            line["validation"] = {name: values[0] for name, values in draws.items()}
            if any(len(values) > 1 for values in draws.values()):
                line["validation_draws"] = draws
        with self._history.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self._sums.zero_()
        self._tell(line, speed, eta)

    def _tell(self, line: dict[str, Any], speed: float, eta: float) -> None:
        self._told = time.monotonic()
        write_json(self._status, {**line, "num_images": self._total, "eta_seconds": eta})
        levels = " ".join(f"{name}px {value:.4f}" for name, value in line["losses"].items())
        print(
            f"{line['images']:>9,}/{self._total:,} images  {speed:7.1f} images/s  loss {line['loss']:.4f} ({levels})"
            f"  norm {line['gradient_norm']:.2f}  ETA {clock(eta)}", flush=True,
        )  # fmt: skip
