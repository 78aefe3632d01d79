"""What training tells: one line per tick for people, JSON lines for figures, a status file for onlookers."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdm.config.sizes import Size
from mdm.config.units import clock, size
from mdm.files.atomic import append_line, write_atomic, write_json
from mdm.train.bottlenecks import Stopwatch
from mdm.train.loggers import Logger

# The facts of a line that are of the machine and the hour: two equal trainings differ in these only.
MACHINE_FACTS = ("seconds", "images_per_second", "data_wait_percent", "memory_mib", "eta_seconds")
BEAT_SECONDS = 10  # a tick may take hours: onlookers hear more often that training is alive
LINE_SECONDS = 60  # and people read a line at least so often
MARKS = 8  # speed is that of the last so many beats and ticks


@dataclass(frozen=True)
class Mark:
    """A moment to measure speed from."""

    time: float
    images: int
    waited: float


class Progress:
    """Averages losses between ticks; ticks are at fixed image counts, so a resumed log equals an unbroken one."""

    def __init__(
        self, folder: Path, resolutions: tuple[Size, ...], total: int, tick_images: int, device: torch.device
    ) -> None:
        self._history, self._status = folder / "history.jsonl", folder / "status.json"
        self.resolutions, self._total, self._tick, self._device = resolutions, total, tick_images, device
        # Count, loss, loss of each level; on the device, so that no step waits for its own numbers.
        self._sums = torch.zeros(2 + len(resolutions), dtype=torch.float64, device=device)
        self._seconds, self._begun, self._told = 0.0, time.monotonic(), time.monotonic()
        self.waits, self._loggers = Stopwatch(device), ()
        self._marks = deque([Mark(self._begun, 0, 0.0)], maxlen=MARKS)
        folder.mkdir(parents=True, exist_ok=True)

    def tensors(self) -> dict[str, Tensor]:
        """The unfinished tick: part of the training state."""
        return {"progress.sums": self._sums, "progress.seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def restore(self, tensors: dict[str, Tensor], images: int) -> None:
        """Continue at `images`: later lines of an interrupted slice are taken back."""
        if tensors:
            self._sums.copy_(tensors["progress.sums"])
            self._seconds = float(tensors["progress.seconds"])
        self._begun = time.monotonic()
        self._marks = deque([Mark(self._begun, images, self.waits.seconds())], maxlen=MARKS)
        # What the attempt before said of its speed is no longer true.
        write_json(self._status, {"images": images, "num_images": self._total})
        # Complete lines only: a kill can leave half of the last one.
        texts = self._history.read_text().splitlines(keepends=True) if self._history.exists() else []
        lines = [json.loads(text) for text in texts if text.endswith("\n")]
        kept = [line for line in lines if line["images"] <= images]
        write_atomic(self._history, "".join(json.dumps(line) + "\n" for line in kept))

    def report_to(self, loggers: Sequence[Logger]) -> None:
        self._loggers = tuple(loggers)

    @property
    def seconds(self) -> float:
        """Training seconds up to now, over all restarts."""
        return self._seconds + time.monotonic() - self._begun

    def add(self, images: int, count: int, loss: Tensor, per_level: Tensor) -> bool:
        """Count a batch; true if a tick ends with it."""
        batch = torch.cat([torch.ones_like(per_level[:1]), loss.detach().reshape(1), per_level]).double() * count
        # A loss that is no number belongs to a step that is left out, or ends training (the guards of the loop).
        self._sums += torch.where(batch.isfinite().all(), batch, 0.0)
        ends = images // self._tick > (images - count) // self._tick or images >= self._total
        if not ends and time.monotonic() - self._marks[-1].time >= BEAT_SECONDS:
            self._tell(self._facts(images))
        return ends

    def tick(self, images: int, rate: float, norm: float, validation: dict[str, list[float]] | None) -> None:
        """Write the line of a finished tick; of several held-out measurements the first continues the curve."""
        line = {**self._facts(images), "learning_rate": rate, "gradient_norm": _finite(norm, 5)}
        if validation:
            draws = {name: [_finite(x) for x in values] for name, values in validation.items()}
            line["validation"] = {name: values[0] for name, values in draws.items()}
            if any(len(values) > 1 for values in draws.values()):
                line["validation_draws"] = draws
        append_line(self._history, json.dumps(line))
        for logger in self._loggers:
            logger.numbers(images, flat(line))
        self._sums.zero_()
        self._tell(line, ended=True)

    def _facts(self, images: int) -> dict[str, Any]:
        """Where training is: the averages since the last tick, speed, waiting and memory."""
        _, loss, *levels = (self._sums / self._sums[0]).tolist()
        now, since = Mark(time.monotonic(), images, self.waits.seconds()), self._marks[0]
        passed = max(now.time - since.time, 1e-9)
        speed = (images - since.images) / passed
        self._marks.append(now)
        names = map(str, self.resolutions)
        return {
            "images": images, "seconds": round(self.seconds, 2), "loss": _finite(loss),
            "losses": dict(zip(names, map(_finite, levels), strict=True)), "images_per_second": round(speed, 2),
            "data_wait_percent": round(100 * (now.waited - since.waited) / passed, 2),
            "memory_mib": round(memory_bytes(self._device) / 2**20),
            "eta_seconds": round((self._total - images) / max(speed, 1e-9), 1),
        }  # fmt: skip

    def _tell(self, line: dict[str, Any], ended: bool = False) -> None:
        write_json(self._status, {**line, "num_images": self._total})
        if ended or time.monotonic() - self._told >= LINE_SECONDS:
            print(sentence(line, self._total), flush=True)
            self._told = time.monotonic()


def _finite(value: float, digits: int = 6) -> float | None:
    """Rounded; None for what JSON cannot hold (the guards of the loop name it)."""
    return round(value, digits) if math.isfinite(value) else None


def memory_bytes(device: torch.device) -> int:
    """The most that tensors took on a GPU so far; on a CPU what the process holds now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line by path: `loss`, `losses/64`, `validation/16`."""
    found: dict[str, float] = {}
    for key, value in line.items():
        parts = {f"{key}/{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
        found |= {name: x for name, x in parts.items() if x is not None and name != "images"}
    return found


def sentence(line: dict[str, Any], total: int) -> str:
    levels = " ".join(f"{name}px {_shown(value)}" for name, value in line["losses"].items())
    norm = f"  norm {_shown(line['gradient_norm'], 2)}" if "gradient_norm" in line else ""
    return (
        f"{line['images']:>9,}/{total:,} images  {line['images_per_second']:7.1f} images/s"
        f"  loss {_shown(line['loss'])} ({levels}){norm}  data wait {line['data_wait_percent']:.1f} %"
        f"  memory {size(line['memory_mib'] * 2**20)}  ETA {clock(line['eta_seconds'])}"
    )


def _shown(value: float | None, digits: int = 4) -> str:
    return "not finite" if value is None else f"{value:.{digits}f}"


class SilentProgress:
    """Stands where `Progress` stands in the first process."""

    def __init__(self, device: torch.device) -> None:
        self.waits, self.seconds = Stopwatch(device), 0.0

    def report_to(self, loggers: Any) -> None:
        """The first process does."""

    def add(self, *numbers: Any) -> bool:
        """The first process says when a tick ends."""
        return False

    def tick(self, *numbers: Any) -> None:
        """Nothing to tell."""

    def tensors(self) -> dict[str, Tensor]:
        """Nothing to save."""
        return {}
