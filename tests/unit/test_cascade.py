"""A cascade as a study writes it: which artifacts follow, what is refused, and that training and drawing are exact."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import torch
from training_world import NEVER, SMALL, begin, copied, make_world

from mdm.config import StudyError
from mdm.config.recipe import SamplesRecipe, StageRecipe
from mdm.config.units import large
from mdm.data.batches.reader import Pictures
from mdm.data.text.cache import embed
from mdm.evaluate import generate as drawing
from mdm.evaluate.archive import ArrayStream, read_array, write_archive
from mdm.evaluate.gather import gather
from mdm.evaluate.low import LowPictures
from mdm.evaluate.painter import Painter
from mdm.evaluate.unprompted import unprompted_rows
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError, read_json, write_json
from mdm.files.weights import load_weights, save_weights, state_hash
from mdm.model.arithmetic import parameters
from mdm.model.networks import build
from mdm.report import cascades, collect
from mdm.report.evidence import Evidence
from mdm.report.tables.tables import cost_table
from mdm.study import study
from mdm.study.cost import calibrate, speeds
from mdm.study.cost.memory import estimate
from mdm.study.cost.parts import networks
from mdm.study.cost.plan import render
from mdm.study.run.generate_one import Wanted
from mdm.study.run.generate_one import generate as generate_one
from mdm.train.checkpoint import read_checkpoint
from mdm.train.example import training_examples
from mdm.train.export import export
from mdm.train.loop import train
from mdm.train.ranks import SINGLE

LEVEL = {"channels": [16, 32], "resnets": [1, 1], "attention": [0, 1], "norm_groups": 8}
R8 = {"resolutions": [8], "num_images": 32}
UP16 = {"resolutions": [16], "upsamples": {"size": 8}, "num_images": 64, "model": {"levels": {16: LEVEL}}}
UP32 = {"resolutions": [32], "upsamples": {"size": 16}, "num_images": 32, "model": {"levels": {32: LEVEL}}}


def ablation(stages, **more):
    return {"title": "T", "question": "?", "group": "training", "set": {"stages": stages}, **more}


def loaded(stages=None, **settings):
    """The quick study with a cascade as an ablation; settings of sampling by their names."""
    entry = ablation(stages or {"r8": R8, "up16": UP16})
    entry["set"] |= {f"sample.{key}": value for key, value in settings.items()}
    small = SMALL | {"base.stages.r8": R8, "base.stages.r32.snapshots": [128]}
    return study.load("quick", {**small, "ablations.cascade": entry})


def samples_of(found, run="cascade"):
    ref = found.runs_named(run)[0].evaluations[0].samples
    return found.recipe(ref)


def test_the_base_is_the_first_stage_of_the_nest_and_its_pictures_are_an_artifact():
    found = loaded()
    nest, cascade = found.runs_named("base")[0], found.runs_named("cascade")[0]
    assert cascade.stages[0].artifact == nest.stages[0].artifact
    recipe = found.recipe(cascade.stages[1].artifact)
    assert (recipe.parent, recipe.low_size, recipe.sizes) == (None, 8, (16,))
    assert recipe.augmentation.levels == "uniform"
    evaluation = cascade.evaluations[0]
    assert evaluation.lows == (samples_of(found).low,)
    below = found.recipe(evaluation.lows[0])
    assert (below.train, below.low) == (cascade.stages[0].artifact, None)
    assert (below.prompts, below.seed, below.num_images) == tuple(
        getattr(samples_of(found), key) for key in ("prompts", "seed", "num_images")
    )
    assert set(found.parents(evaluation.samples)) >= {cascade.stages[1].artifact, evaluation.lows[0]}
    # Drawn alone, the first stage would make the same artifact.
    alone = study.load("quick", {**SMALL, "base.stages": {"r8": R8}, "ablations": {}, "claims": {}, "along": None})
    assert alone.runs[0].evaluations[0].samples == evaluation.lows[0]


def test_removing_the_cascade_removes_exactly_its_artifacts():
    with_it, without = loaded(), study.load("quick", SMALL | {"base.stages.r8": R8})
    added = [ref.partition("/")[0] for ref in set(with_it.artifacts) - set(without.artifacts)]
    assert set(without.artifacts) < set(with_it.artifacts)
    # Its training, what both of its networks draw, and what is measured of the large pictures at their own side.
    assert sorted(kind for kind in added if kind != "features") == ["samples", "samples", "scores", "train"]


def test_swept_noise_and_real_pictures_share_training_and_base():
    entry = ablation({"r8": R8, "up16": UP16}, sweep={"sample.low_noise": [0.0, 0.2]})
    real = ablation({"r8": R8, "up16": UP16})
    real["set"] |= {"sample.low": "real"}
    found = study.load("quick", {**SMALL, "ablations.cascade": entry, "ablations.ceiling": real})
    recipes = [samples_of(found, name) for name in ("cascade=0.0", "cascade=0.2", "ceiling")]
    assert len({recipe.train for recipe in recipes}) == 1
    assert recipes[0].low == recipes[1].low and recipes[0] != recipes[1]
    assert recipes[1].sample.low_noise == 0.2
    assert recipes[2].low == recipes[2].prompts
    assert found.runs_named("ceiling")[0].evaluations[0].lows == ()


def test_the_base_has_settings_of_its_own_and_cascades_may_be_longer():
    found = loaded({"r8": R8, "up16": UP16, "up32": UP32}, low_noise=0.1, base={"steps": 3, "base": {"guidance": 3.0}})
    top = samples_of(found)
    middle = found.recipe(top.low)
    lowest = found.recipe(middle.low)
    assert [(r.sample.steps, r.sample.guidance, r.sample.low_noise) for r in (top, middle, lowest)] == [
        (5, 2.0, 0.1), (3, 2.0, 0.1), (3, 3.0, 0.0)
    ]  # fmt: skip
    assert [found.recipe(ref).low_size for ref in (top.train, middle.train, lowest.train)] == [16, 8, None]
    assert found.runs_named("cascade")[0].evaluations[0].lows == (middle.low, top.low)
    # A nest may be the base as well: what it draws at its highest level is enlarged.
    nested = loaded({"r8": R8, "r16": {"resolutions": [8, 16], "num_images": 32}, "up32": UP32})
    assert nested.runs_named("cascade")[0].stages[2].base.name == "r16"


def test_snapshots_of_both_networks_draw_as_in_the_end():
    stages = {"r8": {**R8, "snapshots": [16]}, "up16": {**UP16, "snapshots": [32]}}
    entry = ablation(stages)
    entry["set"] |= {"sample.low_noise": 0.1, "sample.base": {"guidance": 3.0}}
    along = {"protocol": "small", "runs": ["cascade"]}
    more = {"ablations.cascade": entry, "along": along, "claims": {}, "base.stages.r32.snapshots": []}
    small = {"description": "d", "prompts": "scenes-new", "reference": "scenes-new", "num_images": 8,
             "num_reference": 8, "resolution": 8, "spectrum": True}  # fmt: skip
    found = study.load("quick", {**SMALL, "base.stages.r8": R8, "protocols.small": small, **more})
    points = found.runs_named("cascade")[0].points
    assert [(point.stage, point.images) for point in points] == [("r8", 16), ("up16", 32), ("up16", 64)]
    below, middle, end = (found.recipe(point.evaluation.samples) for point in points)
    assert (below.sample.guidance, below.sample.low_noise, below.low) == (3.0, 0.0, None)
    assert middle.low == end.low and middle.sample == end.sample and middle.train.startswith("snapshot/")
    assert found.recipe(end.low).sample == below.sample


def test_the_noise_of_training_is_that_of_the_base():
    stages = {"r8": {**R8, "diffusion": {"schedule": "sigmoid", "steps": 500}}, "up16": UP16}
    found = loaded(stages)
    recipe = found.recipe(found.runs_named("cascade")[0].stages[1].artifact)
    assert (recipe.augmentation.schedule, recipe.augmentation.steps) == ("sigmoid", 500)
    assert recipe.diffusion.schedule == "squared-cosine"
    assert recipe.model.upsamples.operator == "bilinear"
    assert StageRecipe.of(recipe.plain(), "here") == recipe
    # Without noise it changes nothing, and the training is the same.
    up16 = {**UP16, "upsamples": {"size": 8, "noise": "none"}}
    silent = [loaded({**stages, "r8": r8, "up16": up16}) for r8 in (R8, stages["r8"])]
    assert len({found.runs_named("cascade")[0].stages[1].artifact for found in silent}) == 1


R16 = {"resolutions": [16], "num_images": 32}
CLIPS = {**UP16, "resolutions": ["4x16"]}
WRONG = [
    ({"up16": UP16}, {}, r"upsamples.size 8, but there is no stage before it"),
    ({"r8": R8, "up32": UP32}, {}, r"upsamples.size 16, but the stages before it draw \[8\]"),
    ({"r8": R8, "up16": {**UP16, "upsamples": {"size": 16}}}, {}, "stages before it draw"),
    ({"r16": R16, "up16": {**UP16, "upsamples": {"size": 16}}}, {}, "divides theirs"),
    ({"r8": R8, "up16": {**UP16, "resolutions": [8, 16]}}, {}, "an upsampler has one level"),
    ({"r8": R8, "up16": CLIPS}, {}, "an upsampler has one level, of pictures"),
    ({"r8": R8, "up16": {**UP16, "start_from": "raw"}}, {}, "an upsampler begins anew"),
    ({"r8": R8, "up16": {**UP16, "upsamples": {"sise": 8}}}, {}, "did you mean 'size'"),
    ({"r8": R8, "up16": UP16, "r32": {"resolutions": [16, 32], "num_images": 32}}, {}, "continue the upsampler"),
    ({"r8": {**R8, "model": {"time_channels": 32}}, "up16": UP16}, {}, "only an upsampler begins anew"),
    ({"r8": R8, "up16": {**UP16, "model": {"chanels": 1}}}, {}, "unknown key 'chanels'"),
    ({"r8": R8}, {"low_noise": 0.1}, "sample.low_noise 0.1 has no effect without an upsampler"),
    ({"r8": R8}, {"low": "real"}, "sample.low real has no effect without an upsampler"),
    ({"r8": R8, "up16": UP16}, {"low_noise": 1.0}, "less than 1"),
    ({"r8": R8, "up16": {**UP16, "upsamples": {"size": 8, "most": 0.3}}}, {"low_noise": 0.4}, "upsamples.most 0.3"),
    ({"r8": R8, "up16": {**UP16, "upsamples": {"size": 8, "noise": "none", "most": 0.3}}}, {}, "no effect with noise"),
    ({"r8": R8, "up16": {**UP16, "upsamples": {"size": 8, "noise": "none"}}}, {"low_noise": 0.1}, "never saw noise"),
    ({"r8": R8, "up16": UP16}, {"low": "real", "base": {"steps": 2}}, "no effect with low: real"),
    ({"r8": R8, "up16": UP16}, {"base": {"low_noise": 0.1}}, "stage 'r8' is no upsampler"),
    ({"r8": R8, "up16": UP16}, {"base": {"guide": "base"}}, "autoguidance leads the last network alone"),
    ({"r8": R8, "up16": UP16}, {"base": {"stepps": 2}}, "did you mean 'steps'"),
    ({"r8": R8, "up16": {**UP16, "model": {"levels": {16: LEVEL, 64: LEVEL}}}}, {}, "model.levels.64 has no effect"),
    ({"r8": R8, "up16": {**UP16, "model": {"levels": [16]}}}, {}, "write a mapping"),
    ({"r8": R8, "up16": {**UP16, "model": {"levels": {16: LEVEL}, "classes": 5}}}, {}, "its base knows none"),
    ({"r8": R8, "up16": UP16}, {"base": {"steps": 2000}}, "more than the 1000 diffusion.steps"),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "settings", "said"), WRONG)
def test_what_cannot_work_is_refused_when_the_study_is_read(stages, settings, said):
    with pytest.raises(StudyError, match=said):
        loaded(stages, **settings)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"excess": {"num_images": 16}}, "its optimum sees no small picture"),
        ({"audit": {"held_out": "scenes-new", "metrics": ["copied", "loss_gap"]}}, "loss_gap asks"),
    ],
)  # fmt: skip
def test_measurements_that_ask_about_noise_alone_are_refused(more, said):
    with pytest.raises(StudyError, match=said):
        study.load("quick", {**SMALL, "ablations.cascade": ablation({"r8": R8, "up16": UP16}), **more})


@pytest.mark.parametrize(
    ("other", "noises"),
    [
        (
            {"up16": {**UP16, "upsamples": {"size": 8, "noise": "none"}}},
            "uniform of squared-cosine, 1000 steps and none",
        ),
        (
            {"r8": {**R8, "diffusion": {"schedule": "sigmoid"}}},
            "uniform of squared-cosine, 1000 steps and uniform of s",
        ),
    ],
)
def test_a_guide_that_knows_other_noise_guides_without_noise_alone(other, noises):
    stages = {"r8": R8, "up16": UP16}

    def led(low_noise):
        entry = ablation(stages)
        entry["set"] |= {"sample.guide": "other", "sample.autoguidance": 2.0, "sample.low_noise": low_noise}
        more = {"ablations.cascade": entry, "ablations.other": ablation({**stages, **other})}
        return study.load("quick", {**SMALL, "base.stages.r8": R8, **more})

    with pytest.raises(StudyError, match=noises):
        led(0.1)
    assert samples_of(led(0.0)).guide == led(0.0).runs_named("other")[0].stages[1].artifact


def test_both_networks_draw_a_picture_of_one_class(tmp_path):
    # Each by itself would draw other classes: the sampler karras takes them from latents, and these have two sizes.
    karras = {"sampler": "karras", "steps": 2, "threshold": "none"}
    draws = {"description": "d", "num_images": 32, "reference": None}
    found = study.load("quick", {
        **SMALL, "base.stages": {"r8": R8, "up16": UP16}, "ablations": {}, "claims": {}, "along": None,
        "base.text": None, "base.model.text_layers": 0, "base.model.classes": 5, "base.class_label": "count",
        "base.diffusion": {"parameterisation": "edm"}, "base.sample": karras, "protocols": {"draws": draws},
    })  # fmt: skip
    recipe = samples_of(found, "base")
    low = found.recipe(recipe.low)
    classes = unprompted_rows(low, found.recipe(low.train), tmp_path)
    held = {"labels": np.array([json.dumps(row.labels) for row in classes])}
    (tmp_path / recipe.low).mkdir(parents=True)
    write_archive(tmp_path / recipe.low / "images.npz", {k: ArrayStream.of(v) for k, v in held.items()})
    assert unprompted_rows(recipe, found.recipe(recipe.train), tmp_path) == classes


def test_plans_count_all_networks_together(tmp_path):
    found = loaded()
    lines = {line.split()[0]: line for line in networks(found, found.runs) if line}
    weights = [found.recipe(stage.artifact).model for stage in found.runs_named("cascade")[0].stages]
    counts = [parameters(model) for model in weights]
    assert f"{large(counts[0])} + {large(counts[1])} = {large(sum(counts))}" in lines["cascade"]
    text = render(found, tmp_path)
    assert "base of zero-shot" in text and lines["cascade"] in text
    without = study.load("quick", SMALL)
    assert not list(networks(without, without.runs))
    # A plan of other runs says nothing of it.
    assert "cascade" in render(found, tmp_path, only=["cascade"])
    assert "cascade" not in render(found, tmp_path, only=["base"])


# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data, text and recipes of the cascade, its base with weights of chance."""
    results = tmp_path_factory.mktemp("results")
    changes = {**SMALL, "base.stages": {"r8": R8, "up16": UP16}, "base.train.validate_images": 32, "ablations": {},
               "claims": {}, "along": None}  # fmt: skip
    recipes = make_world(results, changes, ("r8", "up16"))
    return recipes, changes


def state_of(path):
    return state_hash({name: value for name, value in read_checkpoint(path)[0].items() if name != "progress.seconds"})


@pytest.fixture(scope="module")
def trained(world):
    """The upsampler after an unbroken training, exported; of its base the weights only."""
    recipes, _ = world
    for name in ("r8", "up16"):
        train(recipes[name], recipes[name].parent / "final.ckpt", None, NEVER, preview_images=32 * (name == "up16"))
    wanted = state_of(recipes["up16"].parent / "final.ckpt")
    for recipe in recipes.values():
        export(recipe)
    return wanted


def test_kill_9_while_an_upsampler_trains_changes_nothing(world, trained, tmp_path):
    recipe = copied(world[0], tmp_path)["up16"]
    (recipe.parent / "final.ckpt").unlink()
    (recipe.parent / "manifest.json").unlink()
    for left in (recipe.parent / "progress").glob("*"):
        left.unlink() if left.is_file() else None
    out = recipe.parent / "final.ckpt"
    (process,) = begin(1, train, recipe, out, None, 0)
    end = time.monotonic() + 120
    while not list((recipe.parent / "progress").glob("autosave-*")) and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -9 and not out.exists()
    train(recipe, out, None, NEVER)
    assert json.loads((recipe.parent / "progress" / "attempts.jsonl").read_text().splitlines()[-2])["begin"] > 0
    assert state_of(out) == trained


def test_batches_hold_small_pictures_that_do_not_depend_on_the_process(world):
    recipe_path = world[0]["up16"]
    recipe = read_recipe(recipe_path, StageRecipe)
    examples = training_examples(recipe_path, recipe, SINGLE)
    whole, again = examples.at(16), training_examples(recipe_path, recipe, SINGLE).at(16)
    assert torch.equal(whole.low.pictures, again.low.pictures) and whole.low.pictures.shape == (16, 3, 8, 8)
    half = whole.part(1, 2)
    assert torch.equal(half.low.pictures, whole.low.pictures[1::2])
    assert torch.equal(half.low.levels, whole.low.levels[1::2])
    assert len(set(whole.low.levels.tolist())) == 16
    quiet = recipe.model_copy(update={"augmentation": recipe.augmentation.model_copy(update={"levels": "none"})})
    real = training_examples(recipe_path, quiet, SINGLE).at(16).low
    assert not real.levels.any()
    pictures = Pictures(recipe_path.parents[2] / recipe.data)
    there = ((real.pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    # As the base sees them: means of the same real pictures; halves may round either way.
    known = np.stack([pictures.image(k, 8) for k in range(len(pictures))]).astype(int)
    best = [np.abs(known - one).max(axis=(1, 2, 3)).min() for one in there]
    assert max(best) <= 1


def put_samples(world, **changes):
    """The recipes of the pictures of base and cascade in the world's folder."""
    recipes, settings = world
    results = recipes["r8"].parents[2]
    found = study.load("quick", {**settings, **changes})
    evaluation = found.runs[0].evaluations[0]
    for ref in (*evaluation.lows, evaluation.samples):
        for parent in found.parents(ref):
            if parent.startswith("text/") and not (results / parent / "manifest.json").is_file():
                write_json(results / parent / "recipe.json", found.recipe(parent).plain())
                embed(results / parent / "recipe.json")
        write_json(results / ref / "recipe.json", found.recipe(ref).plain())
    return [results / ref / "recipe.json" for ref in (*evaluation.lows, evaluation.samples)], found


@pytest.fixture(scope="module")
def drawn(world, trained):
    """Pictures of the base and of the cascade, drawn with noticeable weights."""
    results = world[0]["r8"].parents[2]
    for recipe in world[0].values():
        path, generator = recipe.with_name("weights.safetensors"), torch.Generator().manual_seed(7)
        loud = {k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in load_weights(path).items()}
        save_weights(path, loud)
    paths, found = put_samples(world, **{"base.sample.low_noise": 0.1})
    for path in paths:
        drawing.generate(path, batch_images=16)
    return results, paths, found


def pictures(path, side=16):
    return read_array(path.with_name("images.npz"), f"images_{side}").astype(int)


def test_a_cascade_draws_the_same_in_any_batch(drawn):
    results, (_, path), _ = drawn
    whole = pictures(path)
    recipe = read_recipe(path, SamplesRecipe)
    painter = Painter(recipe, results, torch.device("cpu"))
    captions = read_array(path.with_name("images.npz"), "captions").tolist()
    parts = [painter.paint(range(k, k + 5), captions[k : k + 5])[16] for k in (10, 0, 5)]
    assert np.abs(np.concatenate([parts[1], parts[2], parts[0]]) - whole[:15]).max() <= 1
    assert read_json(path.with_name("manifest.json"))["network_evaluations_per_image"] == 10


def test_what_is_enlarged_its_noise_and_its_proof_change_the_pictures(drawn, world):
    results, (low, path), _ = drawn
    recipe, stage = read_recipe(path, SamplesRecipe), read_recipe(world[0]["up16"], StageRecipe)
    cpu, names = torch.device("cpu"), read_array(path.with_name("images.npz"), "captions").tolist()[:4]
    found = LowPictures(recipe, stage, results).of([2, 5], cpu)
    silent, loud = (recipe.sample.model_copy(update={"low_noise": level}) for level in (0.0, 0.4))
    quiet = LowPictures(recipe.model_copy(update={"sample": silent}), stage, results)
    assert quiet.sha256 == read_json(low.with_name("manifest.json"))["sha256"]
    without = quiet.of([2, 5], cpu).pictures
    stored = ((without + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(stored, pictures(low, 8)[[2, 5]])
    assert torch.allclose(found.levels, torch.tensor([0.1, 0.1])) and not torch.equal(found.pictures, without)
    others = [
        Painter(recipe, results, cpu),
        Painter(recipe.model_copy(update={"sample": loud}), results, cpu),
        Painter(recipe.model_copy(update={"low": recipe.prompts}), results, cpu),
        Painter(recipe, results, cpu, low=lambda ids: pictures(low, 8)[[k + 1 for k in ids]].astype(np.uint8)),
    ]  # fmt: skip
    drawn_by = [painter.paint(range(4), names)[16].tobytes() for painter in others]
    assert len(set(drawn_by)) == 4
    assert others[0].weights_hash != others[2].weights_hash


def test_jobs_that_draw_parts_draw_the_same_cascade(drawn, tmp_path):
    results, paths, _ = drawn
    wanted = [pictures(path, side) for path, side in zip(paths, (8, 16), strict=True)]
    said = [read_json(path.with_name("manifest.json")) for path in paths]
    shutil.copytree(results, tmp_path / "results")
    for path, images, manifest in zip(paths, wanted, said, strict=True):
        again = tmp_path / "results" / path.relative_to(results)
        for name in ("images.npz", "manifest.json"):
            again.with_name(name).unlink()
        for ids in (range(8, 16), range(8)):
            drawing.draw_part(again, ids, batch_images=8)
        gather(again, 8)
        assert np.abs(pictures(again, images.shape[1]) - images).max() <= 1  # in other batches, up to rounding
        facts = read_json(again.with_name("manifest.json"))
        assert facts.keys() == manifest.keys() and "drawn_by" not in facts
    assert facts["low_psnr"] == pytest.approx(manifest["low_psnr"], abs=0.1)


def test_an_upsampler_without_small_pictures_says_what_to_do(drawn):
    results, (_, path), _ = drawn
    recipe = read_recipe(path, SamplesRecipe).model_copy(update={"low": None})
    with pytest.raises(StudyError, match="is an upsampler: it draws from pictures of 8 px, and nothing says which"):
        Painter(recipe, results, torch.device("cpu"))


def test_a_prompt_is_drawn_by_all_networks_of_a_cascade(drawn, tmp_path):
    results, _, found = drawn
    said = generate_one(found, results, "base", Wanted("two red circles", None, 2, 0), tmp_path / "a.png", {})
    assert (tmp_path / "a.png").is_file() and "at 16 px" in said
    # The small picture is drawn with the prompt's seed, by the base, whose settings are those of the study.
    for seed in (0, 1):
        wanted = Wanted("two red circles", None, 2, seed)
        generate_one(found, results, "base", wanted, tmp_path / f"{seed}.png", {})
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert (tmp_path / "1.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    weights = results / found.runs[0].stages[0].artifact / "weights.safetensors"
    weights.rename(tmp_path / "weights")
    try:
        with pytest.raises(ArtifactError, match="its base is not trained yet"):
            generate_one(found, results, "base", wanted, tmp_path / "b.png", {})
    finally:
        (tmp_path / "weights").rename(weights)


def test_a_class_is_drawn_by_a_base_whose_upsampler_knows_none(tmp_path):
    up16 = {**UP16, "model": {"levels": {16: LEVEL}, "classes": None}}
    found = study.load("quick", {
        **SMALL, "base.stages": {"r8": R8, "up16": up16}, "ablations": {}, "claims": {}, "along": None,
        "base.text": None, "base.model.text_layers": 0, "base.model.classes": 5, "base.class_label": "count",
        "base.sample": {"steps": 2}, "protocols": {"draws": {"description": "d", "num_images": 8, "reference": None}},
    })  # fmt: skip
    for stage in found.runs[0].stages:
        recipe = found.recipe(stage.artifact)
        write_json(tmp_path / stage.artifact / "recipe.json", recipe.plain())
        save_weights(tmp_path / stage.artifact / "weights.safetensors", build(recipe.model, 0).state_dict())
    with pytest.raises(StudyError, match="needs --class, a number from 0 to 4; none was given"):
        generate_one(found, tmp_path, "base", Wanted(None, None, 1, 0), tmp_path / "a.png", {})
    assert "class 3" in generate_one(found, tmp_path, "base", Wanted(None, 3, 1, 0), tmp_path / "a.png", {})


def test_costs_of_all_networks_count_together(drawn):
    results, _, found = drawn
    run = found.runs[0]

    def json_of(ref, name):
        path = results / ref / name
        return read_json(path) if path.is_file() else None

    whole = cascades.drawing(run.evaluations[0], json_of)
    own, low = (json_of(ref, "manifest.json") for ref in (run.evaluations[0].samples, *run.evaluations[0].lows))
    assert whole["network_evaluations_per_image"] == 20
    assert whole["seconds"] == own["seconds"] + low["seconds"]
    # Weights of chance: what they draw has little to do with the small picture; equal pictures are tried below.
    assert low.get("low_psnr") is None and 3 < own["low_psnr"] < 40
    known = {stage.name: json_of(stage.artifact, "manifest.json")["parameters"] for stage in run.stages}
    assert cascades.parameters(run.stages[1], known) == sum(known.values())
    assert cascades.parameters(run.stages[1], {"up16": 5}) is None


def test_how_closely_a_cascade_keeps_to_its_base_is_in_the_report_and_in_claims(drawn):
    results, _, found = drawn
    rows = list(collect.collect(found, results)[0])
    table = cost_table(Evidence(found, rows), results)
    said = read_json(results / found.runs[0].evaluations[0].samples / "manifest.json")["low_psnr"]
    assert float(table.rows[0]["low_psnr"].text) == pytest.approx(said, rel=0.01)

    def claiming(run):
        claim = {"statement": "s", "source": "s", "expect": f'low_psnr["{run}"] > 20'}
        more = {"ablations.cascade": ablation({"r8": R8, "up16": UP16}), "claims": {"close": claim}}
        return study.load("quick", SMALL | {"base.stages.r8": R8} | more)

    assert "close" in claiming("cascade").claims
    with pytest.raises(StudyError, match="'base' enlarges nothing"):
        claiming("base")


def test_pictures_that_keep_to_their_small_ones_are_told(drawn, tmp_path):
    results, (low, path), _ = drawn
    recipe, small = read_recipe(path, SamplesRecipe), pictures(low, 8).astype(np.uint8)
    of = LowPictures(recipe, read_recipe(results / recipe.train / "recipe.json", StageRecipe), results)
    repeated = small.repeat(2, axis=1).repeat(2, axis=2)
    for pixels, wanted in ((repeated, 88.13), (np.clip(repeated.astype(int) + 10, 0, 255).astype(np.uint8), None)):
        write_archive(tmp_path / "images.npz", {"images_16": ArrayStream.of(pixels)})
        found = of.psnr(tmp_path / "images.npz", 16, len(pixels))
        error = np.square(pixels[:, ::2, ::2].astype(float) - small).mean()
        assert found == pytest.approx(wanted or 10 * np.log10(255**2 / error), abs=0.01)


def test_its_steps_are_weighed_and_timed_like_others():
    found, cpu = loaded(), torch.device("cpu")
    run = found.runs_named("cascade")[0]
    ref = run.stages[1].artifact
    stage = found.recipe(ref)
    weighed = estimate(stage.model, stage.train, stage.diffusion, tokens=8)
    assert weighed.parameters >= 4 * parameters(stage.model) and weighed.activations[16] > 0
    calibrate._training(speeds.training(found, ref), found, cpu)()
    calibrate._drawing(speeds.drawing(found, run.evaluations[0].samples), found, cpu)()
