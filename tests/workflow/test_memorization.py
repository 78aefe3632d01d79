"""The memorization study in its smallest form: killed in its first audit, continued, and opened as a report."""

import csv
import json
import subprocess
import sys

import pytest
from by_functions import make
from repository import HANG_SECONDS, copy_repository
from test_interruptions import kill_all, wait_for

from mdm.files.atomic import read_json
from mdm.study import study

pytestmark = pytest.mark.slow

STAGE = {"num_images": 64, "train": {"cooldown_images": 64, "warmup_images": 0}}
TINY = {
    "seeds": [0],
    "base.stages.train": {"resolutions": [8], **STAGE, "snapshots": [32]},
    "along": {"protocol": "drawn"},
    "protocols.drawn.num_images": 8,
    "ablations": {
        "size": {"title": "Size", "question": "?", "group": "pictures", "sweep": {"take": [4]}},
        "unique-labels": {
            "title": "A label for each picture", "question": "?", "group": "conditions",
            "set": {"model.classes": "data", "data_settings.label": "unique"},
        },
        "nested": {
            "title": "Nest", "question": "?", "group": "network",
            "set": {
                "model": {"levels": {
                    8: {"channels": [32], "resnets": [1], "attention": [1], "heads": 2, "norm_groups": 8},
                    16: {"channels": [16, 32], "resnets": [1, 1], "norm_groups": 8},
                }},
                "stages": {"r8": {"resolutions": [8], **STAGE}, "r16": {"resolutions": [8, 16], **STAGE}},
                "sample": {"sampler": "heun", "steps": 2, "threshold": "none"},
            },
        },
    },
    "emm": {"px8": {"metric": "copied_8", "runs": ["size=4", "base"]}},
    "claims": {
        "sizes": {"statement": "Fewer are copied.", "source": "?", "expect": 'copied_8["size=4"] > copied_8["base"]'},
        "crossing": {"statement": "Some are.", "source": "?", "expect": 'emm["px8"] > 2', "number_from": "own"},
    },
}  # fmt: skip
COMMAND = [sys.executable, "-m", "mdm", "run", "--study", "memorization-laptop", "--set", json.dumps(TINY)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study whose first audit was killed with all that ran beside it, and which was then started again."""
    folder = copy_repository(tmp_path_factory.mktemp("study"))
    process = subprocess.Popen(COMMAND, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(process, lambda: list(folder.glob("results/audit/*/logs/audit.log")))
    kill_all(process)
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def rows(folder, name):
    with open(folder / "results/studies/memorization-laptop" / name, newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_level_of_every_run_was_audited(folder):
    found = {(row["run"], row["metric"]) for row in rows(folder, "metrics.csv")}
    for run, metric in (
        ("base", "copied_8"), ("base", "copied_max_8"), ("size=4", "copied_8"), ("unique-labels", "copied_half_8"),
        ("nested", "copied_8"), ("nested", "copied_16"), ("nested", "authentic_16"),
    ):  # fmt: skip
        assert (run, metric) in found
    missing = json.loads((folder / "results/studies/memorization-laptop/missing.json").read_text())
    assert missing["missing"] == []


def test_sizes_stand_in_a_file_of_their_own(folder):
    assert [(row["num_images"], row["metric"]) for row in rows(folder, "emm.csv")] == [
        ("4", "copied_8"),
        ("8", "copied_8"),
    ]


def test_one_training_decides_no_claim(folder):
    claims = json.loads((folder / "results/studies/memorization-laptop/claims.json").read_text())
    assert "one training each: undecided" in json.dumps(claims)


def test_the_report_shows_pairs_and_explains_why_the_optimum_copies(folder):
    page = (folder / "reports" / "index.html").read_text()
    assert "Why the optimum copies" in page and "Worst pairs of" in page
    assert "<script src" not in page, "the page is one file"


def test_a_network_that_saw_fifty_thousand_scenes_copies_none(tmp_path):
    """With the training of `base`, which copies nearly all of its eight pictures."""
    plan = study.load("memorization-laptop", {
        "data.scenes.settings.num_images": 50_000, "data.scenes.settings.resolution": 8,
        "data.scenes.shard_images": 10_000, "base.take": None,
        "seeds": [0], "theory": False, "ablations": {}, "emm": {}, "claims": {}, "audit.metrics": ["copied"],
    })  # fmt: skip
    (run,) = plan.runs
    stage, samples, audit = run.stages[-1].artifact, run.evaluations[0].samples, run.audits[0].artifact
    for ref in (plan.recipe(stage).data, stage, samples, audit):
        make(plan, ref, tmp_path)
    found = {row["metric"]: row["value"] for row in read_json(tmp_path / audit / "audit.json")["metrics"]}
    assert found["copied_8"] == found["copied_half_8"] == 0
