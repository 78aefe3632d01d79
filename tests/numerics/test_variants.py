"""Outputs and gradients of the released code for settings that its own configurations do not use.

golden/variants.npz was made by running apple/ml-mdm (commit de8cde2) unchanged, outside this repository, in float64:
`cases` (JSON) holds each model section, what the call was given besides, and nothing else; arrays are
`{case}.{level}`, the predictions (highest level first), and `{case}.gradients`, of the products of predictions and
fixed random pictures: the norm of each parameter's gradient, in the order of their names. Weights follow from their
names (golden/README.md), everything else from one seed.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from released_networks import GOLDEN, with_golden_weights
from torch import Tensor, nn

from mdm.config import ModelConfig
from mdm.model.nested import build

STORED = np.load(GOLDEN / "variants.npz", allow_pickle=False)
CASES = json.loads(bytes(STORED["cases"]))
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def answers(name: str, dtype: torch.dtype) -> tuple[nn.Module, list[Tensor]]:
    """The network of a case after its way back, and its predictions."""
    case, batch, generator = CASES[name], 3, torch.Generator().manual_seed(7)
    config = ModelConfig(**case["model"])
    network = with_golden_weights(build(config)).to(dtype, memory_format=torch.channels_last)
    shapes = [(batch, 3, r, r * case.get("wide", 1)) for r in config.resolutions]
    pictures, upstream = ([torch.randn(s, generator=generator).to(dtype) for s in shapes] for _ in range(2))
    text = mask = None
    if config.text_channels:
        mask = (torch.arange(6) < torch.tensor([[6], [2], [1]])).to(dtype)
        text = torch.randn(batch, 6, config.text_channels, generator=generator).to(dtype) * mask[:, :, None]
    micros = {key: torch.tensor(values) for key, values in case.get("micros", {}).items()}
    said = network(pictures, torch.tensor([0, 444, 999]), text, None if case.get("no_mask") else mask, micros)
    torch.stack([(p * u).sum() for p, u in zip(said, upstream, strict=True)]).sum().backward()
    return network, said


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_predictions_and_gradients(name: str, dtype: torch.dtype) -> None:
    network, said = answers(name, dtype)
    for level, ours in enumerate(said):
        golden = torch.from_numpy(STORED[f"{name}.{level}"]).to(dtype)
        assert (ours - golden).abs().max() <= TOLERANCE[dtype] * golden.abs().max()
    norms = np.array([float(p.grad.norm()) for _, p in sorted(network.named_parameters())])
    # The sinusoids of times and micros are float32 whatever the network is.
    np.testing.assert_allclose(norms, STORED[f"{name}.gradients"], rtol=1e-5, atol=1e-6 * norms.max())
