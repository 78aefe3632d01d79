"""The quick study from nothing to the report, by the command that people use."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
from repository import HANG_SECONDS

pytestmark = pytest.mark.slow


def test_the_report_and_its_pages_are_there(finished):
    page = (finished / "reports" / "index.html").read_text()
    assert "zero-shot" in page and "no-progressive" in page
    assert (finished / "reports" / "provenance.zip").stat().st_size > 100_000
    for ablation in ("no-progressive", "guidance"):
        assert (finished / "reports" / "ablations" / f"{ablation}.html").is_file()
    own = finished / "reports" / "studies" / "quick"
    for name in ("index.html", "provenance.zip", "ablations/guidance.html"):
        assert (own / name).read_bytes() == (finished / "reports" / name).read_bytes()


def test_metrics_are_tidy(finished):
    with open(finished / "results/studies/quick/metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "run", "stage", "seed", "metric", "value", "low", "high", "protocol", "images", "seconds", "digest",
    ]  # fmt: skip
    assert {row["run"] for row in rows} == {"base", "no-progressive", "guidance=1.0", "guidance=4.0"}
    measured = {row["metric"] for row in rows}
    assert {"fd_judge", "kid_judge", "clip_score", "alignment_colour", "alignment_shape"} <= measured
    for row in rows:
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"]), row


def test_a_stage_holds_the_proved_weights_of_its_parent(finished):
    manifests = [json.loads(p.read_text()) for p in finished.glob("results/train/*/manifest.json")]
    by_name = {manifest["artifact"]: manifest for manifest in manifests}
    children = [manifest for manifest in manifests if manifest["parent"]]
    assert len(children) == 2
    for child in children:
        assert child["parent_hash"] == by_name[child["parent"]]["weights"]["weights.safetensors"]


def test_nothing_is_missing_and_claims_have_verdicts(finished):
    assert json.loads((finished / "results/studies/quick/missing.json").read_text())["missing"] == []
    verdicts = json.loads((finished / "results/studies/quick/claims.json").read_text())
    assert "progressive" in json.dumps(verdicts)


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium-driver is not installed")
def test_a_browser_finds_nothing_wrong_with_the_real_report(finished, root):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", root / "tests" / "browser"],
        env={**os.environ, "MDM_REPORT": str(finished / "reports" / "index.html")},
        capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_tables_come_in_three_formats(finished):
    tables = finished / "results/studies/quick/tables"
    assert {p.suffix for p in tables.iterdir()} == {".csv", ".md", ".tex"}
