"""Progress of a study: read from Snakemake's own words, told in few lines, with the time left."""

import io
import json

import pytest

from mdm.study import study
from mdm.study.run import launch
from mdm.study.run.watch import Jobs, Outlook, Screen, clock, users

LOG = """localrule write_recipe:
    output: results/train/{folder}/recipe.json
    log: results/train/{folder}/logs/recipe.log
    jobid: 3
    wildcards: kind=train, name={name}, digest={digest}
Finished jobid: 3 (Rule: write_recipe)
1 of 9 steps (11%) done
rule train_slice:
    log: results/train/{folder}/logs/slice-256.log
    jobid: 19
    wildcards: name={name}, digest={digest}, images=256
    resources: tmpdir=/tmp
[Fri Nov 20 11:41:40 2026]
Finished jobid: 19 (Rule: train_slice)
2 of 9 steps (22%) done
"""


@pytest.fixture
def quick():
    return study.load("quick")


@pytest.fixture
def log(quick):
    folder = quick.runs[0].stages[0].artifact.removeprefix("train/")
    name, _, digest = folder.rpartition("-")
    return LOG.format(folder=folder, name=name, digest=digest)


def test_jobs_are_read_from_what_snakemake_says(log):
    jobs, ended = Jobs(), []
    for line in log.splitlines(keepends=True)[:12]:
        ended += [found] if (found := jobs.feed(line)) else []
    assert [job.rule for job in jobs.running.values()] == ["train_slice"] and len(ended) == 1
    for line in log.splitlines(keepends=True)[12:]:
        ended += [found] if (found := jobs.feed(line)) else []
    assert [(job.rule, done, total) for job, done, total in ended] == [("write_recipe", 1, 9), ("train_slice", 2, 9)]
    assert not jobs.running


def test_a_log_has_one_line_for_a_job_and_none_for_recipes(quick, log, tmp_path):
    out = io.StringIO()
    Screen(out, users(quick), Outlook(quick, ["all"], tmp_path)).show(io.StringIO(log))
    assert out.getvalue().strip() == "0:00 [  2 of 9] train_slice r8 to 256 images (base, guidance=1.0 and 1 more)"


def test_time_left_follows_the_work_that_is_done(quick, tmp_path):
    outlook = Outlook(quick, ["no-progressive"], tmp_path)
    assert outlook.left(10.0) is None
    everything = {ref for run in quick.runs for ref in [s.artifact for s in run.stages]}
    for ref in everything:
        status = {"images": 1, "num_images": 2, "images_per_second": 1.0, "eta_seconds": 1.0}
        (tmp_path / ref / "progress").mkdir(parents=True)
        (tmp_path / ref / "progress" / "status.json").write_text(json.dumps(status))
    assert outlook.left(10.0) > 10.0, "half of the training and all of the drawing are left"
    assert Outlook(quick, ["no-progressive"], tmp_path).left(10.0) is None, "what was there before is not our pace"
    for ref in everything:
        (tmp_path / ref / "manifest.json").write_text("{}")
    assert outlook.left(10.0) < 10.0


def test_targets_name_their_pages(quick):
    assert launch.pages(quick, ["all"]) == ["reports/index.html"]
    assert launch.pages(quick, ["guidance"]) == launch.pages(quick, ["sampling"]) == ["reports/ablations/guidance.html"]
    assert launch.pages(quick, ["data"]) == []


def test_clock():
    assert [clock(s) for s in (0, 67.9, 3723)] == ["0:00", "1:07", "1:02:03"]


def test_a_target_alone_is_run_alone():
    loaded = study.load("quick")
    assert "--prioritize" in launch.snakemake_command(loaded, ["all"], "2")
    for target in ("data", "guidance", "results/data/x/manifest.json"):
        command = launch.snakemake_command(loaded, [target], "2")
        assert target in command and "--prioritize" not in command
