"""Whatever a cluster does to a training job, the stage ends with the weights of one that was left alone."""

import json
import re

import pytest
from little_cluster import trained
from torch.testing import assert_close

from mdm.model.checkpoints import state_hash

pytestmark = pytest.mark.slow
TRAINED = ("unlucky", "displaced")


def begins(stage):
    return [line for line in stage.attempts() if "begin" in line]


def kinds(stage):
    """The journal of a stage as words: begin, end, error."""
    return [next(word for word in ("begin", "end", "error") if word in line) for line in stage.attempts()]


@pytest.mark.parametrize("name", TRAINED)
def test_the_weights_are_those_of_a_training_left_alone(story, alone, name):
    assert state_hash(trained(story.stages[name].folder)) == state_hash(trained(alone("unlucky")))


@pytest.mark.parametrize("name", TRAINED)
def test_no_image_is_lost_and_none_is_trained_twice(story, name):
    """Training goes on exactly where it was left; only a kill, which saves nothing, goes back to the save before."""
    saved, lines = 0, story.stages[name].attempts()
    for line in lines:
        assert line.get("begin", saved) == saved
        saved = line.get("end", saved)
    assert saved == lines[0]["until"]


def test_warned_requeued_killed(story):
    stage = story.stages["unlucky"]
    assert kinds(stage) == ["begin", "end", "begin", "end", "begin", "begin", "end"]
    warned, requeued, _ = (line["why"] for line in stage.attempts() if "end" in line)
    assert "is queued again" in warned and "not queued again from here" in requeued
    jobs = [line["job"] for line in begins(stage)]
    assert jobs[0] == jobs[1] == jobs[2] != jobs[3]  # only after the kill Snakemake had to send another job


def test_preempted_crashed_cancelled(story):
    stage = story.stages["displaced"]
    assert kinds(stage) == ["begin", "end", "begin", "begin", "end", "begin", "end"]
    preempted, cancelled, _ = (line["why"] for line in stage.attempts() if "end" in line)
    assert "not queued again from here" in preempted and "not queued again from here" in cancelled
    jobs, nodes = ([line[key] for line in begins(stage)] for key in ("job", "node"))
    assert nodes[1] != nodes[2]
    assert jobs[0] == jobs[1] == jobs[2] != jobs[3]  # a cancelled job is not brought back: Snakemake sends another


def test_a_bug_fails_with_its_log_on_the_screen_and_is_not_trained_again(story):
    stage = story.stages["broken"]
    assert kinds(stage) == ["begin", "error"]
    assert story.returncode == 1
    assert 'RuntimeError("a real bug")' in story.output
    assert "not tried again, the attempt before ended with an error: RuntimeError: a real bug" in story.output
    assert not (stage.folder / "final.ckpt").exists()


def losses(stage):
    return [json.loads(line)["loss"] for line in (stage / "progress" / "history.jsonl").read_text().splitlines()]


def test_two_nodes_with_two_gpus_each_train_one_stage(story, alone):
    stage, one = story.stages["spread"], alone("spread")
    assert kinds(stage) == ["begin", "end"]
    assert begins(stage)[0]["processes"] == 4
    assert re.fullmatch(r"n\[\d[,-]\d\]", begins(stage)[0]["node"])
    assert losses(stage.folder) == pytest.approx(losses(one), rel=1e-3)
    # Adam makes a step of full size out of rounding where a bias has no gradient: one of 32 steps of 1e-3 is much.
    assert_close(trained(stage.folder), trained(one), rtol=0, atol=5e-3)
