"""The laptop study compares what may be compared: equal compute, and three trainings wherever a claim looks."""

import pytest

from mdm.model.arithmetic import step_gigaflops
from mdm.report.verdicts import TRAININGS
from mdm.study.claims import parse, references
from mdm.study.study import load

TOKENS = 14  # of the longest caption of its scenes


@pytest.fixture(scope="module")
def study():
    return load("laptop")


def compute(study, run):
    """GFLOP of all stages of a run, from an empty network on."""
    recipes = [study.recipe(stage.artifact) for stage in run.stages]
    return sum(r.num_images * step_gigaflops(r.model, r.diffusion, TOKENS) for r in recipes)


def test_every_run_computes_as_much_as_base(study):
    found = {run.name: compute(study, run) for run in study.runs}
    assert found == pytest.approx(dict.fromkeys(found, found["base"]), rel=0.005)


def test_every_run_that_a_claim_names_is_trained_often_enough(study):
    seeds = {}
    for run in study.runs:
        seeds.setdefault(run.name, set()).add(run.seed)
    for claim in study.claims.values():
        for reference in references(parse(claim.expect)):
            assert len(seeds[reference.run]) >= TRAININGS


def test_runs_see_the_same_noise_levels_in_the_same_share_of_their_compute(study):
    """Where most of training looks at much noise, all runs do: otherwise the density would decide and not the run."""
    shares = {}
    for run in study.runs:
        if run.name != "paper-recipe":
            recipes = [study.recipe(stage.artifact) for stage in run.stages]
            work = [r.num_images * step_gigaflops(r.model, r.diffusion, TOKENS) for r in recipes]
            for recipe, part in zip(recipes, work, strict=True):
                density = recipe.diffusion.noise_mean, recipe.diffusion.noise_deviation
                shares.setdefault(density, {})[run.name] = part / sum(work)
    assert len(shares) == 2
    for by_run in shares.values():
        assert by_run == pytest.approx(dict.fromkeys(by_run, by_run["base"]), rel=0.01)
