"""The workstation study with few and small pictures, from packages to a trained and sampled chain of three levels."""

from pathlib import Path

import numpy as np
import pytest
from by_functions import make

from mdm.data.fetch import packages
from mdm.data.sources.drawing_sets import SETS
from mdm.evaluate.archive import read_array
from mdm.files.atomic import ArtifactError, read_json
from mdm.files.weights import load_weights
from mdm.study import study

pytestmark = pytest.mark.slow
pytest.importorskip("resvg_py", reason="resvg_py of requirements.lock is not installed: run make setup")

DRAWN = ("noto", "fxemoji")  # the smallest packages
SIDES = (16, 64, 256)  # four times the one before, as 64, 256, 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The packages of some sets, or the reason why they cannot be had."""
    place = tmp_path_factory.mktemp("packages")
    try:
        for name in DRAWN:
            packages.archive(SETS[name].package, place)
    except ArtifactError as error:
        pytest.skip(f"the packages cannot be fetched here: {error}")
    return place


def small(packages_folder):
    """The study as it is, but for sizes and numbers."""
    shared = {"sets": list(DRAWN), "packages": str(packages_folder), "validation_every": 10}
    tiny = {"norm_groups": 4, "resnets": [1, 1, 1], "attention_ffn": False}
    stage = {"num_images": 8, "train": {"batch_images": 4, "warmup_images": 0, "validate_images": 8}}
    last = {"data": "drawings-1024", "validation": "new-1024"}
    data = {
        "drawings-256": {"part": "train", "num_images": 24, "resolution": 64},
        "drawings-1024": {"part": "train", "num_images": 24, "resolution": 256},
        "new-256": {"part": "validation", "num_images": 8, "resolution": 64},
        "new-1024": {"part": "validation", "num_images": 8, "resolution": 256},
    }
    return study.load("workstation", {
        **{f"data.{name}.settings": {**shared, **entry} for name, entry in data.items()},
        **{f"data.{name}.shard_images": 16 for name in data},
        "base.model.levels": {
            16: {"channels": [32, 32], "resnets": [1, 1], "attention": [0, 1], "norm_groups": 4},
            64: {"channels": [8, 8, 16], **tiny}, 256: {"channels": [4, 4, 8], **tiny},
        },
        "base.model.time_channels": 32,
        "base.train.precision": "float32",
        "base.stages": {
            f"r{side}": {"resolutions": list(SIDES[: k + 1]), **stage, **(last if side == 256 else {})}
            for k, side in enumerate(SIDES)
        },
        "base.sample.steps": 2,
        "protocols": {"new-concepts": {
            "description": "a few", "prompts": "new-256", "reference": "new-256", "num_images": 2, "num_reference": 8,
            "resolution": 64, "clip": "clip",
        }},
        "ablations": {}, "claims": {},
    })  # fmt: skip


def test_from_packages_to_pictures_of_three_levels(folder, tmp_path):
    plan = small(folder)
    run = plan.runs[0]
    make(plan, run.evaluations[0].samples, tmp_path)

    data = {
        ref: read_json(tmp_path / ref / "manifest.json") for ref in plan.of_kind("data") if (tmp_path / ref).exists()
    }
    assert len(data) == 4 and all(manifest["fetched_fraction"] > 0.9 for manifest in data.values())
    assert {licence for manifest in data.values() for licence in manifest["licences"]} == {"Apache-2.0"}

    stages = [tmp_path / stage.artifact for stage in run.stages]
    assert [read_json(stage / "manifest.json")["recipe"]["num_images"] for stage in stages] == [8, 8, 8]
    before, after = (load_weights(stage / "weights.safetensors") for stage in stages[1:])
    assert len(after) > len(before) and all(np.isfinite(np.asarray(tensor.float())).all() for tensor in after.values())

    pictures = Path(tmp_path / run.evaluations[0].samples / "images.npz")
    for side in SIDES:
        drawn = read_array(pictures, f"images_{side}")
        assert drawn.shape == (2, side, side, 3) and drawn.dtype == np.uint8 and np.ptp(drawn) > 0
