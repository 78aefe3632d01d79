"""Matryoshka Diffusion Models, reproduced: one network, several resolutions, trained progressively."""

import importlib.abc
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# A torchvision built for CUDA can be imported beside a CPU-only torch. The package index has one torchvision wheel for
# Linux, and its compiled library needs CUDA: without it `import torchvision` stops at the first shape rule that it
# attaches to an operator of that library. Declaring the operators (names and argument types, no code) is enough for
# everything written in Python: transforms, models, and therefore open_clip, timm and clean-fid. Calling a compiled
# operator still fails, with torch's own message.

# The first module after torchvision has tried to load its library, and the one that needs the operators.
WATCHED = "torchvision._meta_registrations"
OPERATORS = ("nms", "qnms")
SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

# torch forgets the operators when the object that declared them is collected.
_declared: list[Any] = []


class _OperatorDeclarer(importlib.abc.MetaPathFinder):
    """Acts just before `WATCHED` is imported and leaves the finding itself to the other finders."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if fullname == WATCHED and not _declared:
            _declare_missing_operators()


def _declare_missing_operators() -> None:
    if sys.modules["torchvision.extension"]._has_ops():
        return  # this torchvision fits this torch: nothing is missing
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(SCHEMA.format(operator))
    _declared.append(library)


def declare_operators() -> None:
    """Watch for the first import of torchvision; costs nothing, and imports nothing, until then."""
    if not any(isinstance(finder, _OperatorDeclarer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OperatorDeclarer())


declare_operators()
