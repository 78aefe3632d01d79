"""The upsampler: what it sees of a small picture, what it is told of its noise, and where both come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mdm.config import (
    AugmentationConfig,
    DiffusionConfig,
    LevelConfig,
    LowConfig,
    ModelConfig,
    SampleConfig,
    TrainConfig,
)
from mdm.diffusion import noise, schedule
from mdm.diffusion.augmentation import augmented, drawn_levels, spread_levels
from mdm.diffusion.sampler import sample
from mdm.evaluate.archive import ArrayStream, read_rows, write_archive
from mdm.files.atomic import ArtifactError
from mdm.model.arithmetic import parameters
from mdm.model.networks import build
from mdm.model.presets import PRESETS
from mdm.model.upsampler import Low, Upsampler, enlarged, seeing
from mdm.train.example import Example
from mdm.train.low import small
from mdm.train.optim import make_optimizers
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step

LEVEL = LevelConfig(resolution=8, channels=(16, 32), resnets=(1, 1), attention=(0, 1), middle=True, norm_groups=8)
PLAIN = ModelConfig(levels=(LEVEL,), time_channels=32, classes=3)
CONFIG = PLAIN.model_copy(update={"upsamples": LowConfig(size=4)})
UNIFORM = AugmentationConfig(levels="uniform", schedule="squared-cosine", steps=1000)
DIFFUSION = DiffusionConfig(steps=100)


def awake(network):
    """Fresh networks end in zeros; every weight made different from zero."""
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def question(rows=4):
    generator = torch.Generator().manual_seed(1)
    noisy, low = torch.randn(rows, 3, 8, 8, generator=generator), torch.randn(rows, 3, 4, 4, generator=generator)
    times, labels = torch.arange(rows) * 20, torch.arange(rows) % 3
    return [noisy], times, labels, Low(low, torch.linspace(0, 0.5, rows))


def test_an_untrained_condition_changes_nothing():
    plain, network = awake(build(PLAIN)), build(CONFIG).eval()
    fresh = network.load_state_dict(plain.state_dict(), strict=False)
    assert {name.partition(".")[0] for name in fresh.missing_keys} == {"low_in", "low_layer1", "low_layer2"}
    noisy, times, labels, low = question()
    assert torch.equal(network(noisy, times, labels=labels, low=low)[0], plain(noisy, times, labels=labels)[0])


def test_weights_are_counted():
    added = (3 * 9 * 16 + 16) + (8 * 32 + 32) + (32 * 32 + 32)  # convolution, and the two layers of the level
    assert parameters(CONFIG) - parameters(PLAIN) == added
    folded = LevelConfig(resolution=8, patch=2, channels=(32,), resnets=(1,), middle=True, norm_groups=8)
    for config in (CONFIG, CONFIG.model_copy(update={"levels": (folded,)})):
        assert parameters(config) == sum(p.numel() for p in build(config).parameters())


def test_a_plain_network_is_as_large_as_the_nest_of_256_px():
    """Within a hundredth, as docs/settings.md says it."""
    level = {"resolution": 256, "channels": [64, 128, 256, 512, 768], "resnets": [2, 2, 5, 2, 2], "middle": True,
             "attention": [0, 0, 0, 1, 5]}  # fmt: skip
    upsampler = ModelConfig(levels=[level], time_channels=1024, text_channels=2048, upsamples={"size": 64})
    assert abs(parameters(upsampler) / parameters(PRESETS["released-256"]()) - 1) < 0.01


def test_the_first_convolution_reads_the_enlarged_picture_beside_the_noisy_one():
    network = awake(build(CONFIG))
    noisy, times, labels, low = question()
    weight = torch.cat([network.conv_in.weight, network.low_in.weight], dim=1)
    joined = torch.cat([noisy[0], enlarged(low.pictures, CONFIG.upsamples, 8)], dim=1)
    wanted = torch.conv2d(joined, weight, network.conv_in.bias + network.low_in.bias, padding=1)
    first = []
    network.down_blocks[0].resnets[0].norm1.register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    network(noisy, times, labels=labels, low=low)
    assert torch.allclose(first[0], wanted, atol=1e-5)
    # Corners are half a pixel inside: an operator with aligned corners would keep them as they are.
    ramp = torch.arange(4.0).expand(1, 3, 4, 4)
    assert enlarged(ramp, CONFIG.upsamples, 8)[0, 0, 0, :4].tolist() == [0.0, 0.25, 0.75, 1.25]


def trained_state(steps=3):
    settings = TrainConfig(batch_images=4, learning_rate=1e-2, ema_halflife_images=8)
    network = build(CONFIG)
    state = TrainingState(network, average_of(network, settings), make_optimizers(network, settings, set()))
    gammas, generator = schedule.levels(DIFFUSION, (8,)), torch.Generator().manual_seed(0)
    for number in range(steps):
        ids = range(4 * number, 4 * number + 4)
        clean = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
        levels = drawn_levels(UNIFORM, 0, ids)
        low = Low(augmented(UNIFORM, small(clean, 4), levels, 0, ids), levels)
        parts = ([clean], noise.training_noises(DIFFUSION, 0, ids, (8,)), noise.training_times(DIFFUSION, 0, ids))
        training_step(
            state, settings, DIFFUSION, gammas, Example(*parts, None, None, torch.zeros(4, dtype=int), ids, low)
        )
    return state


def test_training_learns_to_read_the_picture_and_its_level():
    state = trained_state()
    network = state.model.eval()
    noisy, times, labels, low = question()
    said = network(noisy, times, labels=labels, low=low)[0]
    louder = network(noisy, times, labels=labels, low=Low(low.pictures, low.levels + 0.3))[0]
    other = network(noisy, times, labels=labels, low=Low(low.pictures.flip(0), low.levels))[0]
    assert not torch.equal(said, louder) and not torch.equal(said, other)
    assert all(float(p.detach().abs().max()) > 0 for p in (network.low_in.weight, network.low_layer2.weight))


def test_both_branches_of_guidance_see_the_same_small_picture():
    network, gammas = awake(build(CONFIG)), schedule.levels(DIFFUSION, (8,))
    noisy, times, labels, low = question(2)
    twice = network([torch.cat([noisy[0]] * 2)], times.repeat(2), labels=labels.repeat(2), low=low)[0]
    assert torch.allclose(twice[:2], twice[2:], atol=1e-5)
    assert torch.allclose(twice[:2], network(noisy, times, labels=labels, low=low)[0], atol=1e-5)
    drawn = []
    for guidance in (1.0, 3.0):
        settings = SampleConfig(steps=2, guidance=guidance)
        conditions = {"labels": labels, "negative_labels": torch.tensor([3])}
        none = [None] * 4
        drawn.append(sample(seeing(network, low), gammas, settings, DIFFUSION, (8,), *none, [0, 1], 0, **conditions)[0])
    assert not torch.allclose(*drawn)


@pytest.mark.parametrize(
    ("low", "said"),
    [
        (None, "needs small pictures of 4 px, but none were given"),
        (Low(torch.zeros(4, 3, 2, 2), torch.zeros(4)), r"takes small pictures \[B, 3, 4, 4\]"),
        (Low(torch.zeros(4, 3, 4, 4), torch.zeros(3)), "with 3 levels were given"),
        (Low(torch.zeros(3, 3, 4, 4), torch.zeros(3)), "3 small pictures do not fit a batch of 4"),
    ],
)
def test_wrong_small_pictures_are_refused(low, said):
    noisy, times, labels, _ = question()
    network = build(CONFIG)
    assert isinstance(network, Upsampler)
    with pytest.raises(ValueError, match=said):
        network(noisy, times, labels=labels, low=low)


@pytest.mark.parametrize(
    ("size", "levels", "said"),
    [(8, 1, "write 2 or 4"), (3, 1, "whose side divides theirs"), (4, 2, "has one level, of pictures")],
)
def test_networks_that_cannot_enlarge_are_refused(size, levels, said):
    outer = {"resolution": 16, "channels": (16, 16), "resnets": (1, 1), "norm_groups": 8}
    nest = [LEVEL.model_dump(), outer][:levels]
    with pytest.raises(ValidationError, match=said):
        ModelConfig(levels=nest, time_channels=32, upsamples={"size": size})


def test_noise_is_that_of_the_base_at_this_share_of_its_way():
    low = torch.rand(5, 3, 4, 4) * 2 - 1
    levels = torch.tensor([0.0, 0.1, 0.3, 0.999, 0.5])
    found = augmented(UNIFORM, low, levels, 3, range(5))
    assert torch.equal(found[0], low[0])
    gammas = schedule.alpha_bar("squared-cosine", 1000)[torch.tensor([0, 100, 300, 999, 500])].view(-1, 1, 1, 1)
    epsilon = noise.normal("augmentation", 3, range(5), (3, 4, 4), level=4)
    assert torch.allclose(found, gammas.sqrt() * low + (1 - gammas).sqrt() * epsilon)


def test_levels_and_noise_are_functions_of_seed_and_number():
    low = torch.rand(6, 3, 4, 4)
    levels = drawn_levels(UNIFORM, 1, range(6))
    whole = augmented(UNIFORM, low, levels, 1, range(6))
    parts = []
    for first in (0, 2, 4):
        ids = range(first, first + 2)
        parts.append(augmented(UNIFORM, low[first : first + 2], drawn_levels(UNIFORM, 1, ids), 1, ids))
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(levels, drawn_levels(UNIFORM, 2, range(6)))
    none = UNIFORM.model_copy(update={"levels": "none"})
    assert torch.equal(drawn_levels(none, 1, range(6)), torch.zeros(6))
    assert torch.equal(augmented(none, low, drawn_levels(none, 1, range(6)), 1, range(6)), low)


def test_levels_end_where_they_are_asked_to():
    short = UNIFORM.model_copy(update={"most": 0.25})
    drawn, spread = drawn_levels(short, 1, range(400)), spread_levels(short, 400)
    assert torch.equal(drawn, drawn_levels(UNIFORM, 1, range(400)) * 0.25)
    assert 0.23 < drawn.max() < 0.25 and 0.24 < spread.max() < 0.25 and abs(spread.mean() - 0.125) < 0.01


def test_levels_are_uniform_and_independent_of_times():
    count = 2000
    levels = drawn_levels(UNIFORM, 0, range(count)).numpy()
    times = noise.training_times(DIFFUSION, 0, range(count)).numpy()
    assert levels.min() >= 0 and levels.max() < 1
    assert np.abs(np.sort(levels) - np.linspace(0, 1, count)).max() < 1.36 / np.sqrt(count)  # Kolmogorov, 5 %
    assert abs(np.corrcoef(levels, times)[0, 1]) < 0.06
    spread = spread_levels(UNIFORM, 64).numpy()
    assert np.abs(np.sort(spread) - np.linspace(0, 1, 64)).max() < 0.05
    assert abs(np.corrcoef(spread, np.arange(64))[0, 1]) < 0.1


def test_small_pictures_are_means_in_whole_grey_levels():
    images = torch.randint(0, 256, (2, 3, 8, 8)).float() / 127.5 - 1
    found = (small(images, 4) + 1) * 127.5
    assert torch.allclose(found, found.round(), atol=1e-3)
    means = (images.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-1, -2)) + 1) * 127.5
    assert (found - means).abs().max() <= 0.5 + 1e-3


def test_rows_of_an_archive_are_read_by_number(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    arrays = {"ids": ArrayStream.of(np.arange(7)), "images_4": ArrayStream.of(pictures)}
    write_archive(tmp_path / "images.npz", arrays)
    assert np.array_equal(read_rows(tmp_path / "images.npz", "images_4", [5, 0, 6]), pictures[[5, 0, 6]])
    with pytest.raises(ArtifactError, match="holds 7 pictures, but number 7"):
        read_rows(tmp_path / "images.npz", "images_4", [7])
