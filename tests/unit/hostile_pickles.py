"""Objects whose unpickling would act, and classes that are gone when a file is read."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class Acts:
    """Unpickling this calls a function; `pickle` sees only what it returns here."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def attacks(marker: Path) -> dict[str, Acts]:
    """Ways to make the file `marker` while a pickle is read."""
    return {
        "system": Acts(os.system, f"touch {marker}"),
        "eval": Acts(eval, f"open({str(marker)!r}, 'w').close()"),
        "process": Acts(subprocess.run, ["touch", str(marker)]),
        "nested": Acts(getattr, Acts(eval, f"open({str(marker)!r}, 'w')"), "closed"),
    }


@contextmanager
def classes_of_the_trainer() -> Iterator[tuple[Any, Any]]:
    """An instance and an enum member of a module that exists only inside this block."""
    module = types.ModuleType("ml_mdm.models.unet")
    module.UNetConfig = dataclass(type("UNetConfig", (), {"__annotations__": {"width": int}}))
    module.Schedule = Enum("Schedule", ["DEEPFLOYD", "DDPM"], module=module.__name__)
    module.UNetConfig.__module__ = module.__name__
    parents = {name: types.ModuleType(name) for name in ("ml_mdm", "ml_mdm.models")}
    sys.modules.update(parents | {module.__name__: module})
    try:
        yield module.UNetConfig(width=3), module.Schedule.DDPM
    finally:
        for name in (*parents, module.__name__):
            del sys.modules[name]
