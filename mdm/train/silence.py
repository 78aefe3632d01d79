"""The progress of a process that leaves the talking and the writing to the first one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mdm.train.stopwatch import Stopwatch


class Silence:
    """Stands where `Progress` stands in the first process."""

    def __init__(self, device: torch.device) -> None:
        self.waits = Stopwatch(device)

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
