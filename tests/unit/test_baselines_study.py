"""The paper's Figure 4 in small: five arms at equal compute, and what limits two of them."""

import pytest

from mdm.model.arithmetic import step_gigaflops
from mdm.study import study

ARMS = ("base", "nested", "simple", "cascaded", "latent")
TOKENS = 14  # of the longest caption of its scenes


@pytest.fixture(scope="module")
def loaded():
    return study.load("baselines")


def runs_of(loaded, name):
    return [run for run in loaded.runs if run.name == name]


def test_data_and_instruments_are_the_laptop_studys(loaded):
    assert set(loaded.of_kind("data", "judge", "clip")) <= set(study.load("laptop").artifacts)


def test_every_arm_computes_as_much_and_has_a_curve(loaded):
    work = {}
    for name in ARMS:
        run = runs_of(loaded, name)[0]
        recipes = [loaded.recipe(stage.artifact) for stage in run.stages]
        work[name] = sum(r.num_images * step_gigaflops(r.model, r.diffusion, TOKENS) for r in recipes)
        assert len(run.points) >= 3 and len(runs_of(loaded, name)) == 3
    assert work == pytest.approx(dict.fromkeys(work, work["base"]), rel=0.003)


def test_the_cascade_shares_what_it_can(loaded):
    base, cascaded, noisy, real, weak, plain = (
        runs_of(loaded, name)[0]
        for name in ("base", "cascaded", "noise-when-drawing=0.2", "real-small-pictures", "weak-base=with-noise",
                     "weak-base=without")
    )  # fmt: skip
    assert base.stages[0].artifact == cascaded.stages[0].artifact
    upsamplers = [run.stages[1].artifact for run in (cascaded, noisy, real, weak)]
    assert len(set(upsamplers)) == 1, "an upsampler is trained on real pictures, whatever draws its small ones later"
    assert plain.stages[1].artifact not in upsamplers and plain.stages[0].artifact == weak.stages[0].artifact
    assert cascaded.evaluations[0].lows == noisy.evaluations[0].lows, "what the base draws is drawn once"
    assert not real.evaluations[0].lows and loaded.recipe(real.evaluations[0].samples).low.startswith("data/")


def test_reconstructions_and_drawn_codes_share_the_autoencoder(loaded):
    latent, real = runs_of(loaded, "latent")[0], runs_of(loaded, "reconstruction")[0]
    assert [stage.artifact for stage in latent.stages] == [stage.artifact for stage in real.stages]
    assert loaded.recipe(real.evaluations[0].samples).sample.latents == "real"


def test_removing_an_arm_removes_its_jobs_alone(loaded):
    kept = [claim for claim in loaded.claims.values() if "latent" not in claim.expect]
    without = study.load("baselines", {
        "ablations": {n: e.model_dump(exclude_unset=True) for n, e in loaded.config.ablations.items()
                      if n not in ("latent", "reconstruction")},
        "claims": {c.name: loaded.config.claims[c.name].model_dump(exclude_unset=True) for c in kept},
        "along.runs": ["base", "nested", "simple", "cascaded"],
    })  # fmt: skip
    gone = set(loaded.artifacts) - set(without.artifacts)
    assert set(without.artifacts) <= set(loaded.artifacts)
    own = {"latent": {a for run in runs_of(loaded, "latent") for a in (stage.artifact for stage in run.stages)}}
    assert own["latent"] <= gone
    assert all(ref.startswith(("autoencoder/", "latents/", "train/", "snapshot/", "samples/", "features/", "scores/"))
               for ref in gone)  # fmt: skip
