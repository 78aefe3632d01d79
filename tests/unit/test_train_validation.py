"""The held-out loss: a number of the weights alone, whatever it is measured with."""

import pytest
import torch
from test_train_guards import config, fresh

from mdm.config import DiffusionConfig
from mdm.config.recipe import StageRecipe
from mdm.config.sizes import Clip
from mdm.diffusion.loss import training_loss
from mdm.diffusion.noise import spread_times
from mdm.diffusion.schedule import levels
from mdm.train import validation
from mdm.train.example import Example
from mdm.train.validation import Validation, parts

COUNT, SIZES = 8, (16, 8)


def measured(state, **train):
    """The held-out losses of a state, as a training with these settings measures them."""
    generator = torch.Generator().manual_seed(0)
    images, noises = ([torch.randn(COUNT, 3, r, r, generator=generator) for r in SIZES] for _ in range(2))
    example = Example(images, noises, spread_times(DiffusionConfig(), COUNT), None, None, None, range(COUNT))
    recipe = StageRecipe.model_construct(
        train=config(**train), diffusion=DiffusionConfig(mixed_ratio=(1, 1)), model=state.model.config, num_images=100
    )
    table = levels(DiffusionConfig(), SIZES)
    with torch.no_grad(), state.ema.applied():
        whole = training_loss(state.model.eval(), DiffusionConfig(), table, *example.inputs())[1].tolist()
    return Validation(recipe, example, table).measure(state), whole


def test_parts_measure_what_the_whole_does(monkeypatch):
    state = fresh(config())
    for parameter in state.model.parameters():  # fresh networks end in zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    state.ema.update(2, 2)
    at_once, whole = measured(state)
    assert at_once == {"16": [whole[0]], "8": [whole[1]]} and min(whole) > 0
    assert measured(state, batch_images=64)[0] == at_once
    monkeypatch.setattr(validation, "PIXELS", 2 * 16**2)
    assert parts(COUNT, SIZES[0]) == 4
    found = measured(state)[0]
    assert {name: values[0] for name, values in found.items()} == pytest.approx(
        {"16": whole[0], "8": whole[1]}, rel=1e-6
    )
    assert measured(state, batch_images=64)[0] == found


def test_large_pictures_are_measured_few_at_a_time():
    # Before, 64 pictures of 1024 px went through the network together: more than a GPU holds.
    assert [64 // parts(64, size) for size in (8, 64, 96, 256, 512, 1024, Clip(16, 256))] == [64, 64, 16, 4, 1, 1, 1]
    assert parts(7, 1024) == 1
