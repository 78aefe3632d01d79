"""Levels of clips: frames, chains of levels, joint batches, growing, drawing, training."""

from __future__ import annotations

import pytest
import torch
from test_model_build import awake, innermost, level, some_text

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SampleConfig, StudyError, VideoConfig
from mdm.config.sizes import Clip, shape
from mdm.diffusion import loss, noise, sampler, schedule
from mdm.files.weights import state_hash
from mdm.model import video
from mdm.model.checkpoints import grow, inner_state
from mdm.model.nested import build
from mdm.model.presets import PRESETS
from mdm.study.stage_settings import stage_model

TIME = {"frames": 4, "attention": (1, 1, 0), "rotary": True}


def clips(resolution: int = 8, channels: tuple[int, ...] = (32, 32, 32), **settings: object) -> LevelConfig:
    more = settings.pop("level", {})
    return level(resolution, channels, video=VideoConfig(**(TIME | settings)), **more)


def large(resolution: int = 16, frames: int = 4, **settings: object) -> LevelConfig:
    return level(resolution, (32, 32), video=VideoConfig(frames=frames, halves="space", **settings))


def config(*outer: LevelConfig, **settings: object) -> ModelConfig:
    return ModelConfig(levels=(innermost(), *outer), **({"text_channels": 16, "text_projection": 32} | settings))


def paper_in_small() -> ModelConfig:
    """8 px, 16 frames of 8 px, 16 frames of 16 px."""
    frames = clips(channels=(32,) * 5, frames=16, attention=(1, 1, 1, 1, 0))
    return config(frames, large(frames=16))


def inputs(network: ModelConfig, rows: tuple[int, ...]) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    found = [torch.randn(n, *shape(s), generator=generator) for n, s in zip(rows, network.resolutions, strict=True)]
    return found, torch.arange(rows[-1]) * 300


def moving_squares(numbers: range, frames: int, side: int) -> torch.Tensor:
    """Clips [B,T,3,R,R] in [-1,1]: a bright square that moves to the right, in a row that depends on the number."""
    film = torch.full((len(numbers), frames, 3, side, side), -1.0)
    for clip, number in zip(film, numbers, strict=True):
        for t, frame in enumerate(clip):
            top, left = number % (side // 2), t * side // (2 * frames)
            frame[:, top : top + side // 2, left : left + side // 2] = 1
    return film


def test_the_papers_network() -> None:
    preset = PRESETS["paper-video"]()
    assert preset.resolutions == (Clip(16, 256), Clip(16, 64), 64)
    assert [str(size) for size in preset.resolutions] == ["16x256", "16x64", "64"]
    with torch.device("meta"):
        network, released = build(preset), build(PRESETS["released-64"]())
    assert sum(p.numel() for p in network.parameters()) == 506_947_977
    inside = inner_state(network.state_dict(), 2)
    assert {k: t.shape for k, t in inside.items()} == {k: t.shape for k, t in released.state_dict().items()}


def test_gradient_reaches_every_parameter() -> None:
    network_config = paper_in_small()
    network, (pictures, times) = awake(build(network_config)).train(), inputs(network_config, (1, 2, 3))
    said = network(pictures, times, *some_text())
    assert [p.shape for p in said] == [p.shape for p in pictures]
    sum((p * torch.randn_like(p)).sum() for p in said).backward()
    silent = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {n for n in network.state_dict() if n.endswith("pos_emb.freqs")}


def test_any_depth() -> None:
    """Pictures in pictures in clips in longer clips in larger ones."""
    chain = (level(16), clips(16), clips(16, frames=16), large(32, frames=16))
    network_config = config(*chain)
    assert network_config.resolutions == (Clip(16, 32), Clip(16, 16), Clip(4, 16), 16, 8)
    network, (pictures, times) = awake(build(network_config)), inputs(network_config, (1, 1, 1, 1, 1))
    with torch.no_grad():
        said = network(pictures, times, *some_text(1))
        assert [p.shape for p in said] == [p.shape for p in pictures]
        pictures[-1] = pictures[-1] + 1  # the smallest picture reaches every level
        moved = network(pictures, times, *some_text(1))
    assert all((a - b).abs().max() > 1e-4 for a, b in zip(said, moved, strict=True))


def test_a_joint_batch_of_clips_and_pictures() -> None:
    network_config = config(clips())
    network, (pictures, times) = awake(build(network_config)), inputs(network_config, (2, 3))
    text = some_text()
    with torch.no_grad():
        said = network(pictures, times, *text)
        films = network([pictures[0], pictures[1][:2]], times[:2], *(part[:2] for part in text))
        # A picture without a clip is told nothing by the level of clips.
        condition = network.encode(*text, None)
        alone = network.inner_unet.denoise([pictures[1]], times, condition, None, None)[0][0]
    torch.testing.assert_close(said[0], films[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said[1][:2], films[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said[1][2:], alone[2:], rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_joint_batch() -> None:
    film, stills = moving_squares(range(4), 16, 16), torch.rand(2, 3, 16, 16)
    sizes = (Clip(16, 16), Clip(4, 8), 8)
    images = loss.pyramid(film, sizes, stills)
    assert [len(x) for x in images] == [4, 4, 6]
    diffusion = DiffusionConfig(mixed_ratio=(4, 0, 2), loss_on="v")
    noises = noise.training_noises(diffusion, 0, range(6), sizes)

    def silent(pictures, *args, **kwargs):
        return [torch.zeros_like(x) for x in pictures]

    arguments = (images, torch.zeros(6, dtype=torch.long), noises)
    total, per_level = loss.training_loss(silent, diffusion, schedule.levels(diffusion, sizes), *arguments)
    assert total.isfinite()
    # The first noise level is nearly the clean picture: v is nearly the noise, whose mean square is 1 at any level.
    assert ((per_level - 1).abs() < 0.1).all()
    with pytest.raises(StudyError, match=r"have \[4, 4, 6\].*none sends \[6, 6, 6\]"):
        loss.training_loss(silent, DiffusionConfig(), schedule.levels(diffusion, sizes), *arguments)


def test_low_levels_show_every_kth_frame() -> None:
    film = torch.arange(16.0)[None, :, None, None, None] + torch.zeros(2, 16, 3, 8, 8)
    film[..., ::2] += 2
    levels = loss.pyramid(film, (Clip(16, 8), Clip(4, 8), Clip(4, 4), 4, 2))
    assert [tuple(x.shape[1:]) for x in levels] == [(16, 3, 8, 8), (4, 3, 8, 8), (4, 3, 4, 4), (3, 4, 4), (3, 2, 2)]
    assert levels[1][0, :, 0, 0, 1].tolist() == [0, 4, 8, 12]
    assert levels[2][0, :, 0, 0, 0].tolist() == [1, 5, 9, 13]
    assert (levels[4] == 1).all()
    with pytest.raises(ValueError, match="16 frames cannot be picked evenly from clips of 12"):
        loss.pyramid(film[:, :12], (Clip(16, 8),))
    with pytest.raises(ValueError, match="16 frames cannot be made from pictures"):
        loss.pyramid(film[:, 0], (Clip(16, 8),))


def test_noise_knows_clips_from_pictures_of_the_same_side() -> None:
    film, still = noise.training_noises(DiffusionConfig(), 0, range(3), (Clip(4, 8), 8))
    assert film.shape == (3, 4, 3, 8, 8)
    assert not any(torch.equal(film[:, t], still) for t in range(4))
    assert torch.equal(still, noise.normal("noise", 0, range(3), (3, 8, 8), level=8))
    shared = noise.training_noises(DiffusionConfig(shared_noise=True), 0, range(64), (Clip(4, 16), Clip(4, 8), 8))
    assert torch.equal(shared[1][:, 0], shared[2])
    assert abs(shared[2].std() - 1) < 0.02


def test_frames_count_in_the_schedule() -> None:
    gammas = schedule.levels(DiffusionConfig(), (Clip(16, 256), Clip(16, 64), 64))
    assert torch.equal(gammas, schedule.levels(DiffusionConfig(), (1024, 256, 64)))


def test_the_convolution_over_time_is_one_at_each_pixel() -> None:
    x = torch.randn(2 * 8, 5, 3, 4)
    for stride in (1, 2):
        layer = video.FrameConv(5, frames=8, stride=stride)
        pixel = x.view(2, 8, 5, 3, 4)[:, :, :, 1, 2].transpose(1, 2)
        expected = torch.nn.Conv1d.forward(layer, pixel).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(layer(x)[:, :, 1, 2], expected)
        by_rows = layer(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(by_rows, layer(x))


def test_rotary_products_depend_on_the_distance_in_time() -> None:
    rotary = video.Rotary(32)
    torch.testing.assert_close(rotary.freqs[[0, 8]], torch.tensor([1.0, 0.01]))
    query, key = (torch.randn(1, 1, 1, 32).expand(1, 1, 6, 32) for _ in range(2))
    products = (rotary(query) @ rotary(key).transpose(2, 3))[0, 0]
    for distance in range(-4, 5):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert rotary(query.bfloat16()).dtype == torch.bfloat16


def test_attention_over_frames() -> None:
    x = torch.randn(2 * 4, 64, 4, 4)
    plain, turning = (awake(video.FrameAttention(64, 4, rotary)) for rotary in (False, True))
    order = torch.tensor([2, 0, 3, 1, 4, 5, 6, 7])  # other frames in the first clip
    with torch.no_grad():
        torch.testing.assert_close(plain(x[order]), plain(x)[order], rtol=1e-4, atol=1e-5)
        turning.attn.pos_emb.freqs.copy_(video.Rotary(32).freqs)
        assert (turning(x[order]) - turning(x)[order]).abs().max() > 1e-3
        changed = x.clone()
        changed[0] += 1
        moved = (turning(changed) - turning(x)).abs().amax(dim=(1, 2, 3))
    assert (moved[:4] > 1e-3).all()
    assert not moved[4:].any()


def test_attention_over_many_pixels_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer = torch.randn(2 * 4, 32, 4, 4), awake(video.FrameAttention(32, 4, rotary=True))
    whole = layer(x)
    monkeypatch.setattr(video, "LARGEST_BATCH", 3)
    torch.testing.assert_close(layer(x), whole, rtol=1e-4, atol=1e-5)


def test_every_frame_reads_its_own_text() -> None:
    reading = clips(level={"attention": (0, 1, 0)})
    network_config = config(reading, mask_text=True)
    network, (pictures, times) = awake(build(network_config)), inputs(network_config, (3, 3))
    text, mask = some_text()
    mask = mask.clone()
    mask[1, 1:] = 0
    swapped = torch.tensor([1, 2, 0])
    with torch.no_grad():
        said = network(pictures, times, text, mask)[0]
        again = network([x[swapped] for x in pictures], times[swapped], text[swapped], mask[swapped])[0]
        other = network(pictures, times, text[swapped], mask)[0]
    torch.testing.assert_close(again, said[swapped], rtol=1e-4, atol=1e-5)
    assert (other - said).abs().max() > 1e-3


def test_attention_over_frames_where_space_is_halved() -> None:
    """The released code crashes here; the frames of a level see each other whatever it halves."""
    network_config = config(clips(attention=(), rotary=False), large(attention=(0, 1)))
    network, (pictures, times) = awake(build(network_config)), inputs(network_config, (1, 1, 1))
    with torch.no_grad():
        said = network(pictures, times, *some_text(1))[0]
        pictures[0][:, 3, :, -1, -1] += 5  # a far corner: out of reach of every convolution of the first frame
        moved = network(pictures, times, *some_text(1))[0]
    assert (said - moved)[:, 0, :, 0, 0].abs().max() > 1e-7


def test_input_normalisation_is_per_frame() -> None:
    network_config = config(clips(level={"normalize_input": True}))
    network, (pictures, times) = awake(build(network_config)), inputs(network_config, (2, 2))
    scale = torch.tensor([1.0, 2, 3, 4])[None, :, None, None, None]
    with torch.no_grad():
        said = network(pictures, times, *some_text(2))[0]
        torch.testing.assert_close(network([pictures[0] * scale, pictures[1]], times, *some_text(2))[0], said)


def test_growing_clips_around_trained_pictures() -> None:
    inner, outer = config(time_channels=128), config(clips(), large(), time_channels=128)
    parent = awake(build(inner)).state_dict()
    grown = grow(parent, inner, outer)
    assert state_hash(inner_state(grown, 2)) == state_hash(parent)
    network = build(outer).eval()
    network.load_state_dict(grown)
    pictures, times = inputs(outer, (2, 2, 2))
    small = build(inner).eval()
    small.load_state_dict(parent)
    with torch.no_grad():
        said = network(pictures, times, *some_text(2))
        assert torch.equal(said[2], small(pictures[2:], times, *some_text(2))[0])
    assert not said[0].any()


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_drawing_clips(name: str) -> None:
    network_config, diffusion = paper_in_small(), DiffusionConfig(steps=20)
    network, gammas = awake(build(network_config)), schedule.levels(diffusion, network_config.resolutions)
    settings = SampleConfig(
        sampler=name,
        steps=2,
        eta=0.5 if name == "ddim" else 0.0,
        guidance=2.0,
        guidance_rescale=0.7,
        threshold="dynamic-deepfloyd",
    )

    def draw(ids: list[int]) -> list[torch.Tensor]:
        text, mask = some_text(3)
        return sampler.sample(
            *(network, gammas, settings, diffusion, network_config.resolutions, text[ids], mask[ids]),
            *some_text(1, length=2, kept=2),
            image_ids=ids,
            seed=1,
        )

    together = draw([0, 1, 2])
    assert [tuple(x.shape) for x in together] == [(3, 16, 3, 16, 16), (3, 16, 3, 8, 8), (3, 3, 8, 8)]
    assert all(x.isfinite().all() and x.abs().max() <= 1 for x in together)
    for whole, alone in zip(together, draw([2]), strict=True):
        torch.testing.assert_close(whole[2:], alone, rtol=1e-3, atol=1e-4)


def test_training_on_moving_squares() -> None:
    network_config = config(clips(), text_channels=None, text_projection=0)
    sizes, diffusion = network_config.resolutions, DiffusionConfig(loss_on="v")
    network, gammas = build(network_config), schedule.levels(diffusion, sizes)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)

    def compute(numbers: range, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = loss.pyramid(moving_squares(numbers, 4, 8), sizes)
        noises = noise.training_noises(diffusion, 0, numbers, sizes)
        return loss.training_loss(network, diffusion, gammas, images, times, noises)

    def held_out() -> torch.Tensor:
        with torch.no_grad():
            return compute(range(1000, 1016), torch.linspace(0, 999, 16).long())[1]

    before = held_out()
    for step in range(20):
        numbers = range(8 * step, 8 * step + 8)
        compute(numbers, noise.training_times(diffusion, 0, numbers))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = held_out()
    assert (after < 0.8 * before).all(), f"from {before.tolist()} to {after.tolist()}"


def test_settings_of_pictures_do_not_mention_clips() -> None:
    assert "video" not in level(8).model_dump() | level(8).model_dump(mode="json")
    network_config = paper_in_small()
    assert ModelConfig(**network_config.model_dump(mode="json")) == network_config


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clips(frames=8), "frames 8 is not a power of 4"),
        (lambda: clips(frames=1), "frames 1 is not a power of 4"),
        (lambda: clips(attention=(0, 0, 0)), "rotary: true, but there is no attention"),
        (lambda: clips(attention=(1,)), "video.attention has 1 entries, channels has 3"),
        (
            lambda: clips(channels=(32,) * 4, attention=(1,) * 4),
            "4 frames cannot be halved 3 times.* 3 channel entries",
        ),
        (lambda: clips(7), "works at half their side, which 7 px has not"),
        (lambda: large(6, attention=(0, 1)), "works at half their side, which 3 px has not"),
        (lambda: clips(channels=(48, 32, 32), level={"norm_groups": 16}), "divisible by 32 .its heads., not 48"),
        (lambda: ModelConfig(levels=(clips(level={"middle": True}),)), "innermost level shows clips .4x8."),
        (lambda: config(clips(), level(16)), "the inner level has 4 frames, the outer only 1"),
        (lambda: config(clips(channels=(32, 32), attention=(1, 0))), "nests 2 frame.s. of 8 px.*give it 3 channel"),
        (lambda: config(clips(16)), "nests 1 frame.s. of 16 px, not 1 of 8.*one level cannot halve both"),
        (lambda: config(large()), "impossible chain 8 -> 4x16"),
        (lambda: config(clips(), clips(channels=(32,), attention=(1,))), "both levels show the same"),
    ],
)
def test_impossible_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_tensors_that_are_no_clips_are_refused() -> None:
    network_config = config(clips())
    network, (pictures, times) = build(network_config), inputs(network_config, (2, 2))
    for wrong in (video.tile(pictures[0]), pictures[0][:, :2]):
        with pytest.raises(ValueError, match=r"level 4x8 takes tensors \[B, 4, 3, H, W\], but one of shape"):
            network([wrong, pictures[1]], times, *some_text(2))


def test_a_study_names_levels_of_clips_by_frames_and_side() -> None:
    from mdm.config import NetworkConfig, StageConfig

    film = {"channels": [32, 32, 32], "resnets": [1, 1, 1], "video": {"attention": [1, 1, 0]}}
    small = {"channels": [32], "resnets": [1], "attention": [1]}
    network = NetworkConfig(levels={"4x8": film, 8: small})
    found = stage_model(network, StageConfig(resolutions=("4x8", 8), num_images=8), None, "study")
    assert found.resolutions == (Clip(4, 8), 8) and found.levels[1].video.attention == (1, 1, 0)
    wrong = NetworkConfig(levels={8: {**small, "video": {"frames": 4}}})
    with pytest.raises(StudyError, match=r"levels\.8\.video: name the level FRAMESx8, for example 16x8"):
        stage_model(wrong, StageConfig(resolutions=(8,), num_images=8), None, "study")
    with pytest.raises(StudyError, match=r"no level 16x8 in model\.levels"):
        stage_model(network, StageConfig(resolutions=(8, "16x8"), num_images=8), None, "study")
