"""One of several processes dies: the others end at once, and the next attempt ends with the same weights."""

import pytest
from test_train_ranks import MIXED, TOLERANCE, begin_training, difference, saves, trained, wait_for
from training_world import NEVER, PATIENCE, copied, make_world

from mdm.train.journal import Journal
from mdm.train.loop import train


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("results"), MIXED, ("r16",))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_takes_the_others_with_it_and_is_tried_again(recipes, tmp_path, victim):
    recipe = copied(recipes, tmp_path)["r16"]
    processes = begin_training(recipe, 2, 0)
    wait_for(processes, lambda: saves(recipe))
    processes[victim].kill()
    for process in processes:
        process.join(PATIENCE)
    assert processes[1 - victim].exitcode == 1
    errors = [line for line in Journal(recipe.parent / "progress").lines() if "error" in line]
    assert errors and not any(line["comes_again"] for line in errors), errors
    train(recipe, recipe.parent / "final.ckpt", None, NEVER, attempt=2)
    whole = trained(copied(recipes, tmp_path / "whole")["r16"])
    assert difference(trained(recipe), whole) < TOLERANCE
