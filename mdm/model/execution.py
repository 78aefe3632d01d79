"""How a network is computed, not what: activations made twice instead of kept, operations fused by a compiler."""

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from mdm.config import StudyError
from mdm.config.sizes import Size
from mdm.model.attention import PixelAttention
from mdm.model.blocks import ResidualBlock
from mdm.model.nested import NestedUNet
from mdm.model.networks import Network
from mdm.model.song import SongNest
from mdm.model.song_layers import Block


@dataclass(frozen=True)
class Execution:
    """Levels that compute their activations twice, what torch.compile fuses, in how many parts a batch is taken, and
    whether processes share the optimiser's moments."""

    recompute: tuple[Size, ...] = ()
    compile: str = "none"
    accumulate: int = 1
    shard_optimizer: bool = False

    def apply(self, network: Network, device: torch.device) -> None:
        recompute(network, self.recompute)
        compile_network(network, self.compile, device)


PLAIN = Execution()


def nest(network: Network) -> Iterator[tuple[Size, Network]]:
    """The networks of all levels and what they show, highest resolution first."""
    if isinstance(network, SongNest):
        yield network.config.resolution, network
        return
    yield network.level.size, network
    if isinstance(network, NestedUNet):
        yield from nest(network.inner_unet)


def recompute(network: Network, sizes: Collection[Size]) -> None:
    """Keep only the inputs of the blocks of these levels for the way back, and compute the rest a second time."""
    known = dict(nest(network))
    if unknown := [str(size) for size in sizes if size not in known]:
        levels = ", ".join(map(str, known))
        raise StudyError(f"recompute {', '.join(unknown)}: the network has the levels {levels}; write some of these")
    for size, level in known.items():
        for part in _recomputing(level):
            part.recompute = size in sizes


def _recomputing(level: Network) -> list[Any]:
    """What can be told to compute its blocks twice."""
    return [level] if isinstance(level, SongNest) else [*level.down_blocks, *level.mid_blocks, *level.up_blocks]


def compile_network(network: Network, extent: str, device: torch.device) -> None:
    """Let torch.compile fuse each block, or the whole network; without a working compiler say so and change nothing."""
    if extent == "none":
        return
    problem = _compiler_problem(device)
    if problem:
        print(f"warning: torch.compile does not work here, so nothing is compiled: {problem}", file=sys.stderr)
        return
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock | PixelAttention | Block)]
    # Sizes never change while a network trains, but differ from block to block: one program for each.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * len(blocks))
    for module in blocks if extent == "blocks" else [network]:
        module.compile(dynamic=False)


def _compiler_problem(device: torch.device) -> str:
    """The first line of what compiling the smallest function says, or nothing."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises; it is shown to the user
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""
