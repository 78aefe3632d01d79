"""How much memory a training step takes: the step itself, run on tensors without content, with every byte counted."""

import weakref
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mdm.config import DiffusionConfig, ModelConfig, SongConfig, TrainConfig
from mdm.config.sizes import Size, shape
from mdm.diffusion.loss import Part, training_loss
from mdm.diffusion.noise import spread_times
from mdm.diffusion.schedule import levels
from mdm.model import execution
from mdm.model.checkpoints import INNER
from mdm.model.networks import Network, build
from mdm.model.processor import as_on
from mdm.model.upsampler import seeing
from mdm.train.example import Example
from mdm.train.low import blank_low
from mdm.train.optim import make_optimizers
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step


@dataclass(frozen=True)
class Memory:
    """Bytes; activations by level, as they stand between the way forth and the way back."""

    parameters: int
    gradients: int
    moments: int
    average: int
    activations: dict[Size, int]
    peak: int


class Ledger(TorchDispatchMode):
    """Counts the bytes that are alive, and their peak, under the label at the time of their birth."""

    def __init__(self) -> None:
        super().__init__()
        self.label: Size | None = None
        self.alive: Counter[Size | None] = Counter()
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive[self.label] += size
        self.peak = max(self.peak, self.alive.total())
        weakref.finalize(storage, self._leave, key, self.label, size)

    def _leave(self, key: int, label: Size | None, size: int) -> None:
        self._known.discard(key)
        self.alive[label] -= size


def estimate(
    model: ModelConfig | SongConfig,
    train: TrainConfig,
    diffusion: DiffusionConfig,
    *,
    tokens: int,
    inherited: int = 0,
    recompute: Collection[Size] = (),
    on_gpu: bool = False,
    parts: int = 1,
) -> Memory:
    """Estimate a step: captions of `tokens` positions, the lowest `inherited` levels from a parent, batches in `parts`.

    From the second part on, the gradients of those before are there too. What libraries take for themselves is not
    counted: on a CPU up to half a gigabyte, and some room between tensors.
    """
    train = train.model_copy(update={"skip_nonfinite": 0})  # tensors without content are neither finite nor not
    with torch.device("meta"):
        network = build(model).to(memory_format=torch.channels_last).train()
    execution.recompute(network, recompute)
    batch, table = train.batch_images, levels(diffusion, model.resolutions)
    times = spread_times(diffusion, batch)
    with as_on(gpu=on_gpu), FakeTensorMode(), Ledger() as ledger:
        _give_storage(network)
        parameters = ledger.alive.total()
        state = fresh_state(network, train, inherited)
        average = ledger.alive.total() - parameters
        moments, gradients = _first_moments(state, ledger)
        example, gammas = _example(model, tokens, torch.empty(batch, dtype=times.dtype)), torch.empty(table.shape)

        def loss() -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=train.precision == "bf16"):
                micro = example.part(0, parts)
                inputs = micro.inputs()
                return training_loss(seeing(network, micro.low), diffusion, gammas, *inputs, part=Part(0, parts))[0]

        activations = _activations(network, loss, ledger)
        ledger.peak = 0
        training_step(state, train, diffusion, gammas, example, accumulate=parts)
    return Memory(parameters, gradients, moments, average, activations, ledger.peak)


def fresh_state(network: Network, train: TrainConfig, inherited: int) -> TrainingState:
    """Return the state of a training before its first step; the lowest `inherited` levels have a rate of their own."""
    prefix = INNER * (len(network.config.resolutions) - inherited)
    names = {name for name, _ in network.named_parameters() if inherited and name.startswith(prefix)}
    return TrainingState(network, average_of(network, train), make_optimizers(network, train, names))


def _give_storage(network: nn.Module) -> None:
    """Move weights from the meta device to a simulated one, each in its own memory layout."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype)
                    tensors[name] = nn.Parameter(new) if isinstance(old, nn.Parameter) else new


def _first_moments(state: TrainingState, ledger: Ledger) -> tuple[int, int]:
    """Run the optimisers' first step, which makes their moments; return the bytes of moments and of gradients."""
    before = ledger.alive.total()
    for parameter in state.trained:
        parameter.grad = torch.empty_like(parameter)
    gradients = ledger.alive.total() - before
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return ledger.alive.total() - before, gradients


def _example(model: ModelConfig | SongConfig, tokens: int, times: Tensor) -> Example:
    batch = len(times)
    images, noises = ([torch.empty(batch, *shape(size)) for size in model.resolutions] for _ in range(2))
    text = (torch.empty(batch, tokens, model.text_channels), torch.empty(batch, tokens)) if model.text_channels else ()
    labels = torch.empty(batch, dtype=torch.long)
    low = blank_low(model, batch)
    return Example(images, noises, times, *(text or (None, None)), labels if model.classes else None, low=low)


def _activations(network: Network, loss: Callable[[], Tensor], ledger: Ledger) -> dict[Size, int]:
    """Return the bytes that each level keeps between the forward and the backward pass of `loss`."""

    def enter(size: Size) -> Any:
        def hook(*_: Any) -> None:
            ledger.label = size

        return hook

    hooks = []
    for size, level in execution.nest(network):
        inside = [module for name, module in level.named_modules() if name and not name.startswith("inner_unet")]
        hooks += [module.register_forward_pre_hook(enter(size)) for module in inside]
    kept = loss()  # holds the activations
    ledger.label = None
    found = {size: ledger.alive[size] for size in network.config.resolutions}
    del kept
    for hook in hooks:
        hook.remove()
    return found
