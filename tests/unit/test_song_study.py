"""DDPM++ and NCSN++ in a study: what it may say, and training, resuming, continuing, planning and drawing with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_classes import NEVER, World
from training_world import copied

from mdm.config import ModelConfig, SongConfig, StudyError, TrainConfig
from mdm.config.families import parse_model
from mdm.config.recipe import StageRecipe
from mdm.data.sources.scenes.shapes import SHAPES
from mdm.evaluate.generate import generate
from mdm.evaluate.painter import averaged_network
from mdm.files.atomic import write_json
from mdm.files.weights import load_weights, state_hash
from mdm.model.arithmetic import parameters
from mdm.model.checkpoints import grow
from mdm.model.execution import compile_network, recompute
from mdm.model.networks import build
from mdm.study import study
from mdm.study.cost.memory import estimate
from mdm.study.cost.plan import Estimate
from mdm.study.cost.step_memory import memories
from mdm.train.example import training_examples
from mdm.train.export import export
from mdm.train.journal import snapshot_file
from mdm.train.loop import train
from mdm.train.optim import is_hidden_matrix
from mdm.train.ranks import Ranks
from mdm.train.state import TrainingState, average_of

SONG = {"resolution": 8, "channels": 8, "multipliers": [2, 2], "blocks": 1, "dropout": 0.2}
SETTINGS = {
    "base.text": None,
    "base.model": {"song": SONG},
    "base.diffusion": {"parameterisation": "edm"},
    "base.stages": {"r8": {"resolutions": [8], "num_images": 64, "snapshots": [32]}},
    "base.sample": {"sampler": "heun", "steps": 3},
    "base.train.condition_dropout": 0,
    "base.train.batch_images": 16,
    "ablations": {},
    "claims": {},
    "protocols.zero-shot.num_images": 12,
    "protocols.zero-shot.num_reference": 16,
    **{f"data.{name}.settings.num_images": 40 for name in ("scenes-train", "scenes-new")},
    **{f"data.{name}.settings.relations": [] for name in ("scenes-train", "scenes-new", "scenes-judge")},
}
CLASSES = SETTINGS | {"base.class_label": "shapes", "base.model": {"song": SONG, "classes": len(SHAPES)}}
NCSN = SETTINGS | {"base.model": {"song": SONG | {"arch": "ncsn++", "skips": [1, 0, 1, 1]}}}


def loaded(changes: dict[str, Any]) -> StageRecipe:
    found = study.load("quick", SETTINGS | changes)
    return found.recipe(found.of_kind("train")[0])


def song(**changes: Any) -> dict[str, Any]:
    return {"base.model": {"song": SONG | changes}}


def test_no_loss_gap_of_networks_that_know_no_answer_without_a_class() -> None:
    audit = {"audit": {"metrics": ["loss_gap"], "held_out": "scenes-new"}, "excess": None}
    study.load("quick", SETTINGS | audit)
    with pytest.raises(StudyError, match="audit: loss_gap asks networks without a class"):
        study.load("quick", CLASSES | audit)


def test_the_architecture_brings_its_settings() -> None:
    plain, residual = (loaded(song(arch=arch)).model for arch in ("ddpm++", "ncsn++"))
    assert isinstance(plain, SongConfig)
    assert (plain.embedding, plain.noise_width, plain.encoder, plain.filter) == ("positional", 1, "standard", (1, 1))
    assert (residual.embedding, residual.noise_width, residual.encoder) == ("fourier", 2, "residual")
    assert residual.filter == (1, 3, 3, 1)
    assert plain.attention == (4,)
    mixed = loaded(song(arch="ddpm++", embedding="fourier", fourier_scale=16 / 999)).model
    assert (mixed.embedding, mixed.fourier_scale, mixed.encoder) == ("fourier", 16 / 999, "standard")


def test_recipes_hold_every_setting_and_are_read_again() -> None:
    recipe = loaded({})
    again = StageRecipe.of(json.loads(json.dumps(recipe.plain())), "recipe.json")
    assert again == recipe
    assert recipe.plain()["model"].keys() == SongConfig.model_fields.keys()
    assert recipe.dropout_masks == "by picture"
    nested = study.load("quick")
    nested_recipe = nested.recipe(nested.of_kind("train")[0])
    assert isinstance(StageRecipe.of(nested_recipe.plain(), "recipe.json").model, ModelConfig)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base.model": {}}, r"write levels .* or song .*; neither is there"),
        ({"base.model": {"song": SONG, "levels": {8: {}}}}, "both are there, and null for the one that is inherited"),
        ({"base.model": {"song": SONG, "mask_text": False}}, "mask_text"),
        ({"base.model": {"song": SONG, "learned_balance": True}}, "learned_balance: only nested networks have this"),
        (song(width=3), "unknown key 'width'"),
        (song(skips=[1, 1]), "skips has 2 entries, but the network has 4 skip connections"),
        (song(attention=[16]), "works at 8, 4 px, so that 16 would have no effect"),
        (song(channels=7), "channels that are even"),
        ({"base.stages.r8.resolutions": [16]}, r"resolutions \[16\], but model.song is a network of 8 px alone"),
        ({"base.stages.r8.resolutions": [8, 16]}, r"but model.song is a network of 8 px alone.*resolutions: \[8\]"),
        ({"base.text": "tiny-t5"}, "model.song reads no text"),
        (
            {"base.model": {"song": SONG, "classes": 9}, "base.train.condition_dropout": 0.1},
            "condition_dropout 0.1: model.song learns no answer without a class; write condition_dropout: 0",
        ),
        (
            {"base.model": {"song": SONG, "classes": 9}, "base.class_label": "shapes", "base.sample.guidance": 2.0},
            "model.song knows no 'no class'.*write guidance: 1",
        ),
    ],
)
def test_studies_that_cannot_work(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=f"(?s){words}"):
        study.load("quick", SETTINGS | changes)


def test_equal_networks_have_equal_recipes() -> None:
    assert loaded(song(skips=[1, 1, 1, 1])) == loaded({})
    assert loaded(song(attention=[4, 8])) == loaded(song(attention=[8, 4]))


def test_an_ablation_may_change_the_family() -> None:
    entry = {"title": "t", "question": "q", "group": "training", "set": {"model": {"song": SONG}}}
    nested = {"levels": {8: {"channels": [32], "resnets": [1]}}}
    changes = SETTINGS | {"base.model": nested, "ablations": {"song": entry}, "groups": {"training": "Training"}}
    found = study.load("quick", changes)
    models = [found.recipe(run.stages[-1].artifact).model for run in found.runs]
    assert [type(model) for model in models] == [ModelConfig, SongConfig]


def test_an_ablation_changes_one_setting() -> None:
    entry = {"title": "t", "question": "q", "group": "training", "sweep": {"model.song.channels": [8, 16]}}
    found = study.load("quick", SETTINGS | {"ablations": {"width": entry}, "groups": {"training": "Training"}})
    widths = {found.recipe(run.stages[-1].artifact).model.channels for run in found.runs}
    assert widths == {8, 16}


@pytest.fixture(scope="module", params=["ddpm++", "ncsn++", "classes"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    settings = {"ddpm++": SETTINGS, "ncsn++": NCSN, "classes": CLASSES}[request.param]
    made = World(tmp_path_factory.mktemp("results"), settings)
    made.untrained = tmp_path_factory.mktemp("untrained")
    copied({"r8": made.path(made.train)}, made.untrained)
    out = made.path(made.train).parent / "final.ckpt"
    train(made.path(made.train), out, None, NEVER, preview_images=32, snapshots=(32,))
    export(made.path(made.train))
    return made


def test_a_training_in_two_slices_is_the_same_bit_for_bit(world: World) -> None:
    recipe = world.untrained / "results" / world.path(world.train).relative_to(world.results)
    first = recipe.parent / "slice-32.ckpt"
    train(recipe, first, None, NEVER)
    train(recipe, recipe.parent / "final.ckpt", first, NEVER)
    export(recipe)
    for name in ("weights.safetensors", "weights-raw.safetensors"):
        whole, parts = (load_weights(folder / name) for folder in (world.path(world.train).parent, recipe.parent))
        assert state_hash(whole) == state_hash(parts)


def test_what_is_exported_is_the_whole_network(world: World) -> None:
    folder, recipe = world.path(world.train).parent, world.study.recipe(world.train)
    fresh = build(recipe.model, recipe.seed).state_dict()
    averaged = load_weights(folder / "weights.safetensors")
    assert averaged.keys() == fresh.keys()
    fixed = [name for name in fresh if name.endswith(("freqs", "resample_filter"))]
    assert all(torch.equal(averaged[name], fresh[name]) for name in fixed)
    assert any(not torch.equal(averaged[name], fresh[name]) for name in fresh)
    assert load_weights(snapshot_file(folder, 32)).keys() == fresh.keys()
    assert list(folder.rglob("*.png")), "previews are drawn on the way"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["gigaflops"] > 0
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert all(0.2 < value < 3 for value in history[0]["losses"].values()), history[0]


def test_pictures_are_drawn_through_the_normal_verbs(world: World) -> None:
    generate(world.path(world.samples), batch_images=5)
    archive = np.load(world.path(world.samples).parent / "images.npz", allow_pickle=False)
    assert archive["images_8"].shape == (12, 8, 8, 3)
    network, _ = averaged_network(world.path(world.train).parent, torch.device("cpu"))
    assert not network.training
    number = ("--class", "2") if world.settings is CLASSES else ()
    assert world.mdm(*number) == 0


def test_it_is_planned(world: World) -> None:
    line = Estimate(world.study, world.results / "nothing").line(world.train)
    assert line.seconds > 0
    assert line.bytes == parameters(world.study.recipe(world.train).model) * 24
    (found,) = {memory.peak for memory in memories(world.study).values()}
    assert found > 0


def test_a_later_stage_continues_and_does_not_grow(tmp_path: Path) -> None:
    more = {"first": {"resolutions": [8], "num_images": 32}, "second": {"resolutions": [8], "num_images": 32}}
    world = World(tmp_path, SETTINGS | {"base.stages": more})
    stages = {stage.name: world.path(stage.artifact) for stage in world.study.runs[0].stages}
    write_json(stages["first"], world.study.recipe(world.study.runs[0].stages[0].artifact).plain())
    for name in ("first", "second"):
        train(stages[name], stages[name].parent / "final.ckpt", None, NEVER)
        export(stages[name])
    manifest = json.loads((stages["second"].parent / "manifest.json").read_text())
    assert manifest["parent"] == world.study.runs[0].stages[0].artifact


def test_other_networks_cannot_be_continued() -> None:
    config = loaded({}).model
    state = build(config).state_dict()
    assert state_hash(grow(state, config, config.model_copy(update={"dropout": 0.0}))) == state_hash(state)
    with pytest.raises(StudyError, match="channels: 8 became 16"):
        grow(state, config, loaded(song(channels=16)).model)
    nested = study.load("quick")
    with pytest.raises(StudyError, match="cannot continue one another"):
        grow(state, config, nested.recipe(nested.of_kind("train")[0]).model)


def test_dropout_depends_on_the_pictures_and_not_on_their_company() -> None:
    recipe = loaded({})
    network = build(recipe.model).train()
    state = TrainingState(network, average_of(network, recipe.train), [])
    x, times = torch.randn(4, 3, 8, 8), torch.zeros(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
        state.drop([5, 6, 7, 8])
        together = network([x], times)[0]
        state.drop([7, 8])
        assert torch.allclose(network([x[2:]], times[2:])[0], together[2:], atol=1e-5)
        state.drop([1, 2])
        assert not torch.allclose(network([x[2:]], times[2:])[0], together[2:], atol=1e-2)


def test_activations_made_twice_change_nothing() -> None:
    recipe, gradients = loaded({}), []
    for sizes in ((), (8,)):
        network = build(recipe.model, 1).train()
        TrainingState(network, average_of(network, recipe.train), []).drop([1, 2])
        recompute(network, sizes)
        network([torch.ones(2, 3, 8, 8)], torch.zeros(2))[0].square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.equal(*gradients)
    with pytest.raises(StudyError, match="recompute 16: the network has the levels 8"):
        recompute(build(recipe.model), (16,))


def test_recomputing_saves_memory_in_the_plan() -> None:
    recipe = loaded(song(blocks=3))
    kept, twice = (
        estimate(recipe.model, recipe.train, recipe.diffusion, tokens=0, recompute=sizes).activations[8]
        for sizes in ((), (8,))
    )
    assert twice < kept / 2


def test_nothing_is_compiled_where_nothing_is_asked() -> None:
    network = build(loaded({}).model)
    compile_network(network, "none", torch.device("cpu"))
    assert network([torch.ones(1, 3, 8, 8)], torch.zeros(1))[0].shape == (1, 3, 8, 8)


def test_inner_matrices_and_those_at_pixels_and_labels() -> None:
    config = loaded(song(arch="ncsn++", multipliers=[2, 2, 2])).model
    config = config.model_copy(update={"classes": 3, "augment": 9})
    outside = {name for name, p in build(config).named_parameters() if p.ndim > 1 and not is_hidden_matrix(name, p)}
    assert outside == {
        "map_label.weight", "map_augment.weight", "enc.8x8_conv.weight", "enc.4x4_aux_residual.weight",
        "dec.8x8_aux_conv.weight",
    }  # fmt: skip


@pytest.mark.parametrize("arch", ["ddpm++", "ncsn++"])
def test_products_in_bfloat16(arch: str) -> None:
    network, x = build(loaded(song(arch=arch)).model).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    exact = network([x], torch.tensor([0.5, -0.3]))[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network([x], torch.tensor([0.5, -0.3]))[0]
    (rounded.float().square().sum()).backward()
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_muon_trains_it() -> None:
    recipe = loaded({"base.train.matrix_rate": 0.01})
    assert isinstance(recipe.train, TrainConfig)
    assert estimate(recipe.model, recipe.train, recipe.diffusion, tokens=0).moments > 0


def test_batches_hold_the_classes(tmp_path: Path) -> None:
    world = World(tmp_path, CLASSES)
    example = training_examples(world.path(world.train), world.study.recipe(world.train), Ranks()).at(0)
    assert example.labels is not None
    assert example.labels.max() < len(SHAPES)


def test_configurations_of_either_family_are_told_apart() -> None:
    config = loaded({}).model
    assert parse_model(config.model_dump(mode="json"), "model.json") == config
    with pytest.raises(StudyError, match=r"model\.json: unknown key 'family'"):
        parse_model({"family": "unet"}, "model.json")
    with pytest.raises(StudyError, match="must hold the configuration of a network, not list"):
        parse_model([], "model.json")
