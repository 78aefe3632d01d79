"""The processes that train one stage together: who they are, what they share, and what they must agree on."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mdm.config import StudyError

# One process may read a checkpoint of many gigabytes, or measure, while the others wait for it.
PATIENCE = timedelta(minutes=60)
# Jobs of a node start within seconds of one another: one that does not come has died.
GATHERING = timedelta(minutes=10)
GPUS = "MDM_GPUS"  # how many `mdm spread` was told to expect on each machine


@dataclass(frozen=True)
class Place:
    """Which process this is: of all, and on its machine."""

    rank: int
    world: int
    local: int


@dataclass(frozen=True)
class Ranks:
    """This process among `world`; in a single process everything here costs nothing and changes nothing."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def all_max(self, *numbers: int | None) -> list[int]:
        """Return the largest value of each number over all processes (None counts as 0); this waits for no device."""
        mine = [int(number or 0) for number in numbers]
        if self.world == 1:
            return mine
        found = torch.tensor(mine)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def all_sum(self, tensor: Tensor) -> Tensor:
        """Add up over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return these numbers of every process, in the order of the processes."""
        if self.world == 1:
            return [list(numbers)]
        found = torch.zeros(self.world, len(numbers), dtype=torch.float64)
        found[self.rank] = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(found)
        return found.tolist()

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """Send one process's value (JSON) to every process."""
        if self.world == 1:
            return value
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(content)])
        dist.broadcast(size, source)
        content = content if self.rank == source else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, source)
        return json.loads(content.numpy().tobytes())

    def barrier(self) -> None:
        """Return when all processes have come here."""
        self.all_max(0)


SINGLE = Ranks()


@torch.no_grad()
def hand_round(tensors: Sequence[Tensor], source: int) -> None:
    """All processes take over what these tensors hold in one of them, sent in one piece."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.broadcast(flat, source)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def place(environment: Mapping[str, str]) -> Place:
    """As torchrun says it, else as a SLURM step of several tasks says it, else alone."""
    for rank, world, local in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if world in environment:
            missing = [name for name in (rank, local) if name not in environment]
            if missing:
                raise StudyError(f"{world} is set but {missing[0]} is not: start training by torchrun or srun")
            found = Place(*(_number(environment, name) for name in (rank, world, local)))
            if found.rank >= found.world:
                raise StudyError(
                    f"{rank} is {found.rank} and {world} {found.world}: ranks go from 0 to {world} - 1; "
                    "start training by torchrun or srun"
                )
            return found
    return Place(0, 1, 0)


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise StudyError(f"{name} is {environment[name]!r}, not a number; start training by torchrun or srun")
    return int(environment[name])


def meeting_point(environment: Mapping[str, str]) -> tuple[str, int]:
    """Where the processes meet: MASTER_ADDR and MASTER_PORT, else the first node of the SLURM step."""
    address = environment.get("MASTER_ADDR") or environment.get("SLURM_LAUNCH_NODE_IPADDR")
    if not address:
        raise StudyError("several processes train together, but MASTER_ADDR does not say where they meet; use torchrun")
    if environment.get("MASTER_PORT"):
        return address, _number(environment, "MASTER_PORT")
    # Two jobs on one node must not meet each other, nor any of Linux' own ports, which begin at 32768.
    return address, 20000 + int(environment.get("SLURM_JOB_ID", 0)) % 12000


def device_of(local: int, environment: Mapping[str, str]) -> torch.device:
    """Return the GPU of a machine's process number `local`; where PyTorch sees none, the processors, with a warning."""
    there, wanted = torch.cuda.device_count() if torch.cuda.is_available() else 0, int(environment.get(GPUS, 0))
    if not there:
        if wanted and not local:
            print(
                f"warning: this training asks for {wanted} GPUs on each machine and PyTorch {torch.__version__} sees "
                "none: it goes on with the processors, many times slower. Does nvidia-smi list any?",
                flush=True,
            )
        return torch.device("cpu")
    # srun may show each process its own GPU only; torchrun shows all of them to all.
    if local >= there and (there > 1 or "LOCAL_WORLD_SIZE" in environment):
        raise StudyError(f"process {local} of this machine has no GPU: there are {there}; write gpus: {there}")
    return torch.device("cuda", local % there)


@contextmanager
def joined(environment: Mapping[str, str] = os.environ) -> Iterator[Ranks]:
    """The processes that torchrun or srun started, connected: gloo between hosts, NCCL between GPUs."""
    here = place(environment)
    device = device_of(here.local, environment)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    if here.world == 1:
        yield Ranks(device=device)
        return
    address, port = meeting_point(environment)
    store, _, _ = next(dist.rendezvous(f"tcp://{address}:{port}", here.rank, here.world, timeout=GATHERING))
    store.set_timeout(PATIENCE)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=here.rank, world_size=here.world, timeout=PATIENCE
    )
    try:
        yield Ranks(here.rank, here.world, device)
    finally:
        dist.destroy_process_group()
