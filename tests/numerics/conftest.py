"""The golden numbers of the released model as fixtures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from released_networks import GOLDEN, Case, golden_config, with_golden_weights

from mdm.model.nested import build


@pytest.fixture(scope="session", params=["unet", "nested"])
def case(request: pytest.FixtureRequest) -> Case:
    stored = np.load(GOLDEN / f"{request.param}.npz", allow_pickle=False)
    arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "meta"}
    config = golden_config(request.param == "nested")
    return Case(config, with_golden_weights(build(config)), arrays, json.loads(bytes(stored["meta"])))


@pytest.fixture(scope="session")
def schedules() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "schedules.npz", allow_pickle=False))
