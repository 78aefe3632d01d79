"""Every setting of a training changes what it says: a new one without an entry here fails."""

import click
import pytest
import torch
from test_train_guards import DIFFUSION, config, example, fresh

from mdm import cli
from mdm.config import TrainConfig, TrainingResources
from mdm.diffusion.schedule import levels
from mdm.files.weights import state_hash
from mdm.model.execution import Execution
from mdm.study.run.cluster import asks
from mdm.train.example import dropped
from mdm.train.optim import make_optimizers, rate_share, set_rates
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step

CHANGES = {
    "learning_rate": 2e-3,
    "inner_rate": 0.5,
    "matrix_rate": 0.01,
    "betas": (0.8, 0.99),
    "epsilon": 1e-3,
    "weight_decay": 0.1,
    "warmup_images": 16,
    "cooldown_images": 16,
    "clip_norm": 1e-3,
    "ema_halflife_images": 0.01,  # longer ones are cut to a twentieth of the few images seen
    "ema_width": 0.2,
    "precision": "bf16",
    "decay": "coupled",
    "images_counted": "before-step",
    "ema_ramp": 0.5,
    "ema_beta": 0.3,
}
# What acts elsewhere than in a step, and the test that shows it.
ELSEWHERE = {
    "batch_images": "test_study: a batch that does not divide",
    "condition_dropout": "test_the_share_of_dropped_captions",
    "decode": "test_loader: test_dct_decoding_is_a_policy_of_the_loader",
    "validate_images": "test_train: test_the_end_of_a_stage_is_measured_with_other_noises_too",
    "sanitize_gradients": "test_released_rules: test_gradients_are_made_finite_within_the_released_bounds",
    "order": "test_released_rules: test_training_follows_the_order_it_asks_for",
    "skip_nonfinite": "test_train_guards: test_a_step_that_is_not_finite_may_be_left_out",
}


def trained(**changes):
    """The hash of all state after three steps; the lower level came from a parent."""
    torch.manual_seed(0)
    settings = config(**changes)
    model = fresh(config()).model
    inherited = {name for name, _ in model.named_parameters() if name.startswith("inner_unet.")}
    for parameter in model.parameters():  # fresh networks end in zeros
        parameter.data += 0.02 * torch.randn_like(parameter)
    state = TrainingState(model, average_of(model, settings), make_optimizers(model, settings, inherited))
    for number in range(3):
        set_rates(state.optimizers, rate_share(settings, state.images, 6))
        training_step(state, settings, DIFFUSION, levels(DIFFUSION, (16, 8)), example(number))
    return state_hash(state.tensors())


@pytest.fixture(scope="module")
def plain():
    found = trained()
    assert trained() == found
    return found


def test_no_setting_is_without_a_test():
    assert CHANGES.keys() | ELSEWHERE.keys() == TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_changes_the_training(plain, name):
    other = {"ema_halflife_images": None} if name == "ema_width" else {}
    assert trained(**{name: CHANGES[name]}, **other) != plain


def test_the_share_of_dropped_captions():
    count = 20_000
    for share in (0.1, 0.5):
        gone = dropped(3, range(count), share)
        assert abs(gone.double().mean() - share) < 5 * (share * (1 - share) / count) ** 0.5
    assert not dropped(3, range(count), 0.0).any() and dropped(3, range(count), 1.0).all()
    # A function of (seed, image counter): any part of it, in any company, is the same.
    assert torch.equal(dropped(3, range(7, count, 4), 0.5), gone[7::4])
    assert not torch.equal(dropped(4, range(count), 0.5), gone)


RESOURCES = {"nodes": 2, "gpus": 4, "recompute": (8,), "compile": "blocks", "accumulate": 3, "shard_optimizer": True,
             "preview_images": 64}  # fmt: skip
OF_THE_JOB = {"cpus", "minutes", "memory_mb"}  # resources of Snakemake under their own names: workflow/rules/train.smk


def test_every_resource_reaches_the_job_or_its_training(root):
    wanted = TrainingResources(**RESOURCES)
    words = ["recipe.json", "--out", "final.ckpt", *wanted.options.split()]
    top = click.Context(cli.door, **cli.door.context_settings)
    options = cli.door.commands["train"].make_context("train", words, top).params
    found = Execution(**{name: options[name] for name in ("recompute", "compile", "accumulate", "shard_optimizer")})
    assert found == Execution((8,), "blocks", 3, True) and options["preview_images"] == 64
    assert (asks(wanted)["gres"], asks(wanted)["tasks"], wanted.parts) == ("gpu:4", 8, 24)
    assert RESOURCES.keys() | OF_THE_JOB == TrainingResources.model_fields.keys()
    rule = (root / "workflow" / "rules" / "train.smk").read_text()
    assert all(f'partial(resource, "train", "{name}")' in rule for name in (*OF_THE_JOB, "nodes", "gpus"))
