"""The paper's Figure 4 in small: equal compute for every arm, and nothing trained that the laptop study has."""

import pytest

from mdm.model.arithmetic import step_gigaflops
from mdm.study import study

ARMS = {"base": "base", "nested": "no-progressive", "simple": "single-scale"}  # here and in the laptop study
TOKENS = 14  # of the longest caption of its scenes


@pytest.fixture(scope="module")
def loaded():
    return study.load("baselines")


def test_trainings_and_instruments_are_the_laptop_studys(loaded):
    laptop = study.load("laptop")
    known = {(run.name, run.seed): [stage.artifact for stage in run.stages] for run in laptop.runs}
    for run in loaded.runs:
        assert [stage.artifact for stage in run.stages] == known[ARMS.get(run.name, run.name), run.seed]
    assert set(loaded.of_kind("data", "judge", "clip")) <= set(laptop.artifacts)


def test_every_arm_computes_as_much_and_has_a_curve(loaded):
    work = {}
    for run in loaded.runs:
        recipes = [loaded.recipe(stage.artifact) for stage in run.stages]
        work[run.name] = sum(r.num_images * step_gigaflops(r.model, r.diffusion, TOKENS) for r in recipes)
    assert work == pytest.approx(dict.fromkeys(work, work["base"]), rel=0.005)
    assert all(len(run.points) >= 4 for run in loaded.runs)
    assert {pair.cost for pair in loaded.reaches} == {"gigaflops", "seconds"}
