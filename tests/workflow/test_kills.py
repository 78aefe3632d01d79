"""A study that is killed before Snakemake notes the end of a job: one further start makes all that was asked for."""

import csv
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from pathlib import Path

import pytest
from test_interruptions import COMMAND, kill_all
from test_reruns import planned

from mdm.files.hashes import sha256_file
from mdm.files.weights import load_weights, state_hash
from mdm.study import study
from mdm.study.run import launch

pytestmark = pytest.mark.slow
WAYS = {"plain": (), "slurm": ("--profile", "slurm", "--config", "study=quick")}
REPORT = {
    "collect_metrics": 1, "make_tables": 1, "draw_figure": 6, "arrange_samples": 4, "judge_claims": 1,
    "write_report": 1, "write_ablation_report": 2, "publish": 3,
}  # fmt: skip
TIMED = ("training-curves", "along-training", "cost")  # figures and a table of times
TIMES = re.compile("second|wait|memory_mib|trained_on|^git$")
HANGS = 1800  # seconds after which a start is taken to hang; nothing that is tested depends on it
RANDOM_KILLS = (3, 9, 14, 19)  # the starts that are killed at any moment


def rules(folder):
    """Every output that Snakemake has noted as complete, and the rule that made it."""
    records = folder.glob(".snakemake/metadata/*")
    return {urlsafe_b64decode(record.name).decode(): json.loads(record.read_text())["rule"] for record in records}


def is_artifact(path):
    """Whether an output is an artifact's, and no table, figure or page."""
    return not path.startswith(("results/studies", "reports"))


def marked(folder):
    """Outputs on disk whose job ended without Snakemake's note."""
    marks = [urlsafe_b64decode(mark.name).decode() for mark in folder.glob(".snakemake/incomplete/*")]
    return {path for path in marks if (folder / path).exists()}


def mark(folder, path):
    """Have an output look as if its job was killed before Snakemake noted the end."""
    name = urlsafe_b64encode(path.encode()).decode()
    (folder / ".snakemake" / "metadata" / name).unlink()
    (folder / ".snakemake" / "incomplete" / name).write_text('{"external_jobid": null}')


def contents(folder):
    """What every file of results and report says, apart from times; logs and progress left out."""
    files = [
        path for pattern in ("results/**/*", "reports/**/*.html") for path in folder.glob(pattern) if path.is_file()
    ]
    told = [path for path in files if not {"logs", "progress"} & set(path.parts) and path.stem not in TIMED]
    return {str(path.relative_to(folder)): content(path) for path in told}


def content(path):
    """A file without its times."""
    if path.suffix == ".ckpt":
        return state_hash({name: tensor for name, tensor in load_weights(path).items() if not TIMES.search(name)})
    if path.suffix == ".html":
        page = re.sub(r"<svg.*?</svg>|data-label=\"[^\"]*second.*?</td>", "", path.read_text(), flags=re.DOTALL)
        return hashlib.sha256(re.sub(r"([\d.,]+\s(d|h|min|s)\b\s?)+", "TIME", page).encode()).hexdigest()
    if path.name in ("metrics.csv", "curves.csv"):
        rows = list(csv.DictReader(path.read_text().splitlines()))
        return [{**row, "seconds": ""} for row in rows if "second" not in row.get("metric", "")]
    if path.suffix == ".jsonl" or path.name == "manifest.json":
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return [timeless(json.loads(line)) for line in lines]
    return "" if path.suffix == ".done" else sha256_file(path)


def timeless(value):
    """JSON without what depends on the machine and its hour."""
    if isinstance(value, list):
        return [timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: timeless(item) for key, item in value.items() if not TIMES.search(key)}


@pytest.fixture
def copied(finished, tmp_path):
    """The finished study, for one test to damage."""
    return shutil.copytree(finished, tmp_path / "study", symlinks=True)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_what_is_missing_behind_a_finished_artifact_is_planned(copied, way):
    for path in rules(copied):
        if is_artifact(path):
            mark(copied, path)
    shutil.rmtree(copied / "results" / "studies")
    shutil.rmtree(copied / "reports")
    before = marked(copied)
    assert len(before) > 80 and planned(copied, *way) == REPORT
    assert marked(copied) == before  # a dry run takes nothing from a job that is at work


def test_an_artifact_that_lacks_the_file_which_appears_last_is_made_again(copied):
    rule_of = {path: rule for path, rule in rules(copied).items() if is_artifact(path)}
    lost = [path for path in rule_of if path.endswith(("/manifest.json", "/index.json", ".done"))]
    for path in rule_of.keys() - lost:
        mark(copied, path)
    for path in [*lost, "results/studies", "reports"]:
        shutil.rmtree(copied / path) if (copied / path).is_dir() else (copied / path).unlink()
    found, wanted = planned(copied), REPORT | Counter(rule_of[path] for path in lost)
    assert {rule: found[rule] for rule in wanted} == wanted
    # Ancient or not, Snakemake plans what reads a file that another job makes again.
    assert found.keys() - wanted.keys() == {"list_captions", "train_slice", "train_last_slice"}


def test_a_verdict_that_nobody_vouches_for_is_made_again(copied):
    mark(copied, "results/studies/quick/claims.json")
    assert planned(copied) == {"judge_claims": 1, "write_report": 1, "publish": 1}


def thinned(finished, folder):
    """The finished study without Snakemake's notes, and with work left for every rule, of the cheapest kind."""
    shutil.copytree(finished, folder, symlinks=True, ignore=shutil.ignore_patterns(".snakemake"))
    cheap = next(run for run in study.load("quick").runs if run.name == "guidance=1.0")
    measured = cheap.evaluations[0]
    names = [cheap.stages[0].artifact, measured.samples, measured.features, measured.scores]
    lost = ["judge/*", "clip/*", "snapshot/*", "data/scenes-new-*", "text/tiny-t5-scenes-new-*", "studies", *names]
    for path in [found for pattern in lost for found in folder.glob(f"results/{pattern}")]:
        shutil.rmtree(path)
    shutil.rmtree(folder / "reports")
    return folder


def start(folder, stopped):
    """`mdm run` with a Snakemake that stands still at the first job of every rule that `stopped` does not name."""
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).with_name("stopping_snakemake")), "STOPPED": str(stopped),
        "PYTHONPYCACHEPREFIX": str(stopped.with_name("bytecode")),  # or every start would compile Snakemake anew
    }  # fmt: skip
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with open(stopped.with_name("said"), "w") as said:
        return subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=said, stderr=said)


def stands_still(process, stopped, seconds):
    """Whether Snakemake stands still at another rule before all has ended or the time is over."""
    before, end = stopped.read_text(), time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if stopped.read_text() != before:
            return True
        time.sleep(0.02)
    return False


def test_a_storm_of_kills_ends_with_the_results_of_an_unbroken_run(finished, tmp_path):
    """Every rule is hit at the worst moment; a start that plans too little ends before that."""
    folder, stopped, chance = thinned(finished, tmp_path / "study"), tmp_path / "stopped", random.Random(0)
    stopped.touch()
    rule_of, hit, starts = rules(finished), set(), 0
    while missed := set(rule_of.values()) - hit:
        starts += 1
        process, at_random = start(folder, stopped), starts in RANDOM_KILLS
        stands = stands_still(process, stopped, chance.uniform(1, 15) if at_random else HANGS)
        assert stands or at_random, f"no job of {missed} was started:\n{stopped.with_name('said').read_text()}"
        kill_all(process)
        hit |= {rule_of[path] for path in marked(folder) if path in rule_of}
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0 and "done in" in done.stdout, done.stdout + done.stderr
    assert contents(folder) == contents(finished)
    assert planned(folder) == {}


def test_every_target_stands_for_files_that_are_made(finished):
    quick = study.load("quick")
    for target in (*launch.RULES, *quick.ablations, *study.group_members(quick)):
        files = launch.products(quick, target)
        assert files and all((finished / file).is_file() for file in files), target
