"""Snakemake's log as `--logger mdm` and `mdm run` show it, with a data set of the quick study."""

import re
import subprocess
import sys

import pytest
from repository import copy_repository, snakemake

from mdm.study import study

pytestmark = pytest.mark.slow
QUICK = study.load("quick")
DATA = QUICK.of_kind("data")[0]
TARGET, OF_QUICK = f"results/{DATA}/manifest.json", ("--config", "study=quick")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("clone"))


def test_plain_snakemake_has_a_line_for_every_job(clone):
    name = DATA.removeprefix("data/").rpartition("-")[0]
    planned = snakemake(clone, TARGET, "--logger", "mdm", "-n", *OF_QUICK)
    assert planned.returncode == 0 and "This was a dry-run" in planned.stdout + planned.stderr
    done = snakemake(clone, TARGET, "--logger", "mdm", *OF_QUICK)
    assert done.returncode == 0 and (clone / TARGET).is_file(), done.stderr
    told = re.findall(rf"^ +\d+:\d\d \[ *\d+ of \d+\] (\w+) {name}", done.stderr, re.MULTILINE)
    assert told == ["fetch_index", *["make_shards"] * len(QUICK.shard_jobs(DATA)), "write_manifest"], done.stderr
    assert "Select jobs" not in done.stderr and "Complete log" in done.stderr
    again = snakemake(clone, TARGET, "--logger", "mdm", *OF_QUICK)
    assert again.returncode == 0 and "Nothing to be done" in again.stderr


def test_mdm_run_keeps_the_whole_log_of_a_job_that_fails(clone):
    """Runs after the one above: its data set is made anew from a recipe that somebody has edited."""
    recipe = clone / "results" / DATA / "recipe.json"
    for path in [*recipe.parent.glob("index.*"), *recipe.parent.glob("shards/*"), clone / TARGET]:
        path.unlink(missing_ok=True)
    recipe.write_text(recipe.read_text().replace('"seed": ', '"seed": 1'))
    command = [sys.executable, "-m", "mdm", "run", TARGET, "--study", "quick"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=1200, check=False)
    log = (clone / ".snakemake" / "mdm-run.log").read_text()
    reason = (clone / "results" / DATA / "logs" / "index.log").read_text().strip()
    assert done.returncode == 1 and "what is finished is kept" in done.stderr
    for words in (done.stderr, log):
        assert "Error in rule fetch_index:" in words and reason.splitlines()[-1] in words
    assert "Select jobs" in log and "Traceback" not in log
