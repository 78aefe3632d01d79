"""The studies of today's training compare what may be compared: arms and recipes differ in nothing else."""

import pytest

from mdm.model.arithmetic import step_gigaflops
from mdm.report.verdicts import TRAININGS
from mdm.study.claims import parse, references
from mdm.study.study import load

TOKENS = 14  # of the longest caption of its scenes
LEVELS = {"today": [16, 32, 64], "today-gpu": [64, 256]}  # sizes of the two studies


@pytest.fixture(scope="module", params=LEVELS)
def study(request):
    return load(request.param)


@pytest.fixture
def arms(study):
    """The levels of the two stages of each arm."""
    levels = LEVELS[study.name]
    return {"progressive": [levels[:1], levels], "nested": [levels] * 2, "single": [levels[-1:]] * 2}


@pytest.fixture(scope="module")
def stages(study):
    """The recipes of the stages of each run, of its first seed."""
    return {run.name: [study.recipe(stage.artifact) for stage in run.stages] for run in reversed(study.runs)}


def arm(run):
    return "progressive" if run == "base" else run.partition("-")[0]


def recipe(run):
    return "paper" if run == "base" else run.partition("-")[2]


def work(found):
    return [r.num_images * step_gigaflops(r.model, r.diffusion, TOKENS) for r in found]


def test_three_arms_meet_every_recipe_that_they_can(stages, arms):
    found = {a: {recipe(run) for run in stages if arm(run) == a} for a in arms}
    nested = {"paper", "x0", "residual", "weights"}
    assert found == {"progressive": nested, "nested": nested, "single": nested - {"residual"}}
    for run, parts in stages.items():
        assert [sorted(part.sizes) for part in parts] == arms[arm(run)]


def test_every_training_computes_as_much_in_the_same_shares(stages):
    totals = {run: sum(work(parts)) for run, parts in stages.items()}
    assert totals == pytest.approx(dict.fromkeys(totals, totals["base"]), rel=0.005)
    shares = {run: work(parts)[0] / totals[run] for run, parts in stages.items()}
    assert shares == pytest.approx(dict.fromkeys(shares, shares["base"]), rel=0.01)


def test_a_recipe_is_the_same_in_every_arm(stages, arms):
    """But for what a single level has no use for, and the schedule of 64 px, which all arms share."""
    own = {"residual_levels", "base_resolution"}
    for name in ("paper", "x0", "residual", "weights"):
        found = [
            [r.diffusion.model_dump(exclude=own) for r in parts] for run, parts in stages.items() if recipe(run) == name
        ]
        assert all(one == found[0] for one in found)
    assert stages["single-weights"][1].diffusion.base_resolution == arms["nested"][0][0]
    assert stages["nested-weights"][1].diffusion.residual_levels
    for parts in stages.values():
        assert [
            part.train.model_dump(exclude={"cooldown_images", "warmup_images", "inner_rate"}) for part in parts
        ] == [stages["base"][0].train.model_dump(exclude={"cooldown_images", "warmup_images", "inner_rate"})] * 2


def test_every_run_that_a_claim_names_is_trained_often_enough(study):
    seeds = {}
    for run in study.runs:
        seeds.setdefault(run.name, set()).add(run.seed)
    named = {r.run for claim in study.claims.values() for r in references(parse(claim.expect))}
    assert len(named) > 6 and all(len(seeds[run]) >= TRAININGS for run in named)


def test_what_it_does_not_train_anew_it_shares_with_the_study_that_it_varies(study):
    shared = load({"today": "laptop", "today-gpu": "workstation"}[study.name]).artifacts
    assert all(ref in shared for ref in study.of_kind("data", "text", "judge", "clip"))


def test_every_run_is_asked_for_its_loss_beyond_the_optimum(study):
    assert all(run.excess for run in study.runs)
    noised = {
        tuple(study.recipe(run.excess).plain()[key] for key in ("data", "num_images", "seed")) for run in study.runs
    }
    assert len(noised) == 1
