"""DINOv2's features on a small network of random weights: positions by their formula, pictures by Pillow, bad files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_artifacts import random_pictures
from PIL import Image
from safetensors.torch import save_file

import mdm  # noqa: F401  before transformers looks for torchvision
from mdm.config import StudyError, WeightsConfig
from mdm.evaluate.dino import CLASS, TABLE, load_dino, resized, shrunk

WIDTH = 64


def cubic(distance: np.ndarray) -> np.ndarray:
    """The kernel of cubic convolution with a = -3/4."""
    a, t = -0.75, np.abs(distance)
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def by_formula(table: np.ndarray) -> np.ndarray:
    """[1 + 37 * 37, D] -> [1 + 16 * 16, D]: place i lies at (i + 1/2) 37 / 16.1 - 1/2 of the table."""
    matrix = np.zeros((16, 37))
    for place in range(16):
        asked = (place + 0.5) * 37 / 16.1 - 0.5
        for neighbour in range(int(np.floor(asked)) - 1, int(np.floor(asked)) + 3):
            matrix[place, min(max(neighbour, 0), 36)] += cubic(np.array(asked - neighbour))
    grid = table[1:].reshape(37, 37, -1)
    small = np.einsum("ip,jq,pqd->ijd", matrix, matrix, grid)
    return np.concatenate([table[:1], small.reshape(256, -1)])


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    network = Dinov2Model(
        Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=1, image_size=518, patch_size=14)
    )
    return {name: torch.randn(t.shape) * 0.1 + (0.2 if t.ndim == 1 else 0) for name, t in network.state_dict().items()}


def stored(path: Path, tensors: dict[str, torch.Tensor]) -> WeightsConfig:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return WeightsConfig(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def test_positions_shrink_by_the_scale_factor_of_the_authors(weights: dict[str, torch.Tensor]) -> None:
    table = weights[TABLE]
    wanted = by_formula(table[0].double().numpy())
    np.testing.assert_allclose(shrunk(table)[0].numpy(), wanted, atol=2e-6)
    grid = table[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    by_size = torch.nn.functional.interpolate(grid, size=(16, 16), mode="bicubic")
    assert np.abs(by_size[0].permute(1, 2, 0).flatten(0, 1).numpy() - wanted[1:]).max() > 1e-3


def test_features_are_the_normalised_class_token(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    extract = load_dino(stored(tmp_path / "small.safetensors", weights))
    pictures = random_pictures(5, 40)
    found = extract(pictures)
    assert found.shape == (5, WIDTH) and found.dtype == np.float32
    np.testing.assert_allclose(extract(pictures[3:4]), found[3:4], atol=1e-5)
    # The network at its own size, with a table that the formula made and that takes the place of the library's.
    network = Dinov2Model(
        Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=1, image_size=518, patch_size=14)
    ).eval()
    network.load_state_dict(weights)
    positions = torch.from_numpy(by_formula(weights[TABLE][0].double().numpy())).float()[None]
    network.embeddings.interpolate_pos_encoding = lambda *_: positions
    pixels = np.stack([np.asarray(Image.fromarray(p).resize((224, 224), Image.Resampling.BICUBIC)) for p in pictures])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    batch = (batch - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    with torch.inference_mode():
        tokens = network.embeddings(batch)
        for layer in network.encoder.layer:
            tokens = layer(tokens)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        wanted = network.layernorm(tokens)[:, 0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_pictures_are_not_kept_in_their_shape_and_are_bytes() -> None:
    picture = random_pictures(1, 40)[0][:20]
    small = resized(picture)
    assert small.shape == (224, 224, 3) and small.dtype == np.uint8


def test_files_that_are_no_such_network(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="dino: no weights at"):
        load_dino(WeightsConfig(path=str(tmp_path / "none.safetensors"), sha256="0" * 64))
    pickle = tmp_path / "dinov2_vitl14_pretrain.pth"
    pickle.write_bytes(b"x")
    sha256 = hashlib.sha256(b"x").hexdigest()
    with pytest.raises(StudyError, match="pickles are not opened"):
        load_dino(WeightsConfig(path=str(pickle), sha256=sha256))
    with pytest.raises(StudyError, match="no DINOv2 of 37 x 37 positions"):
        load_dino(stored(tmp_path / "a.safetensors", {CLASS: weights[CLASS]}))
    registers = {**weights, "embeddings.register_tokens": torch.zeros(1, 4, WIDTH)}
    with pytest.raises(StudyError, match="has registers"):
        load_dino(stored(tmp_path / "b.safetensors", registers))
    less = {name: tensor for name, tensor in weights.items() if name != "layernorm.bias"}
    with pytest.raises(StudyError, match=r"does not fit a DINOv2 of 2 layers of width 64: layernorm\.bias"):
        load_dino(stored(tmp_path / "c.safetensors", less))
