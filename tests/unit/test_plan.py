"""The plan's arithmetic against torch's own counter, and what it says of finished work."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mdm import plan, study
from mdm.config import ModelConfig
from mdm.manifest import write_json
from mdm.model import build
from mdm.model.presets import PRESETS
from mdm.sizes import shape


def counted(config):
    """Operations of one call, by torch's counter on the meta device."""
    with torch.device("meta"):
        model = build(config)
        pictures = [torch.empty(1, *shape(size)) for size in config.resolutions]
        text = (torch.empty(1, 24, config.text_channels), torch.ones(1, 24)) if config.text_channels else (None, None)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(pictures, torch.zeros(1, dtype=torch.long), *text)
    return counter.get_total_flops() / 1e9


@pytest.mark.parametrize("name", PRESETS)
def test_the_estimate_is_near_for_the_published_networks(name):
    config = PRESETS[name]()
    assert plan.gigaflops(config) == pytest.approx(counted(config), rel=0.25)


def test_the_estimate_is_near_for_the_laptop_networks():
    loaded = study.load("laptop")
    for ref in (r for r in loaded.artifacts if r.startswith("train/")):
        config = ModelConfig(**loaded.recipe(ref)["model"])
        assert plan.gigaflops(config) == pytest.approx(counted(config), rel=0.3), ref


def test_the_plan_counts_shared_stages_once_and_knows_what_is_done(tmp_path):
    loaded = study.load("quick")
    before = plan.render(loaded, tmp_path)
    assert before.count("shared") == 6  # three stages in each of two guidance runs
    first = loaded.runs[0].stages[0].artifact
    write_json(tmp_path / first / "manifest.json", {"seconds": 12.0})
    second = loaded.runs[0].stages[1].artifact
    write_json(tmp_path / second / "progress" / "status.json", {"images": 64, "num_images": 256})
    lines = plan.render(loaded, tmp_path).splitlines()
    assert any(first in line and "12 s" in line and "done" in line for line in lines)
    assert any(second in line and "25%" in line for line in lines)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (192, "3.2 min"), (18360, "5.1 h"), (12 * 86400, "12 d")])
def test_durations_are_readable(seconds, text):
    assert plan.duration(seconds) == text
