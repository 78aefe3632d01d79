"""Parity of levels of clips with the released model, to 1e-5 of the largest value.

`golden/video.npz` was made by a script outside this repository that built the networks below with the released
code (apple/ml-mdm de8cde2, CPU, float32), filled every state-dict entry by its name (`weight_of`), drew inputs with
fixed seeds and stored inputs and outputs. The released code sees a clip as one picture of tiled frames: `tile` and
`untile` stand between the two.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from released_networks import Case, with_golden_weights
from test_golden import assert_close
from torch import Tensor

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, SampleConfig, VideoConfig
from mdm.config.sizes import Clip
from mdm.diffusion import loss, sampler, schedule
from mdm.model.nested import build
from mdm.model.video import tile, untile

INNER = {"channels": (32, 64), "resnets": (1, 1), "attention": (0, 1), "middle": True}
SHORT = {"channels": (32, 32, 64), "resnets": (2, 1, 1)}  # halves four frames twice
LONG = {"channels": (32, 32, 32, 32, 64), "resnets": (1, 1, 1, 1, 1)}  # halves sixteen frames four times
LONG_VIDEO = VideoConfig(frames=16, attention=(1, 0, 1, 0, 0), rotary=True)
MEETING_VIDEO = VideoConfig(frames=4, attention=(1, 1, 0))


def network_config(*levels: LevelConfig) -> ModelConfig:
    return ModelConfig(levels=levels, text_channels=24, text_projection=40, mask_text=False, time_channels=128)


def level(resolution: int, settings: dict, **more: object) -> LevelConfig:
    return LevelConfig(resolution=resolution, micro_conditioning={"scale": 8}, **settings, **more)


def small(video: VideoConfig, normalize_input: bool = False) -> ModelConfig:
    """Four frames of 8 px around 8 px."""
    return network_config(level(8, INNER), level(8, SHORT, video=video, normalize_input=normalize_input))


CONFIGS = {
    "convolutions": small(VideoConfig(frames=4)),
    "attention": small(VideoConfig(frames=4, attention=(1, 2, 0))),
    "rotary-normalised": small(VideoConfig(frames=4, attention=(1, 2, 0), rotary=True), normalize_input=True),
    "sixteen": network_config(level(4, INNER), level(4, LONG, video=LONG_VIDEO)),
    "time-time": network_config(
        level(4, INNER),
        level(4, SHORT, video=MEETING_VIDEO, normalize_input=True),
        level(
            *(4, {"channels": (32, 32, 32), "resnets": (1, 1, 2)}),
            video=VideoConfig(frames=16, attention=(0, 1, 0), rotary=True),
        ),
    ),
    "space": network_config(
        level(4, INNER),
        level(4, SHORT, video=MEETING_VIDEO.model_copy(update={"rotary": True}), normalize_input=True),
        level(
            *(8, {"channels": (32, 64), "resnets": (1, 1)}),
            video=VideoConfig(frames=4, halves="space"),
            normalize_input=True,
        ),
    ),
    "paper": network_config(  # the paper's three levels, in small
        level(4, INNER),
        level(4, LONG, video=LONG_VIDEO),
        level(8, {"channels": (32, 64), "resnets": (2, 1)}, video=VideoConfig(frames=16, halves="space")),
    ),
}
# The released loss and sampler: squared cosine, v, loss on epsilon; shift power and mixed ratio differ by case.
DIFFUSIONS = {
    "sixteen": DiffusionConfig(),
    "time-time": DiffusionConfig(shift_power=2),
    "paper": DiffusionConfig(mixed_ratio=(1, 1, 0)),
}


class ClipCase(Case):
    """A golden case whose levels may show clips."""

    def levels(self, name: str) -> list[Tensor]:
        """Arrays name.0, name.1, ... with their frames taken apart."""
        found = [self.arrays[f"{name}.{i}"] for i in range(len(self.config.levels))]
        sizes = self.config.resolutions
        return [untile(x, s.frames) if isinstance(s, Clip) else x for x, s in zip(found, sizes, strict=True)]


def load_case(name: str) -> ClipCase:
    stored = np.load(Path(__file__).parent / "golden" / "video.npz", allow_pickle=False)
    arrays = {
        key.removeprefix(f"{name}."): torch.from_numpy(stored[key])
        for key in stored.files
        if key.startswith(f"{name}.")
    }
    meta = json.loads(bytes(stored["meta"]))[name]
    return ClipCase(CONFIGS[name], with_golden_weights(build(CONFIGS[name])), arrays, meta)


@pytest.mark.parametrize("name", CONFIGS)
def test_names_of_the_weights(name: str) -> None:
    case = load_case(name)
    state = sorted(case.network.state_dict().items())
    listing = "\n".join(f"{key} {tuple(tensor.shape)}" for key, tensor in state)
    assert hashlib.sha256(listing.encode()).hexdigest() == case.meta["shapes_sha256"]
    assert sum(p.numel() for p in case.network.parameters()) == case.meta["params"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CONFIGS)
def test_forward(name: str, layout: torch.memory_format) -> None:
    case = load_case(name)
    network, a = case.network.to(memory_format=layout), case.arrays
    with torch.no_grad():
        said = network(case.levels("x_t"), a["times"], a["text"], a["mask"])
    for ours, golden in zip(said, case.levels("forward"), strict=True):
        assert_close(ours, golden)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_loss(name: str) -> None:
    case, config = load_case(name), DIFFUSIONS[name]
    a, sizes = case.arrays, case.config.resolutions
    clean = loss.pyramid(untile(a["loss.images"], sizes[0].frames), sizes)
    with torch.no_grad():
        total, per_level = loss.training_loss(
            *(case.network, config, schedule.levels(config, sizes), clean),
            *(a["loss.time"], case.levels("loss.eps"), a["text"], a["mask"]),
        )
    assert_close(total, a["loss.losses"].mean())
    assert per_level.shape == (len(sizes),)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_guided_ddim(name: str) -> None:
    case, config = load_case(name), DIFFUSIONS[name]
    text, mask = case.arrays["sample.text"], case.arrays["sample.mask"]
    final = sampler.sample(
        *(case.network, schedule.levels(config, case.config.resolutions)),
        SampleConfig(sampler="ddim", steps=3, guidance=3.0, threshold="dynamic-deepfloyd"),
        *(config, case.config.resolutions, text[1:], mask[1:], text[:1], mask[:1]),
        image_ids=[0],
        seed=0,
        noise=lambda step: case.levels("sample.start"),
    )
    for ours, golden in zip(final, case.levels("sample.final"), strict=True):
        assert_close(ours, golden)


def test_tiles_lie_in_reading_order() -> None:
    clips = torch.arange(4.0)[None, :, None, None, None].expand(2, 4, 3, 2, 2)
    picture = tile(clips)
    assert picture.shape == (2, 3, 4, 4)
    assert picture[1, 2].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert torch.equal(untile(picture, 4), clips)
    wide = torch.randn(2, 16, 3, 2, 5)
    assert torch.equal(untile(tile(wide), 16), wide)
