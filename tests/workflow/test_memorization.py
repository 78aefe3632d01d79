"""The memorization study in its smallest form: killed in its first audit, continued, and opened as a report."""

import csv
import json
import subprocess
import sys

import pytest
from repository import HANG_SECONDS, copy_repository
from test_interruptions import kill_all, wait_for

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
        ("base", "copied_8"), ("base", "copied_max_8"), ("size=4", "copied_8"), ("unique-labels", "calibrated_8"),
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
