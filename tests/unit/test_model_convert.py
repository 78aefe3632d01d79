"""`mdm convert` and `mdm grow`: exact both ways, and refused with every difference listed."""

from __future__ import annotations

import argparse
import collections
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile_pickles import attacks, classes_of_the_trainer
from test_model_build import awake, innermost, inputs, level, nest, released_shapes, some_text

from mdm import cli
from mdm.config import ModelConfig, StudyError
from mdm.files.atomic import ArtifactError, write_json
from mdm.files.hashes import sha256_file
from mdm.files.weights import load_weights, read_meta, save_weights, state_hash
from mdm.model.checkpoints import load_into
from mdm.model.convert import convert, fitting_state, read_source
from mdm.model.growth import grow_file
from mdm.model.nested import build
from mdm.model.presets import PRESETS, named

WITHOUT_TEXT = {"text_channels": None, "text_projection": 0}
KINDS = {
    "one level": nest(1),
    "nested": nest(2),
    "three levels": nest(3, text_layers=1),
    "classes": nest(2, **WITHOUT_TEXT, classes=4),
    "text and classes": nest(2, classes=4),
    "unconditional": nest(3, **WITHOUT_TEXT),
    "text as it is": nest(2, text_projection=0),
}


def model_file(folder: Path, config: ModelConfig, name: str = "model.json") -> str:
    write_json(folder / name, config.model_dump(mode="json"))
    return str(folder / name)


def trainers_file(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A file as the reference's trainer writes it, from a process that has the reference's classes."""
    with classes_of_the_trainer() as (config, schedule):
        arguments = argparse.Namespace(model=config, schedule=schedule, folder=Path("/somewhere"))
        numbers = {"batch_num": 10, "loss": 0.5, "best_avg_loss": np.float64(0.25), "exp_avg_loss": np.float64(1)}
        torch.save({"state_dict": collections.OrderedDict(state), **numbers, "args": arguments}, path)
    return path


def predictions(config: ModelConfig, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    network = build(config).eval()
    load_into(network, state)
    text = some_text() if config.text_channels else (None, None)
    labels = torch.tensor([0, 1, config.classes]) if config.classes else None
    return network(*inputs(config), *text, labels=labels)


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_again(tmp_path, kind: str) -> None:
    config, theirs, ours, back = KINDS[kind], tmp_path / "a.pth", tmp_path / "b.safetensors", tmp_path / "c.pth"
    state = awake(build(config)).state_dict()
    convert(trainers_file(theirs, state), model_file(tmp_path, config), ours)
    assert state_hash(load_weights(ours)) == state_hash(state)
    meta = read_meta(ours)
    assert ModelConfig(**meta["model"]) == config
    assert meta["converted"] == {"file": "a.pth", "sha256": sha256_file(theirs), "layout": "torch.save, zip"}
    convert(ours, None, back)  # the configuration is in the file
    loaded = torch.load(back, weights_only=True)
    assert list(loaded) == ["state_dict"] and isinstance(loaded["state_dict"], collections.OrderedDict)
    assert list(loaded["state_dict"]) == list(state) and state_hash(loaded["state_dict"]) == state_hash(state)
    for said, expected in zip(predictions(config, load_weights(ours)), predictions(config, state), strict=True):
        assert torch.equal(said, expected)


def test_the_same_input_makes_the_same_bytes(tmp_path) -> None:
    state, model = build(nest(1)).state_dict(), model_file(tmp_path, nest(1))
    trainers_file(tmp_path / "a.pth", state)
    for name in ("one", "two"):
        convert(tmp_path / "a.pth", model, tmp_path / f"{name}.safetensors")
        convert(tmp_path / "one.safetensors", None, tmp_path / f"{name}.pth")
    for ending in ("safetensors", "pth"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_the_configuration_in_a_file_can_be_replaced(tmp_path, capsys) -> None:
    state, other = build(nest(1)).state_dict(), nest(1, mask_text=False)
    save_weights(tmp_path / "a.safetensors", state, {"model": nest(1).model_dump(mode="json"), "recipe": "r8-1"})
    convert(tmp_path / "a.safetensors", model_file(tmp_path, other), tmp_path / "b.safetensors")
    assert "another configuration" in capsys.readouterr().out
    meta = read_meta(tmp_path / "b.safetensors")
    assert ModelConfig(**meta["model"]) == other and meta["recipe"] == "r8-1"
    convert(tmp_path / "b.safetensors", model_file(tmp_path, other), tmp_path / "c.safetensors")
    assert "another configuration" not in capsys.readouterr().out


def test_only_what_is_wanted_is_in_the_new_file(tmp_path) -> None:
    """Weights that are parts of a large storage, as a trainer with flat buffers would save them."""
    state = build(nest(1)).state_dict()
    flat = torch.cat([torch.zeros(10**6), *(tensor.flatten() for tensor in state.values())])
    parts = dict(zip(state, flat[10**6 :].split([t.numel() for t in state.values()]), strict=True))
    trainers_file(tmp_path / "a.pth", {name: parts[name].view(tensor.shape) for name, tensor in state.items()})
    model = model_file(tmp_path, nest(1))
    for out in (tmp_path / "b.pth", tmp_path / "b.safetensors"):
        convert(tmp_path / "a.pth", model, out)
        assert state_hash(read_source(out).state) == state_hash(state)
        assert out.stat().st_size < (tmp_path / "a.pth").stat().st_size - 3 * 10**6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_said(tmp_path, capsys, dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in awake(build(nest(1))).state_dict().items()}
    convert(trainers_file(tmp_path / "a.pth", state), model_file(tmp_path, nest(1)), tmp_path / "b.safetensors")
    loaded = load_weights(tmp_path / "b.safetensors")
    assert all(loaded[name].dtype == torch.float32 and torch.equal(loaded[name], state[name]) for name in state)
    assert f"{len(state)} half-precision tensors are widened to float32" in capsys.readouterr().out


def test_other_types_are_refused(tmp_path) -> None:
    state = {name: tensor.double() for name, tensor in build(nest(1)).state_dict().items()}
    save_weights(tmp_path / "a.safetensors", state)
    with pytest.raises(ArtifactError, match="float64 instead of float32"):
        convert(tmp_path / "a.safetensors", model_file(tmp_path, nest(1)), tmp_path / "b.pth")


def test_hostile_classes_beside_the_weights_do_nothing(tmp_path) -> None:
    marker, state = tmp_path / "it-ran", build(nest(1)).state_dict()
    hostile = attacks(marker)
    system = hostile.pop("system")
    torch.save({"state_dict": state, "args": hostile, "ema": [hostile["eval"]]}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", model_file(tmp_path, nest(1)), tmp_path / "b.safetensors")
    assert state_hash(load_weights(tmp_path / "b.safetensors")) == state_hash(state)
    for value, message in {
        hostile["eval"]: r"conv_in.bias'\] is what .*eval would make \(it was not run\)",
        system: r"nothing in it was run: it names .*system, which no file of weights needs",
    }.items():
        torch.save({"state_dict": state | {"conv_in.bias": value}}, tmp_path / "a.pth")
        with pytest.raises(ArtifactError, match=message):
            convert(tmp_path / "a.pth", model_file(tmp_path, nest(1)), tmp_path / "c.safetensors")
    assert not marker.exists() and not (tmp_path / "c.safetensors").exists()


def test_every_difference_is_listed_and_nothing_is_written(tmp_path, capsys) -> None:
    state = build(nest(2)).state_dict()
    state["inner_unet.extra"] = state.pop("inner_unet.conv_in.bias")
    state["conv_in.weight"] = torch.zeros(1, 3, 3, 3)
    trainers_file(tmp_path / "a.pth", state)
    out = tmp_path / "b.safetensors"
    arguments = ["convert", str(tmp_path / "a.pth"), "--model", model_file(tmp_path, nest(2)), "--out", str(out)]
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"mdm convert: the weights in {tmp_path / 'a.pth'} do not fit this network:",
        "  1 missing:",
        "    inner_unet.conv_in.bias (32,)",
        "  1 unexpected:",
        "    inner_unet.extra (32,)",
        "  1 of the wrong shape:",
        "    conv_in.weight (1, 3, 3, 3) instead of (32, 3, 3, 3)",
    ]
    assert not out.exists()


@pytest.mark.parametrize("change", [{"text_channels": 24}, {"text_channels": 24, "text_projection": 0}])
def test_another_text_encoder_is_named(tmp_path, change) -> None:
    trainers_file(tmp_path / "a.pth", build(nest(2, **change)).state_dict())
    model = model_file(tmp_path, nest(2, **(change | {"text_channels": 16})))
    with pytest.raises(ArtifactError, match="features of width 24, the configuration says text_channels: 16"):
        convert(tmp_path / "a.pth", model, tmp_path / "b.safetensors")


@pytest.mark.parametrize("name", ["64", "256", "1024"])
def test_the_published_networks_fit_their_presets(tmp_path, name: str) -> None:
    """All names and shapes in a small file: each tensor repeats one number, and checking must not write it out."""
    state = {key: torch.ones(1).expand(shape) for key, shape in released_shapes(name).items()}
    path = trainers_file(tmp_path / "a.pth", state)
    assert path.stat().st_size < 2**20
    source = read_source(path)
    fitting = fitting_state(source, PRESETS[f"released-{name}"](), "a.pth")
    assert {key: tuple(tensor.shape) for key, tensor in fitting.items()} == released_shapes(name)
    assert all(tensor.untyped_storage().nbytes() < 2**20 for tensor in fitting.values()), "nothing was made large"


def test_the_preset_that_fits_is_named(tmp_path) -> None:
    state = {key: torch.ones(1).expand(shape) for key, shape in released_shapes("256").items()}
    with pytest.raises(ArtifactError) as caught:
        convert(trainers_file(tmp_path / "a.pth", state), "released-64", tmp_path / "b.safetensors")
    lines = str(caught.value).splitlines()
    assert lines[-1] == "they fit --model released-256"
    missing, unexpected = (
        len(released_shapes(a).keys() - released_shapes(b).keys()) for a, b in (("64", "256"), ("256", "64"))
    )
    assert {f"  {missing} missing:", f"  {unexpected} unexpected:"} <= set(lines)
    assert len(lines) < 100 and sum(line.startswith("    ... and ") for line in lines) == 3
    state = {key: torch.ones(1).expand(shape) for key, shape in released_shapes("64").items()}
    state["lm_proj.weight"] = torch.ones(1).expand(2048, 4096)
    with pytest.raises(ArtifactError, match=r"width 4096, the configuration says text_channels: 2048 \(FLAN-T5 XL"):
        convert(trainers_file(tmp_path / "c.pth", state), "released-64", tmp_path / "b.safetensors")


def test_a_file_is_replaced_only_if_asked(tmp_path, capsys) -> None:
    state, model, out = build(nest(1)).state_dict(), model_file(tmp_path, nest(1)), tmp_path / "b.safetensors"
    arguments = ["convert", str(trainers_file(tmp_path / "a.pth", state)), "--model", model, "--out", str(out)]
    out.write_text("mine")
    assert cli.main(arguments) == 2
    assert "exists already; write another path, or add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert cli.main([*arguments, "--force"]) == 0
    assert state_hash(state) in capsys.readouterr().out
    assert state_hash(load_weights(out)) == state_hash(state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "b.safetensors", "model.json"]


def test_which_network_is_meant(tmp_path) -> None:
    assert named("released-64") == PRESETS["released-64"]()
    write_json(tmp_path / "recipe.json", {"kind": "train", "model": nest(2).model_dump(mode="json"), "seed": 0})
    assert named(str(tmp_path / "recipe.json")) == nest(2)
    write_json(tmp_path / "data.json", {"kind": "data"})
    write_json(tmp_path / "list.json", [])
    write_json(tmp_path / "odd.json", {"levls": []})
    for name, message in {
        "released-65": "no preset is called 'released-65'; did you mean 'released-64'",
        str(tmp_path / "none.json"): "does not exist",
        str(tmp_path / "data.json"): "a recipe of kind data, which has no model",
        str(tmp_path / "list.json"): "not list",
        str(tmp_path / "odd.json"): "unknown key 'levls'; did you mean 'levels'",
    }.items():
        with pytest.raises((StudyError, ArtifactError), match=message):
            named(name)


def refusals(folder: Path) -> dict[str, tuple[Callable[[], None], str]]:
    state = build(nest(1)).state_dict()
    plain, cut, out = folder / "plain.safetensors", folder / "cut.safetensors", folder / "out.safetensors"
    save_weights(plain, state)
    cut.write_bytes(plain.read_bytes()[:1000])
    model, deeper = model_file(folder, nest(1)), model_file(folder, nest(2), "deeper.json")
    own = folder / "own.safetensors"
    convert(plain, model, own)
    return {
        "a name that says nothing": (lambda: convert(plain, model, folder / "x.bin"), "ends with .safetensors"),
        "growing to a name that says nothing": (lambda: grow_file(own, deeper, folder / "x.pth"), "with .safetensors"),
        "growing theirs": (
            lambda: grow_file(folder / "a.pth", deeper, out),
            "make a.safetensors of it by `mdm convert`",
        ),
        "no file": (lambda: convert(folder / "none.pth", model, out), "cannot be read: No such file"),
        "a folder": (lambda: convert(folder, model, out), "cannot be read: Is a directory"),
        "an incomplete file": (lambda: convert(cut, model, out), "not a complete safetensors file"),
        "an unknown network": (lambda: convert(plain, None, out), "does not say which network .*released-64"),
        "growing it": (lambda: grow_file(plain, deeper, out), "does not say which network"),
        "growing by nothing": (lambda: grow_file(own, model, out), "already has the 1 levels of .* nothing to add"),
        "shrinking": (lambda: _shrink(folder, deeper, model, out), "has 2 levels, the network around it only 1"),
        "growing over a file": (lambda: grow_file(own, deeper, plain), "exists already"),
    }


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond some bytes, as on a full disk; not for longer, or pytest's own log could not grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("verb", ["grow", "to ours", "to theirs"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, capsys, verb: str) -> None:
    own, deeper = tmp_path / "own.safetensors", model_file(tmp_path, nest(3), "deeper.json")
    save_weights(own, build(nest(2)).state_dict(), {"model": nest(2).model_dump(mode="json")})
    out = tmp_path / ("out.pth" if verb == "to theirs" else "out.safetensors")
    out.write_text("what stood here")
    arguments = ["grow", str(own), "--model", deeper] if verb == "grow" else ["convert", str(own)]
    with small_disk():
        assert cli.main([*arguments, "--out", str(out), "--force"]) == 2
    said = capsys.readouterr().err
    assert "cannot be written: File too large; what stood there is unchanged" in said and said.count("\n") == 1
    assert out.read_text() == "what stood here"
    assert {p.name for p in tmp_path.iterdir()} == {"own.safetensors", "deeper.json", out.name}


def test_growing_a_file_that_is_not_there_names_those_that_are(tmp_path, capsys) -> None:
    save_weights(tmp_path / "weights.safetensors", build(nest(2)).state_dict())
    out = str(tmp_path / "out.safetensors")
    assert cli.main(["grow", str(tmp_path / "wieghts.safetensors"), "--model", "released-256", "--out", out]) == 2
    said = capsys.readouterr().err
    assert "there is no file" in said and "did you mean 'weights.safetensors'" in said and "stage" not in said


def _shrink(folder: Path, deeper: str, model: str, out: Path) -> None:
    grow_file(folder / "own.safetensors", deeper, folder / "deep.safetensors")
    grow_file(folder / "deep.safetensors", model, out)


def test_clear_refusals(tmp_path) -> None:
    for action, message in refusals(tmp_path).values():
        with pytest.raises((StudyError, ArtifactError), match=message):
            action()
    assert not (tmp_path / "out.safetensors").exists()


def foreign(folder: Path, note: str, extra: dict[str, torch.Tensor] | None = None) -> Path:
    """A safetensors file that was not made here, with a note of its own."""
    state = {name: tensor.contiguous() for name, tensor in build(nest(1)).state_dict().items()} | (extra or {})
    safetensors.torch.save_file(state, folder / "foreign.safetensors", metadata={"meta": note})
    return folder / "foreign.safetensors"


def test_a_note_with_numbers_that_json_has_not_is_refused(tmp_path) -> None:
    model, out = model_file(tmp_path, nest(1)), tmp_path / "out.safetensors"
    with pytest.raises(ArtifactError, match="`meta` in its header is not a JSON object"):
        convert(foreign(tmp_path, '{"loss": NaN}'), model, out)
    assert not out.exists()


def test_names_in_the_list_of_differences_cannot_command_the_terminal(tmp_path) -> None:
    path = foreign(tmp_path, "{}", {"\x1b[31mevil": torch.ones(1)})
    with pytest.raises(ArtifactError, match=r"x1b\[31mevil") as refused:
        convert(path, model_file(tmp_path, nest(1)), tmp_path / "out.safetensors")
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("key", ["time_channels", "text_channels", "classes"])
def test_networks_beyond_any_computer_are_refused(tmp_path, key: str) -> None:
    """A file may say what it likes of itself, and nobody waits for the sizes to overflow."""
    note = json.dumps({"model": {**nest(1).model_dump(mode="json"), key: 8 * 10**12}})
    with pytest.raises(StudyError, match=f"{key}: Input should be less than or equal to"):
        convert(foreign(tmp_path, note), None, tmp_path / "out.safetensors")


def test_half_precision_parents_are_converted_first(tmp_path) -> None:
    state = {name: tensor.half() for name, tensor in build(nest(1)).state_dict().items()}
    save_weights(tmp_path / "half.safetensors", state, {"model": nest(1).model_dump(mode="json")})
    with pytest.raises(StudyError, match=r"half.safetensors holds float16 weights; .*`mdm convert`"):
        grow_file(tmp_path / "half.safetensors", model_file(tmp_path, nest(2)), tmp_path / "out.safetensors")


@pytest.mark.parametrize("seed", ["-1", str(2**64), "x"])
def test_seeds_that_no_generator_takes(tmp_path, capsys, seed: str) -> None:
    words = ["grow", "a.safetensors", "--model", "released-256", "--out", "b.safetensors", "--seed", seed]
    assert cli.main(words) == 2
    assert f"'--seed': {seed!r} is not possible; write a whole number from 0 to" in capsys.readouterr().err


def chain(normalized: bool) -> list[ModelConfig]:
    """The published chain in small: 4 times the side at each step, and the middle level normalised in the last."""
    sizes = {"text_channels": 16, "text_projection": 32, "mask_text": False}
    inner, middle, outer = innermost(), level(32, (32, 32, 64)), level(128, (32, 32, 32))
    last = middle.model_copy(update={"normalize_input": normalized})
    stages = ((inner,), (inner, middle), (inner, last, outer))
    return [ModelConfig(levels=levels, **sizes) for levels in stages]


@pytest.mark.parametrize("normalized", [False, True])
def test_the_published_chain_in_small(tmp_path, capsys, normalized: bool) -> None:
    """Grown twice by the command, with trained weights between: inner hashes and predictions stay bit for bit."""
    configs = chain(normalized)
    models = [model_file(tmp_path, config, f"model-{i}.json") for i, config in enumerate(configs)]
    parent = awake(build(configs[0])).state_dict()
    for step in (1, 2):
        source, out = tmp_path / f"parent-{step}.safetensors", tmp_path / f"grown-{step}.safetensors"
        save_weights(source, parent, {"model": configs[step - 1].model_dump(mode="json")})
        assert cli.main(["grow", str(source), "--model", models[step], "--out", str(out), "--seed", "5"]) == 0
        lines, grown = capsys.readouterr().out.splitlines(), load_weights(out)
        fresh = [name for name in grown if not name.startswith("inner_unet.")]
        numbers = sum(grown[name].numel() for name in fresh)
        side = configs[step].resolutions[0]
        assert lines[0] == f"inner weights before {state_hash(parent)}"
        assert lines[1].startswith(f"inner weights after  {state_hash(parent)} ({len(parent)} tensors, ")
        assert lines[2].startswith(f"fresh level {side}: {len(fresh)} tensors, {numbers:,} parameters (temb_layer1 2")
        assert ("note: level 32 had normalize_input False and now has True" in lines[-1]) == (normalized and step == 2)
        assert read_meta(out)["grown_from"] == {
            "file": source.name, "sha256": sha256_file(source), "weights": state_hash(parent), "seed": 5,
        }  # fmt: skip
        # The parent in the deeper network's terms: the same weights, the middle level normalised if it now is.
        inside = configs[step].model_copy(update={"levels": configs[step].levels[:step]})
        for said, before in zip(_inner(configs[step], grown), _inner(inside, parent, configs[step]), strict=True):
            assert torch.equal(said, before)
        parent = awake(build(configs[step]), seed=step).state_dict()


def _inner(
    config: ModelConfig, state: dict[str, torch.Tensor], around: ModelConfig | None = None
) -> list[torch.Tensor]:
    """Predictions of the levels inside the outermost one of `around` (default: of this network)."""
    network = build(config).eval()
    load_into(network, state)
    pictures, times = inputs(around or config)
    skipped = 1 if around else 0
    said = network(pictures[skipped:], times, *some_text())
    return said if around else said[1:]


@pytest.mark.parametrize("settings", [{"classes": 4}, {}], ids=["classes", "unconditional"])
def test_nests_without_text_grow_and_keep_their_inner_predictions(tmp_path, settings) -> None:
    small, large = nest(2, **WITHOUT_TEXT, **settings), nest(3, **WITHOUT_TEXT, **settings)
    parent = awake(build(small)).state_dict()
    save_weights(tmp_path / "a.safetensors", parent, {"model": small.model_dump(mode="json")})
    grow_file(tmp_path / "a.safetensors", model_file(tmp_path, large), tmp_path / "b.safetensors")
    grown, inner = build(large).eval(), build(small).eval()
    load_into(grown, load_weights(tmp_path / "b.safetensors"))
    load_into(inner, parent)
    pictures, times = inputs(large)
    labels = torch.tensor([0, 3, 4]) if settings else None  # 4: no class
    expected = inner(pictures[1:], times, labels=labels)
    for said, before in zip(grown(pictures, times, labels=labels)[1:], expected, strict=True):
        assert torch.equal(said, before)


def test_classes_are_not_lost_silently(tmp_path, capsys) -> None:
    """The reference has no classes, so its loader would leave our embedding out."""
    config = KINDS["classes"]
    save_weights(tmp_path / "a.safetensors", build(config).state_dict(), {"model": config.model_dump(mode="json")})
    convert(tmp_path / "a.safetensors", None, tmp_path / "b.pth")
    assert (
        "the reference has no classes; its loader will leave out inner_unet.class_emb.weight" in capsys.readouterr().out
    )
    with pytest.raises(ArtifactError, match=r"1 missing:\n    inner_unet.class_emb.weight \(5, 128\)"):
        save_weights(tmp_path / "c.safetensors", build(nest(2, **WITHOUT_TEXT)).state_dict())
        convert(tmp_path / "c.safetensors", model_file(tmp_path, config), tmp_path / "d.safetensors")
