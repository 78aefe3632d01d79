"""Released files of DDPM++ and NCSN++ to ours and back: exact, with or without the prefix of preconditioned nets."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_model_convert import model_file, nest

from mdm import cli
from mdm.config import SongConfig, StudyError
from mdm.config.song import ARCHITECTURES
from mdm.files.atomic import ArtifactError
from mdm.files.weights import load_weights, read_meta, state_hash
from mdm.model.convert import convert
from mdm.model.growth import grow_file
from mdm.model.nested import build as nested
from mdm.model.networks import build


def config(arch: str = "ncsn++", **settings: object) -> SongConfig:
    shape = {"resolution": 8, "channels": 16, "multipliers": (2, 2), "blocks": 1, "attention": (4,), "classes": 5}
    return SongConfig(family="song", **ARCHITECTURES[arch] | shape | settings)


def released(path: Path, state: dict[str, torch.Tensor], prefix: str) -> Path:
    """A file of the U-Net, or (with `model.`) of the preconditioned network."""
    renamed = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(renamed, path)
    else:
        torch.save({"state_dict": renamed} if path.suffix == ".pth" else renamed, path)
    return path


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors"])
@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_there_and_back_again(tmp_path: Path, arch: str, prefix: str, name: str, capsys) -> None:
    network = build(config(arch), 3)
    theirs = released(tmp_path / name, network.state_dict(), prefix)
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    convert(theirs, model_file(tmp_path, config(arch)), ours)
    assert ("every name began with 'model.'" in capsys.readouterr().out) is bool(prefix)
    assert state_hash(load_weights(ours)) == state_hash(network.state_dict())
    assert SongConfig(**read_meta(ours)["model"]) == config(arch)
    convert(ours, None, back)
    loaded = torch.load(back, weights_only=True)["state_dict"]
    assert list(loaded) == [f"{prefix}{name}" for name in network.state_dict()]
    assert all(torch.equal(loaded[f"{prefix}{name}"], tensor) for name, tensor in network.state_dict().items())


def test_through_the_command_line(tmp_path: Path, capsys) -> None:
    theirs = released(tmp_path / "a.pth", build(config()).state_dict(), "model.")
    model, out = model_file(tmp_path, config()), tmp_path / "b.safetensors"
    assert cli.main(["convert", str(theirs), "--model", model, "--out", str(out)]) == 0
    assert "every name and shape fits" in capsys.readouterr().out


def test_other_networks_are_refused(tmp_path: Path) -> None:
    theirs = released(tmp_path / "a.pth", build(config()).state_dict(), "")
    with pytest.raises(
        ArtifactError, match=r"(?s)do not fit this network.*enc.8x8_conv.weight \(16, 3, 3, 3\) instead"
    ):
        convert(theirs, model_file(tmp_path, config(channels=32)), tmp_path / "b.safetensors")
    with pytest.raises(ArtifactError, match="do not fit this network"):
        convert(theirs, model_file(tmp_path, nest(1)), tmp_path / "b.safetensors")


def test_filters_must_be_those_of_the_configuration(tmp_path: Path) -> None:
    """They stand in the file, but the network computes with its own."""
    state = build(config()).state_dict()
    state["enc.4x4_down.conv0.resample_filter"] = torch.full((1, 1, 4, 4), 1 / 16)
    theirs = released(tmp_path / "a.pth", state, "")
    with pytest.raises(ArtifactError, match=r"enc.4x4_down.conv0.resample_filter is .*, but the filter \[1, 3, 3, 1\]"):
        convert(theirs, model_file(tmp_path, config()), tmp_path / "b.safetensors")


def test_a_file_that_does_not_say_which_network_it_is(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not say which network"):
        convert(released(tmp_path / "a.pth", build(config()).state_dict(), ""), None, tmp_path / "b.safetensors")


def test_they_do_not_grow(tmp_path: Path) -> None:
    ours = tmp_path / "ours.safetensors"
    convert(released(tmp_path / "a.pth", build(config()).state_dict(), ""), model_file(tmp_path, config()), ours)
    with pytest.raises(StudyError, match="have one level and do not grow"):
        grow_file(ours, model_file(tmp_path, nest(2)), tmp_path / "grown.safetensors")


def test_the_prefix_of_nested_networks_is_none_of_ours(tmp_path: Path) -> None:
    """Only this family drops it: names of a nest are the reference's as they are."""
    theirs = released(tmp_path / "a.pth", nested(nest(1)).state_dict(), "model.")
    with pytest.raises(ArtifactError, match="unexpected"):
        convert(theirs, model_file(tmp_path, nest(1)), tmp_path / "b.safetensors")
