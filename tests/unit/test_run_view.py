"""Progress of a study: from Snakemake's events, told in few lines, with the time left."""

import contextlib
import json
import logging
import os
import pty
import subprocess
import sys
import time

import pytest

from mdm.config.units import clock
from mdm.study import study
from mdm.study.cost import works as costs
from mdm.study.run import launch
from mdm.study.run.view import Outlook, RunView
from mdm.study.study_file import ROOT

FAILING = """
rule broken:
    output: "made"
    log: "logs/broken.log"
    shell: "echo the reason > {log}; exit 3"
"""
WAITING = """
rule waiting:
    output: "made"
    shell: "read word < gate; echo $word > {output}"
"""
# Starts Snakemake as `mdm run` does.
LAUNCHER = """
import os, sys
from pathlib import Path
from test_run_view import WAITING, plain_snakemake
folder, output = Path(sys.argv[1]), os.dup(1)
log = (folder / "log").open("w")
started = {"pass_fds": [output], "stdout": log, "stderr": log, "start_new_session": True}
plain_snakemake(folder, WAITING, "--logger-mdm-descriptor", str(output), **started).wait()
"""


@pytest.fixture
def quick():
    return study.load("quick")


def event(name, **facts):
    return logging.makeLogRecord({"event": name, **facts})


def events(folder):
    """What Snakemake logs of a recipe and of a slice that is trained."""
    name, _, digest = folder.removeprefix("train/").rpartition("-")
    wildcards, logs = {"name": name, "digest": digest}, f"results/{folder}/logs"
    return [
        event("job_info", jobid=3, rule_name="write_recipe", log=[f"{logs}/recipe.log"], wildcards=wildcards),
        event("job_finished", job_id=3),
        event("progress", done=1, total=9),
        event(
            "job_info", jobid=19, rule_name="train_slice", log=[f"{logs}/slice-256.log"],
            wildcards={**wildcards, "images": "256"},
        ),
        event("job_finished", job_id=19),
        event("progress", done=2, total=9),
    ]  # fmt: skip


@pytest.fixture
def view(tmp_path):
    """A view that writes into a file, and a function that reads it."""
    path = tmp_path / "seen.log"
    view = RunView(os.open(path, os.O_WRONLY | os.O_CREAT))
    yield view, path.read_text
    view.close()


def test_jobs_are_known_from_events(quick, view):
    view, _ = view
    first, last = events(quick.runs[0].stages[0].artifact)[:4], events(quick.runs[0].stages[0].artifact)[4:]
    for record in first:
        view.show(record)
    assert [job.rule for job in view._running.values()] == ["train_slice"] and view._count == "[  1 of 9]"
    for record in last:
        view.show(record)
    assert not view._running and view._count == "[  2 of 9]"
    view.show(first[-1])
    view.show(event("job_error", jobid=19))
    assert not view._running


def test_a_log_has_one_line_for_a_job_and_none_for_recipes(quick, view):
    view, seen = view
    view.show(event("study", study=quick, outputs=[]))
    for record in events(quick.runs[0].stages[0].artifact):
        view.show(record)
    assert seen() == "   0:00 [  2 of 9] train_slice r8 to 256 images (base, guidance=1.0 and 1 more)\n"


def test_no_half_minute_is_silent(quick, view, monkeypatch):
    view, seen = view
    view.show(event("tick"))
    assert not seen()
    monkeypatch.setattr("mdm.study.run.view.BEAT_SECONDS", 0)
    view.show(event("tick"))
    for record in events(quick.runs[0].stages[0].artifact)[:4]:
        view.show(record)
    view.show(event("tick"))
    said = [line.split(maxsplit=1)[1] for line in seen().splitlines()]
    assert said == ["running: Snakemake plans", "[  1 of 9] running: train_slice r8 to 256 images"]


def test_of_hundreds_of_jobs_some_are_named(quick, view, monkeypatch):
    view, seen = view
    monkeypatch.setattr("mdm.study.run.view.BEAT_SECONDS", 0)
    for number in range(300):
        view.show(event("job_info", jobid=number, rule_name="embed_text", log=[], wildcards={"shards": str(number)}))
    view.show(event("tick"))
    assert seen().count("embed_text") == 8 and seen().endswith("embed_text 7 | 292 more\n")


def test_a_terminal_has_a_line_that_is_rewritten_and_cut_to_its_width(quick):
    reader, writer = pty.openpty()
    view = RunView(writer)
    run = events(quick.runs[0].stages[0].artifact)
    for record in [*run[:4], event("tick"), *run[4:]]:
        view.show(record)
    view.close()
    shown = b""
    with contextlib.suppress(OSError):  # how the end of a terminal is told
        while some := os.read(reader, 4096):
            shown += some
    running = "   0:00 [  1 of 9] running: train_slice r8 to 256 images"
    assert shown.decode().split("\r\033[K")[1:] == [
        running,
        f"   0:00 [  2 of 9] train_slice r8 to 256 images\r\n{running}",
        "",
    ]
    assert view._line("x" * 100, 80) == "   0:00 " + "x" * 71


def test_nobody_has_to_read_it(quick):
    reader, writer = os.pipe()
    os.close(reader)
    view = RunView(writer)
    view.say("the pipe is broken")
    view.close()
    view.say("it is closed")


def works(quick, names):
    """Trainings and drawings of some runs, which Snakemake would name as what it is to make."""
    return {ref for run in quick.runs if run.name in names for _, ref in costs.works(run)}


def test_time_left_follows_the_work_that_is_done(quick, tmp_path):
    wanted = works(quick, ["base", "no-progressive"])
    outlook = Outlook(quick, wanted, tmp_path)
    assert outlook.left(10.0) is None
    everything = {ref for run in quick.runs for ref in [s.artifact for s in run.stages]}
    for ref in everything:
        status = {"images": 1, "num_images": 2, "images_per_second": 1.0, "eta_seconds": 1.0}
        (tmp_path / ref / "progress").mkdir(parents=True)
        (tmp_path / ref / "progress" / "status.json").write_text(json.dumps(status))
    assert outlook.left(10.0) > 10.0, "half of the training and all of the drawing are left"
    assert Outlook(quick, wanted, tmp_path).left(10.0) is None, "what was there before is not our pace"
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


def plain_snakemake(folder, snakefile, *options, **started):
    """Start Snakemake in a folder that is no clone of this repository: it finds the plugin on its path."""
    (folder / "Snakefile").write_text(snakefile)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "mdm", *options]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **started)


def test_a_snakemake_that_only_lists_its_loggers_loads_nothing_of_ours():
    code = "import sys, snakemake_logger_plugin_mdm; print([name for name in sys.modules if name.startswith('mdm')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def wait_for(log, text):
    deadline = time.monotonic() + 600
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"no {text} in {log.read_text()}"
        time.sleep(0.05)


def test_a_failing_job_is_shown_with_its_log_which_is_kept(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = plain_snakemake(tmp_path, FAILING, "--show-failed-logs", **pipes)
    out, shown = process.communicate(timeout=600)
    assert process.returncode == 1 and not out
    assert "Error in rule broken:" in shown and "Logfile logs/broken.log:" in shown and "the reason" in shown
    assert "Select jobs" not in shown
    assert (tmp_path / "logs" / "broken.log").read_text() == "the reason\n"
    (kept,) = (tmp_path / ".snakemake" / "log").iterdir()
    assert "Select jobs" in kept.read_text() and "the reason" in kept.read_text()


@pytest.fixture
def gate(tmp_path):
    """A job waits at this pipe; opened for both ways, it makes nobody here wait."""
    os.mkfifo(tmp_path / "gate")
    descriptor = os.open(tmp_path / "gate", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_a_broken_pipe_stops_nothing(tmp_path, gate):
    reader, writer = os.pipe()
    os.close(reader)
    log = (tmp_path / "log").open("w")
    process = plain_snakemake(
        tmp_path, WAITING, "--logger-mdm-descriptor", str(writer), pass_fds=[writer], stdout=log, stderr=log
    )
    os.write(gate, b"open\n")
    assert process.wait(timeout=600) == 0 and (tmp_path / "made").read_text() == "open\n"
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_snakemake_survives_its_launcher_whose_output_ends(tmp_path, gate):
    """Whoever reads the output of `mdm run` waits for its end, which must not be that of Snakemake."""
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, tmp_path], cwd=ROOT / "tests" / "unit", stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(tmp_path / "log", "rule waiting:")
    finally:
        launcher.kill()
    try:
        launcher.communicate(timeout=600)
    finally:
        os.write(gate, b"open\n")
    wait_for(tmp_path / "log", "1 of 1 steps (100%) done")
    assert "Traceback" not in (tmp_path / "log").read_text()
