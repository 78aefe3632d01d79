"""Weights on disk, strict loading, growing."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from test_model_build import awake, inputs, level, nest, some_text

from mdm.config import StudyError
from mdm.files.atomic import ArtifactError
from mdm.files.weights import load_weights, read_meta, save_weights, state_hash
from mdm.model.checkpoints import grow, inner_state, load_into
from mdm.model.nested import build


def test_round_trip(tmp_path) -> None:
    state = awake(build(nest(1))).to(memory_format=torch.channels_last).state_dict()
    digest = save_weights(tmp_path / "weights.safetensors", state, {"images": 12})
    loaded = load_weights(tmp_path / "weights.safetensors")
    assert digest == state_hash(loaded) == state_hash(state)
    assert read_meta(tmp_path / "weights.safetensors") == {"images": 12}
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_the_file_is_what_the_library_writes_and_the_same_each_time(tmp_path) -> None:
    state = {
        "byte": torch.arange(3, dtype=torch.uint8), "scalar": torch.tensor(2.5), "half": torch.ones(3).half(),
        "brain": torch.ones(2, 2, dtype=torch.bfloat16), "double": torch.ones(1, dtype=torch.double),
        "none": torch.zeros(0, 4), "flag": torch.tensor([True, False]), "spread": torch.ones(1).expand(2, 3),
        "whole": torch.tensor([-7]), "name with \"quotes\" é": torch.zeros(1),
    }  # fmt: skip
    first, second = tmp_path / "a", tmp_path / "b"
    save_weights(first, state, {"b": 1, "a": [2]})
    save_weights(second, dict(reversed(state.items())), {"a": [2], "b": 1})
    assert first.read_bytes() == second.read_bytes()
    loaded = safetensors.torch.load(first.read_bytes())
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    (tmp_path / "plain").touch()
    assert first.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("meta", ["{not json", "[1]", "3", "[" * 100_000], ids=len)
def test_a_note_that_is_not_ours_is_said(tmp_path, meta: str) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"meta": meta})
    with pytest.raises(ArtifactError, match="`meta` in its header is not a JSON object"):
        read_meta(tmp_path / "a.safetensors")


def test_hash_sees_names_shapes_and_values() -> None:
    a = torch.arange(6.0)
    hashes = {state_hash(s) for s in ({"a": a}, {"b": a}, {"a": a.view(2, 3)}, {"a": a + 1}, {"a": a.double()})}
    assert len(hashes) == 5


def test_damage_is_noticed(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.zeros(1000)})
    content = path.read_bytes()
    path.write_bytes(content[:-8] + b"\1" * 8)
    with pytest.raises(ArtifactError, match="damaged"):
        load_weights(path)
    path.write_bytes(content[:100])
    with pytest.raises(ArtifactError, match="not a complete safetensors file"):
        load_weights(path)
    with pytest.raises(ArtifactError, match="does not exist"):
        load_weights(tmp_path / "none.safetensors")


def test_strict_loading_lists_every_difference() -> None:
    network = build(nest(1))
    state = network.state_dict()
    state["extra"] = state.pop("conv_in.bias")
    state["conv_in.weight"] = torch.zeros(1, 3, 3, 3)
    state["norm_out.bias"] = state["norm_out.bias"].bfloat16()
    with pytest.raises(ArtifactError) as caught:
        load_into(network, state, "the weights in a.safetensors")
    assert str(caught.value).splitlines() == [
        "the weights in a.safetensors do not fit this network:",
        "  1 missing:",
        "    conv_in.bias (32,)",
        "  1 unexpected:",
        "    extra (32,)",
        "  1 of the wrong shape:",
        "    conv_in.weight (1, 3, 3, 3) instead of (32, 3, 3, 3)",
        "  1 of the wrong type:",
        "    norm_out.bias bfloat16 instead of float32",
    ]


def test_long_lists_of_differences_are_counted_and_cut() -> None:
    with pytest.raises(ArtifactError) as caught:
        load_into(build(nest(1)), {})
    lines = str(caught.value).splitlines()
    count = len(build(nest(1)).state_dict())
    assert lines[1] == f"  {count} missing:" and lines[-1] == f"    ... and {count - 30} more" and len(lines) == 33


@pytest.mark.parametrize(("before", "after"), [(1, 2), (1, 3), (2, 3), (2, 2)])
def test_grown_levels_leave_the_inner_predictions_alone(before: int, after: int) -> None:
    small, large = nest(before), nest(after)
    parent = awake(build(small))
    state = grow(parent.state_dict(), small, large, seed=3)
    assert state_hash(inner_state(state, after - before)) == state_hash(parent.state_dict())
    grown = build(large).eval()
    load_into(grown, state)
    pictures, times = inputs(large)
    said = grown(pictures, times, *some_text())[after - before :]
    for a, b in zip(said, parent(pictures[after - before :], times, *some_text()), strict=True):
        assert torch.equal(a, b)


def test_growing_is_refused_where_the_inside_differs() -> None:
    parent = build(nest(2)).state_dict()
    with pytest.raises(StudyError, match="only 1"):
        grow(parent, nest(2), nest(1))
    with pytest.raises(StudyError, match="mask_text: True became False"):
        grow(parent, nest(2), nest(3, mask_text=False))
    normalised = nest(2).model_copy(update={"levels": (nest(2).levels[0], level(16, normalize_input=True))})
    grow(parent, nest(2), normalised.model_copy(update={"levels": (*normalised.levels, level(32))}))
    with pytest.raises(ArtifactError, match="missing"):
        grow({k: v for k, v in parent.items() if "conv_in" not in k}, nest(2), nest(3))
