"""torchvision beside a CPU torch: watched for, not imported, and untouched where it fits."""

from __future__ import annotations

import subprocess
import sys

import mdm


def test_installing_twice_watches_once() -> None:
    mdm.declare_operators()
    mdm.declare_operators()
    watchers = [finder for finder in sys.meta_path if isinstance(finder, mdm._OperatorDeclarer)]
    assert len(watchers) == 1


def test_importing_mdm_loads_neither_torch_nor_torchvision() -> None:
    code = "import mdm, sys; print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_transforms_and_models_work() -> None:
    import torch
    from torchvision import models
    from torchvision.transforms import v2

    resized = v2.Resize(16, antialias=True)(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert resized.shape == (3, 16, 16)
    assert models.squeezenet1_1(num_classes=5)(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
