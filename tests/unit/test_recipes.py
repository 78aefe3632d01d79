"""Recipes: typed where a job begins, and back to the very content whose digest names the artifact."""

import json
from pathlib import Path

import pytest
import yaml

from mdm import study
from mdm.config import StudyError
from mdm.config.recipe import KINDS, DataRecipe, SamplesRecipe, StageRecipe
from mdm.files.artifact import digest, read_recipe
from mdm.files.atomic import write_json
from mdm.study.resolved import resolved_yaml

STUDIES = sorted(path.stem for path in (Path(__file__).parents[2] / "config" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_recipe_comes_back_as_it_was_written(name):
    loaded = study.load(name)
    for ref in loaded.artifacts:
        written = json.loads(loaded.recipe_text(ref))
        again = KINDS[written["kind"]].of(written, ref)
        assert again == loaded.recipe(ref) and list(again.plain()) == list(written)
        assert ref.endswith(digest(again.plain()))


def kept(folder, content):
    path = folder / content["kind"] / f"x-{digest(content)}" / "recipe.json"
    write_json(path, content)
    return path


def samples(**changes):
    loaded = study.load("quick")
    return {**loaded.recipe(loaded.of_kind("samples")[0]).plain(), **changes}


def test_a_recipe_that_is_none_is_refused_with_its_file_and_key(tmp_path):
    path = kept(tmp_path, samples(stpes=3))
    with pytest.raises(StudyError, match=rf"{path}: unknown key 'stpes'; did you mean 'sample'\?"):
        read_recipe(path, SamplesRecipe)
    with pytest.raises(StudyError, match="num_images: Input should be greater than 0"):
        read_recipe(kept(tmp_path, samples(num_images=0)), SamplesRecipe)
    with pytest.raises(StudyError, match="is a recipe of samples; name one of results/train/"):
        read_recipe(kept(tmp_path, samples()), StageRecipe)
    with pytest.raises(StudyError, match="is a recipe of None; name one of results/data/"):
        DataRecipe.of(["no", "recipe"], "x/recipe.json")


def test_what_was_added_later_is_left_out_where_it_changes_nothing():
    loaded = study.load("quick")
    stage = loaded.recipe(loaded.of_kind("train")[0])
    assert not {"dropout_masks", "moments", "stills", "stills_text"} & stage.plain().keys()
    assert stage.model_copy(update={"moments": "carried"}).plain()["moments"] == "carried"


def test_recipes_of_a_run_that_is_compared_with_nothing_print_as_well():
    loaded = study.load("memorization-laptop")
    run, found = loaded.runs_named("base")[0], yaml.safe_load(resolved_yaml(loaded, "base"))
    assert {run.stages[-1].artifact, run.evaluations[0].samples, run.audit.artifact} <= found.keys()


def test_recipes_print_as_yaml_with_every_default():
    loaded = study.load("quick", {"base.sample.guidance": 3.0})
    every, base = (yaml.safe_load(resolved_yaml(loaded, run)) for run in (None, "base"))
    assert {ref: KINDS[recipe["kind"]].of(recipe, ref).plain() for ref, recipe in every.items()} == {
        ref: loaded.recipe(ref).plain() for ref in loaded.artifacts
    }
    run, names = loaded.runs[0], list(base)
    assert {*names} < {*every} and run.evaluations[0].scores in base
    assert all(names.index(parent) < names.index(ref) for ref in names for parent in loaded.parents(ref))
    assert base[run.evaluations[0].samples]["sample"]["guidance"] == 3.0
    with pytest.raises(StudyError, match="has no run 'bose'; did you mean 'base'"):
        resolved_yaml(loaded, "bose")
