"""Twenty steps of the whole engine, from files to weights: losses and gradient norms are those that were written down.

With the batch taken in two or four parts, which rounds differently, all twenty steps agree to the six digits written
here; with other masks of dropout they differ by 2e-5 in the second step, 3e-4 in the third and 1e-2 in the last.
After a change that is meant to change numbers: raise RECIPE_VERSION and run this file as a program.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

from training_world import NEVER, make_world  # noqa: E402

from mdm.train.loop import train  # noqa: E402

GOLDEN = Path(__file__).parent / "golden" / "training_trace.json"
TOLERANCE = 1e-4  # relative, of every loss and gradient norm
STEPS, BATCH = 20, 16
# Two levels at once, with everything that a stage may use: captions dropped, dropout, shared noise, mixed batches, both
# optimisers, warm-up and cool-down.
STUDY = {
    "data.scenes-train.settings.num_images": 64,
    "data.scenes-new.settings.num_images": 16,
    "base.model.levels.8.dropout": 0.1,
    "base.stages": {
        "r16": {"resolutions": [8, 16], "num_images": STEPS * BATCH,
                "diffusion": {"mixed_ratio": [3, 1], "shared_noise": True}}
    },
    "base.train.validate_images": 0,
    "base.train.cooldown_images": 64,
    "protocols.zero-shot.num_images": 16,
    "protocols.zero-shot.num_reference": 16,
    "ablations": {},
    "claims": {},
}  # fmt: skip


def trace(folder):
    """Loss, loss of each level and gradient norm of every step."""
    recipe = make_world(folder, STUDY, ("r16",))["r16"]
    train(recipe, recipe.parent / "final.ckpt", None, NEVER)
    lines = map(json.loads, (recipe.parent / "progress" / "history.jsonl").read_text().splitlines())
    return [{key: line[key] for key in ("images", "loss", "losses", "gradient_norm")} for line in lines]


def test_twenty_steps_are_those_that_were_written_down(tmp_path):
    found, wanted = trace(tmp_path / "results"), json.loads(GOLDEN.read_text())
    assert [line["images"] for line in found] == list(range(BATCH, STEPS * BATCH + 1, BATCH))
    for step, (line, golden) in enumerate(zip(found, wanted, strict=True), 1):
        assert line == {
            "images": golden["images"],
            "loss": pytest.approx(golden["loss"], rel=TOLERANCE),
            "losses": pytest.approx(golden["losses"], rel=TOLERANCE),
            "gradient_norm": pytest.approx(golden["gradient_norm"], rel=TOLERANCE),
        }, f"step {step}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        GOLDEN.write_text(json.dumps(trace(Path(place) / "results"), indent=1) + "\n")
