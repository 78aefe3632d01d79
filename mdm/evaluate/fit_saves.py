"""Where the training of a measuring network or autoencoder stands, kept so that a killed job goes on bit for bit."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mdm.files.weights import load_weights, read_meta, save_weights

SAVE = Path("progress") / "fit.safetensors"
SAVE_SECONDS = 120.0  # between two saves: shorter trainings begin again instead


class Saves:
    """The saves of one training; without a folder there are none."""

    def __init__(
        self,
        folder: Path | None,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        noise: torch.Generator,
    ) -> None:
        self._path = folder / SAVE if folder else None
        self._module, self._optimizers, self._noise = module, optimizers, noise
        self._last = time.monotonic()

    def resume(self) -> int:
        """Take up the last save, if there is one; return the steps that need not be done again."""
        if self._path is None or not self._path.is_file():
            return 0
        kept = load_weights(self._path)
        self._module.load_state_dict(_part(kept, "module"))
        for place, optimizer in enumerate(self._optimizers):
            for number, weight in enumerate(_weights(optimizer)):
                for name, value in _part(kept, f"optimizer.{place}.{number}").items():
                    # A moment lies in memory as its weight does: sums of products depend on it.
                    same = value.shape == weight.shape
                    optimizer.state[weight][name] = torch.empty_like(weight).copy_(value) if same else value
        self._noise.set_state(kept["noise"])
        return int(read_meta(self._path)["steps"])

    def after(self, steps: int) -> None:
        """Save, if it is time to. The last step is not worth it, and its loss would be lost."""
        if self._path is None or time.monotonic() - self._last < SAVE_SECONDS:
            return
        state = {f"module.{name}": tensor for name, tensor in self._module.state_dict().items()}
        for place, optimizer in enumerate(self._optimizers):
            for number, weight in enumerate(_weights(optimizer)):
                found = optimizer.state.get(weight, {}).items()
                state |= {f"optimizer.{place}.{number}.{name}": torch.as_tensor(value) for name, value in found}
        self._path.parent.mkdir(exist_ok=True)
        save_weights(self._path, {**state, "noise": self._noise.get_state()}, {"steps": steps})
        self._last = time.monotonic()


def forget(folder: Path) -> None:
    """Remove what was saved, once all that came of the training is written."""
    (folder / SAVE).unlink(missing_ok=True)


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _part(kept: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors below a name, by the rest of theirs."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in kept.items() if key.startswith(f"{name}.")}
