"""Whatever a cluster does to a training job, the stage ends with the weights of one that was left alone."""

import json
import re

import pytest
from little_cluster import trained
from torch.testing import assert_close

from mdm.files.weights import state_hash

pytestmark = pytest.mark.slow
ALONE = ("warned", "displaced", "crashed")  # by one process; the others by two or four
TOGETHER = {"overdue": 2, "spread": 4, "torchrun": 2}


def begins(stage):
    return [line for line in stage.attempts() if "begin" in line]


def kinds(stage):
    """The journal of a stage as words: begin, end, error."""
    return [next(word for word in ("begin", "end", "error") if word in line) for line in stage.attempts()]


@pytest.mark.parametrize("name", ALONE)
def test_the_weights_are_those_of_a_training_left_alone(story, alone, name):
    assert state_hash(trained(story.stages[name].folder)) == state_hash(trained(alone("warned")))


@pytest.mark.parametrize("name", TOGETHER)
def test_several_processes_train_what_one_does(story, alone, name):
    """One node with two GPUs, two nodes with two each, and torchrun on two nodes."""
    stage, one = story.stages[name], alone("warned")
    assert {line["processes"] for line in begins(stage)} == {TOGETHER[name]}
    assert losses(stage.folder) == pytest.approx(losses(one), rel=1e-3)
    # Adam makes a step of full size out of rounding where a bias has no gradient: one of 24 steps of 1e-3 is much.
    assert_close(trained(stage.folder), trained(one), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", [*ALONE, *TOGETHER])
def test_no_image_is_lost_and_none_is_trained_twice(story, name):
    """Training goes on exactly where it was left; only a kill, which saves nothing, goes back to the save before."""
    saved, lines = 0, story.stages[name].attempts()
    for line in lines:
        assert line.get("begin", saved) == saved
        saved = line.get("end", saved)
    assert saved == lines[0]["until"]


def test_warned_and_killed(story):
    stage = story.stages["warned"]
    assert kinds(stage) == ["begin", "end", "begin", "begin", "end"]
    assert "is queued again" in ends(stage)[0]
    jobs = [line["job"] for line in begins(stage)]
    assert jobs[0] == jobs[1] != jobs[2]  # only after the kill Snakemake had to send another job


def test_preempted_and_cancelled(story):
    stage = story.stages["displaced"]
    assert kinds(stage) == ["begin", "end"] * 3
    assert all("not queued again from here" in why for why in ends(stage)[:2])
    jobs = [line["job"] for line in begins(stage)]
    assert jobs[0] == jobs[1] != jobs[2]  # a cancelled job is not brought back: Snakemake sends another


def test_crashed_with_its_node_and_requeued(story):
    stage = story.stages["crashed"]
    assert kinds(stage) == ["begin", "begin", "end", "begin", "end"]
    assert "not queued again from here" in ends(stage)[0]
    jobs, nodes = ([line[key] for line in begins(stage)] for key in ("job", "node"))
    assert len(set(jobs)) == 1 and nodes[0] != nodes[1]


def test_over_its_limit_without_a_warning(story):
    """Both processes save in the time that SLURM leaves (KillWait)."""
    stage = story.stages["overdue"]
    assert kinds(stage) == ["begin", "end"] * 2
    first, second = (line["job"] for line in begins(stage))
    if first == second:  # the job's step was ended before the job itself: it could still ask for another turn
        assert f"job {first} is queued again" in ends(stage)[0]
    else:  # Snakemake sent another one
        assert re.search(r"SLURM is ending job \d+ already .*; not queued again from here", ends(stage)[0])
        assert f"SLURM-job '{first}' failed, SLURM status is: 'TIMEOUT'" in story.output


def test_a_bug_of_one_process_fails_with_its_log_on_the_screen_and_is_not_trained_again(story):
    stage = story.stages["broken"]
    assert kinds(stage)[0] == "begin" and set(kinds(stage)[1:]) == {"error"}
    assert story.returncode == 1
    assert 'RuntimeError("a real bug")' in story.output
    assert "not tried again, the attempt before ended with an error: RuntimeError: a real bug" in story.output
    assert not (stage.folder / "final.ckpt").exists()


def test_two_nodes_share_a_stage(story):
    for name in ("spread", "torchrun"):
        stage = story.stages[name]
        assert kinds(stage) == ["begin", "end"]
        assert re.fullmatch(r"n\[\d+[,-]\d+\]", begins(stage)[0]["node"])


def ends(stage):
    """Why a training ended, each time that it could say so."""
    return [line["why"] for line in stage.attempts() if "end" in line]


def losses(stage):
    return [json.loads(line)["loss"] for line in (stage / "progress" / "history.jsonl").read_text().splitlines()]
