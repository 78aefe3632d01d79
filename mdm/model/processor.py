"""Layers have ways of their own that are faster on a CPU; a GPU and a compiler do better with PyTorch's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_pretend_gpu = False


def on_cpu(x: Tensor) -> bool:
    """Whether what is computed with x may take the CPU's way."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and not _pretend_gpu


@contextmanager
def as_on(*, gpu: bool) -> Iterator[None]:
    """Inside this block tensors of the CPU are computed as a GPU would: what a simulation of its memory needs."""
    global _pretend_gpu
    before, _pretend_gpu = _pretend_gpu, gpu
    try:
        yield
    finally:
        _pretend_gpu = before
