"""Gradients of several processes, added up in the same order by every run.

With three or more processes the order in which an all-reduce adds up depends on where in a bucket a number lies. Plain
DistributedDataParallel lays its buckets out anew after the first backward pass of a process, so a restarted run leaves
the path of the unbroken one; here the layout follows from the list of weights alone. With find_unused_parameters=True
torch 2.13 keeps its first layout, and resumed bit for bit as well (3 and 4 processes of gloo). It was no faster
(docs/log.md has the figures), torch does not promise to keep it, and torch.compile refuses small buckets beside it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mdm.files.atomic import ArtifactError
from mdm.train.ranks import hand_round

BUCKET_BYTES = 25 * 2**20  # small enough to leave while the backward pass goes on, large enough for a network


class GradientBuckets:
    """Sends a bucket of gradients as soon as the backward pass has filled it; what comes back are the sums."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._buckets = buckets(list(parameters))
        self._missing: list[int] = []  # of each bucket; none while gradients stay at home
        self._sending: list[dist.Work] = []
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(self._filled, number))

    def begin(self) -> None:
        """All processes take over the weights of the first: other processors may have drawn other first ones."""
        for bucket in self._buckets:
            hand_round(bucket, 0)

    @contextmanager
    def adding_up(self) -> Iterator[None]:
        """Around the last backward pass of a step; after it every gradient is the sum over all processes."""
        self._missing = [len(bucket) for bucket in self._buckets]
        yield
        if any(self._missing):
            raise ArtifactError(f"{sum(self._missing)} trained weights got no gradient: the network does not use them")
        for sending in self._sending:
            sending.wait()
        self._missing, self._sending = [], []

    def _filled(self, number: int, _: Tensor) -> None:
        """A gradient is there. Buckets leave in their order, which is the same in all processes."""
        if self._missing:
            self._missing[number] -= 1
            while len(self._sending) < len(self._buckets) and not self._missing[len(self._sending)]:
                self._sending.append(_sent(self._buckets[len(self._sending)]))


def _sent(bucket: Sequence[nn.Parameter]) -> dist.Work:
    """Gradients move into one piece of memory, each in the layout of its weight, and are summed up there."""
    sizes = [parameter.numel() for parameter in bucket]
    flat = torch.empty(sum(sizes), dtype=bucket[0].dtype, device=bucket[0].device)
    for parameter, part in zip(bucket, flat.split(sizes), strict=True):
        parameter.grad = part.as_strided(parameter.size(), parameter.stride()).copy_(parameter.grad)
    return dist.all_reduce(flat, async_op=True)


def buckets(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """In reverse order, about that of the backward pass; a bucket is full when it has BUCKET_BYTES."""
    found: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        if room <= 0:
            found.append([])
            room = BUCKET_BYTES
        found[-1].append(parameter)
        room -= parameter.nbytes
    return found
