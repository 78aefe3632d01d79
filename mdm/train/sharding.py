"""The optimiser's moments divided among processes (ZeRO-1, Rajbhandari et al. 2020).

Every process has all weights and, after the backward pass, all gradients; each moves its own part of the weights and
keeps the moments of that part only, and then all receive what the others moved. A save holds the moments of all, so
training may go on with any other number of processes.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from mdm.train.ranks import Ranks, hand_round


def owners(sizes: Sequence[int], world: int) -> list[int]:
    """Who moves each weight: the largest first, always to the process that has the fewest numbers so far."""
    loads, found = [0] * world, [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        found[index] = min(range(world), key=lambda rank: (loads[rank], rank))
        loads[found[index]] += sizes[index]
    return found


class Shards:
    """Takes the weights of others out of this process's optimisers, and brings them back moved."""

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], ranks: Ranks) -> None:
        self._ranks = ranks
        self._parts: list[list[Tensor]] = [[] for _ in range(ranks.world)]
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                found = owners([parameter.numel() for parameter in group["params"]], ranks.world)
                for owner, parameter in zip(found, group["params"], strict=True):
                    self._parts[owner].append(parameter)
                mine = [index for index, owner in enumerate(found) if owner == ranks.rank]
                group["params"] = [group["params"][index] for index in mine]
                group["names"] = [group["names"][index] for index in mine]

    def spread(self) -> None:
        """Every process receives the weights that the others moved."""
        for owner, weights in enumerate(self._parts):
            if weights:
                hand_round(weights, owner)

    def gathered(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """The moments of all weights in the first process; only its own in the others."""
        found = dict(own)
        for owner in range(1, self._ranks.world):
            mine = {name: list(value.shape) for name, value in own.items()} if owner == self._ranks.rank else None
            shapes = self._ranks.broadcast(mine, owner)
            if not shapes:
                continue
            counts = [torch.Size(shape).numel() for shape in shapes.values()]
            if owner == self._ranks.rank:
                dist.send(torch.cat([value.detach().reshape(-1) for value in own.values()]), 0)
            elif self._ranks.first:
                flat = torch.empty(sum(counts), device=self._ranks.device)
                dist.recv(flat, owner)
                parts = zip(shapes.items(), flat.cpu().split(counts), strict=True)
                found |= {name: part.view(shape) for (name, shape), part in parts}
        return found
