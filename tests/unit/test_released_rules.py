"""The released code's rules of training, each against its formula: rates, averages, decay, gradients, order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_classes import UNCONDITIONAL, World
from test_train_guards import DIFFUSION, config, example, fresh
from torch import nn

from mdm.config import TrainConfig
from mdm.data.batches.loader import Loader
from mdm.data.batches.released_order import ReleasedOrder
from mdm.diffusion.schedule import levels
from mdm.files.atomic import ArtifactError
from mdm.model.ema import Ema, beta
from mdm.train.example import training_examples
from mdm.train.guards import Finite
from mdm.train.optim import picture_values, rate_share, sanitize, shorten
from mdm.train.ranks import Ranks
from mdm.train.step import training_step

GOLDEN = Path(__file__).resolve().parents[1] / "numerics" / "golden"


@pytest.mark.parametrize("window", [0.0, 0.5])
@pytest.mark.parametrize("count", [20, 500, 1000])
def test_pictures_come_in_the_released_order(count: int, window: float) -> None:
    golden = np.load(GOLDEN / "memo_data.npz")[f"order/{count}/window_{window}"]
    np.testing.assert_array_equal(ReleasedOrder([count], 1024, window).numbers(0, len(golden)), golden)
    spread = ReleasedOrder([count // 2, 0, count - count // 2], 1024, window)
    np.testing.assert_array_equal(spread.numbers(0, len(golden)), golden, "how a set is stored changes nothing")


@pytest.mark.parametrize("window", [0.0, 0.5])
def test_any_place_of_it_equals_the_unbroken_run(window: float) -> None:
    order, draws = ReleasedOrder([7, 13], 3, window), np.random.default_rng(0)
    whole = order.numbers(0, 260)
    for start in draws.integers(0, 200, 40).tolist():
        np.testing.assert_array_equal(order.numbers(start, 60), whole[start : start + 60])
    epochs = whole[: 13 * 20].reshape(13, 20)
    assert (epochs == epochs[0]).all() == (window == 0)
    assert (np.sort(epochs[0]) == np.arange(20)).all() == (window == 0), "in the first one, places come from its end"


def test_training_follows_the_order_it_asks_for(tmp_path: Path) -> None:
    world = World(tmp_path, UNCONDITIONAL | {"base.train.order": "same-every-epoch", "base.train.batch_images": 16})
    recipe = world.study.recipe(world.train)
    assert recipe.plain()["train"]["order"] == "same-every-epoch"
    loader = training_examples(world.path(world.train), recipe, Ranks())._loader
    wanted = np.arange(40)
    np.random.RandomState(recipe.seed).shuffle(wanted)
    seen = np.concatenate([loader.batch(images).ids.numpy() for images in range(0, 128, 16)])
    np.testing.assert_array_equal(seen, np.tile(wanted, 4)[:128])
    parts = [Loader(world.data, None, 16, 0, 8, rank=r, world=2, order="same-every-epoch") for r in range(2)]
    np.testing.assert_array_equal(parts[1].batch(32).ids.numpy(), np.tile(wanted, 2)[33:48:2])
    again = Loader(world.data, None, 16, 0, 8, order="sliding-window")
    assert len(set(again.ids(0, 40).tolist())) < 40, "a picture may come again before all have been shown"


def test_the_first_step_has_no_rate_where_images_before_it_count() -> None:
    asked = config(batch_images=10, warmup_images=40, images_counted="before-step")
    assert [rate_share(asked, images, 10**6) for images in range(0, 70, 10)] == [0, 0.25, 0.5, 0.75, 1, 1, 1]
    with_step = config(batch_images=10, warmup_images=40)
    assert [rate_share(with_step, images, 10**6) for images in range(0, 50, 10)] == [0.25, 0.5, 0.75, 1, 1]
    without = config(batch_images=10, images_counted="before-step")
    assert [rate_share(without, images, 10**6) for images in (0, 10, 20)] == [0, 1, 1]


def released_average(mode: int, batch: int, count: int, before: int, final: float = 0.0) -> float:
    """The rule of the specification, section D, for a set of `count` pictures; half-lives without rounding."""
    ratio, half = 50_000 / count, min(0.5 * count / 50 * 1000, 0.05 * before)
    if mode == 2:
        return 0.5 ** (512 / max(half, 1e-8) / ratio)
    return final / 0.5 ** (batch / 500_000) * 0.5 ** (batch / max(half, 1e-8) / ratio)


@pytest.mark.parametrize("batch", [8, 512, 896])
@pytest.mark.parametrize("count", [20, 200, 1000, 16000])
def test_averages_follow_the_released_rules(batch: int, count: int) -> None:
    """Both as settings of ours: mode2 spans batch / 512 times as many images, mode4 ends at what it is told."""
    longer = batch / 512
    ramp = 0.05 * 50_000 / count
    for before in (0, batch, 5 * batch, 100 * count, 300 * count):
        mode2 = beta(batch, 500_000 * longer, before, ramp * longer)
        assert mode2 == pytest.approx(released_average(2, batch, count, before), rel=1e-9, abs=1e-30)
        for final in (0.0, 0.5, 0.999):
            mode4 = beta(batch, 500_000, before, ramp, final)
            assert mode4 == pytest.approx(released_average(4, batch, count, before, final), rel=1e-9, abs=1e-30)
    # After the ramp of 200 epochs it is the same for every size of set, also below 100 pictures.
    assert beta(batch, 500_000 * longer, 201 * count, ramp * longer) == pytest.approx(0.99929, abs=1e-5)
    assert beta(batch, 500_000, 201 * count, ramp, 0.9) == pytest.approx(0.9)


def averaged(steps: int, **changes) -> list[float]:
    """The average of a number that is 1, 2, 3, ... after each step, from 0."""
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0)
    settings = config(**{"ema_halflife_images": None} | changes)
    average = Ema(network, settings.ema_halflife_images, settings.ema_ramp, settings.ema_width, settings.ema_beta)
    found = []
    for step in range(steps):
        with torch.no_grad():
            network.weight.fill_(step + 1)
        average.update(2, settings.counted(2 * step))
        found.append(float(average.state_dict()["weight"]))
    return found


def test_an_average_with_a_constant_share_and_none_at_all() -> None:
    assert averaged(3, ema_beta=0.5) == pytest.approx([0.5, 1.25, 2.125])
    assert averaged(3, ema_beta=0.0) == [1, 2, 3]
    assert averaged(3, ema_beta=0.0, ema_halflife_images=100.0, ema_ramp=None) == [1, 2, 3]
    assert averaged(2, ema_halflife_images=2.0, ema_ramp=None) == pytest.approx([0.5, 1.25])
    assert averaged(1, ema_halflife_images=2.0, ema_ramp=0.05, images_counted="before-step") == [1]


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_coupled_decay_is_adam_on_the_summed_loss(decay: float) -> None:
    """Our gradient is that of a mean over the 768 values of a picture of 16 px; the reference has the sum's."""
    settings = config(decay="coupled", weight_decay=decay, betas=(0.9, 0.999), epsilon=1e-2, learning_rate=0.1)
    state = fresh(settings)
    assert picture_values(state.model) == 768 and type(state.optimizers[0]) is torch.optim.Adam
    wanted = [parameter.detach().clone().requires_grad_() for parameter in state.trained]
    reference = torch.optim.Adam(wanted, lr=0.1, betas=(0.9, 0.999), eps=1e-2, weight_decay=decay)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for ours, theirs in zip(state.trained, wanted, strict=True):
            theirs.grad = torch.randn(theirs.shape, generator=generator)
            ours.grad = torch.empty_like(ours).copy_(theirs.grad / 768)
        for group in state.optimizers[0].param_groups:
            group["lr"] = 0.1
        state.step()
        reference.step()
    for ours, theirs in zip(state.trained, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    saved, again = state.tensors(), fresh(settings)
    again.restore(saved, 6)
    assert again.tensors().keys() == saved.keys(), "its moments are saved like AdamW's"


def test_gradients_are_made_finite_within_the_released_bounds() -> None:
    weight = nn.Parameter(torch.zeros(4))
    weight.grad = torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0])
    sanitize([weight, nn.Parameter(torch.zeros(1))], values=10)
    assert weight.grad.tolist() == [0, 1e4, -1e4, 2]


def test_a_broken_picture_leaves_finite_weights_and_training_goes_on(tmp_path: Path, capsys) -> None:
    settings = config(sanitize_gradients=True, clip_norm=None)
    state, gammas = fresh(settings), levels(DIFFUSION, (16, 8))
    finite = Finite(settings, (16, 8), None, state)
    for number in range(3):
        _, per_level, norm = training_step(state, settings, DIFFUSION, gammas, example(number, broken=number == 1))
        finite.note(state.images, per_level, norm)
    finite.check(state)
    assert "the step before image 4 was not finite and its gradient was made finite" in capsys.readouterr().out
    assert all(tensor.isfinite().all() for tensor in state.tensors().values()) and state.skipped == 0


def test_without_it_the_same_picture_ends_training(tmp_path: Path) -> None:
    from mdm.train.checkpoint import Autosaves

    settings = config()
    state, gammas = fresh(settings), levels(DIFFUSION, (16, 8))
    finite = Finite(settings, (16, 8), Autosaves(tmp_path, 0), state)
    _, per_level, norm = training_step(state, settings, DIFFUSION, gammas, example(1, broken=True))
    finite.note(state.images, per_level, norm)
    with pytest.raises(ArtifactError, match="not finite"):
        finite.check(state)


def test_gradients_are_shortened_only_where_asked() -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([30.0, 40.0])
    assert float(shorten([weight], None)) == pytest.approx(50) and weight.grad.tolist() == [30, 40]
    assert float(shorten([weight], 5.0)) == pytest.approx(50) and weight.grad.tolist() == pytest.approx([3, 4])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ema_width": 0.1, "ema_halflife_images": None, "ema_beta": 0.5}, "ema_width 0.1 and ema_beta 0.5: write one"),
        ({"ema_halflife_images": None}, "write one of them"),
        ({"ema_halflife_images": None, "ema_beta": 0.5, "ema_ramp": 0.1}, "ema_ramp 0.1 has no effect without"),
        ({"ema_beta": 1.0}, "less than 1"),
        ({"decay": "coupled", "matrix_rate": 0.1}, "decay: coupled is Adam's; matrix_rate 0.1 needs"),
        ({"sanitize_gradients": True, "skip_nonfinite": 3}, "skip_nonfinite 3 has no effect with sanitize_gradients"),
    ],
)
def test_settings_without_effect_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**changes)


def test_none_of_them_stands_in_a_recipe_that_does_not_ask_for_it() -> None:
    plain = TrainConfig(batch_images=2, learning_rate=1, ema_halflife_images=1).model_dump()
    assert not {"decay", "images_counted", "ema_ramp", "ema_beta", "sanitize_gradients", "order"} & plain.keys()
