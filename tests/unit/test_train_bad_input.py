"""What a person or a scheduler may get wrong about a training: each is one message that says what to write."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from training_world import free_port

from mdm import cli
from mdm.config import StudyError, TrainConfig
from mdm.config.recipe import DataRecipe, StageRecipe
from mdm.files.artifact import digest, read_recipe
from mdm.files.atomic import ArtifactError, append_line, write_json
from mdm.train import ranks
from mdm.train.checkpoint import only_trainer
from mdm.train.progress import Progress
from mdm.train.ranks import device_of, joined, meeting_point, place
from mdm.train.start import slice_end

RECIPE = StageRecipe.model_construct(num_images=96, train=TrainConfig.model_construct(batch_images=8))


@pytest.mark.parametrize(("name", "end"), [("final.ckpt", 96), ("slice-8.ckpt", 8), ("slice-88.ckpt", 88)])
def test_a_file_names_its_slice(name, end):
    assert slice_end(RECIPE, Path(name)) == end


@pytest.mark.parametrize("name", ["foo.ckpt", "slice-50.ckpt", "slice-960.ckpt", "slice-0.ckpt", "slice-8.safetensors"])
def test_a_file_that_names_no_slice_is_refused(name):
    # Before, slice-960 of a stage of 96 pictures was trained to its end, and beyond that of the stage.
    with pytest.raises(
        StudyError, match=r"names no slice of this stage; write final\.ckpt, or slice-N\.ckpt .* 8 below 96"
    ):
        slice_end(RECIPE, Path(name))


def test_a_recipe_of_something_else_is_refused(tmp_path):
    recipe = DataRecipe(source="scenes", settings={}, shard_images=1)
    path = tmp_path / "data" / f"x-{digest(recipe.plain())}" / "recipe.json"
    write_json(path, recipe.plain())
    assert read_recipe(path, DataRecipe) == recipe
    with pytest.raises(StudyError, match="is a recipe of data; name one of results/train/"):
        read_recipe(path, StageRecipe)


def test_who_a_process_is_must_make_sense():
    who = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}
    for name, value in (("WORLD_SIZE", "x"), ("RANK", "-1"), ("LOCAL_RANK", "")):
        with pytest.raises(StudyError, match=f"{name} is '{value}', not a number; start training by torchrun"):
            place(who | {name: value})
    with pytest.raises(StudyError, match="RANK is 5 and WORLD_SIZE 2: ranks go from 0 to WORLD_SIZE - 1"):
        place(who | {"RANK": "5"})
    with pytest.raises(StudyError, match="MASTER_PORT is 'abc', not a number"):
        meeting_point(who | {"MASTER_PORT": "abc"})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_never_comes_is_not_waited_for_for_ever(monkeypatch, rank):
    monkeypatch.setattr(ranks, "GATHERING", timedelta(seconds=1))
    place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    alone = joined(place | {"MASTER_PORT": str(free_port())})
    with pytest.raises(torch.distributed.DistError, match=r"[Tt]imed out"), alone:
        raise AssertionError("this must not run")


def test_gpus_that_are_not_there_are_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(0, {"MDM_GPUS": "8"}).type == "cpu"
    assert "asks for 8 GPUs on each machine and PyTorch" in capsys.readouterr().out
    assert (
        device_of(1, {"MDM_GPUS": "8"}).type == device_of(0, {"MDM_GPUS": "0"}).type == device_of(0, {}).type == "cpu"
    )
    assert capsys.readouterr().out == ""


def test_two_processes_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert device_of(3, {}) == torch.device("cuda", 3)
    for environment in ({}, {"LOCAL_WORLD_SIZE": "8"}):
        with pytest.raises(StudyError, match="process 4 of this machine has no GPU: there are 4; write gpus: 4"):
            device_of(4, environment)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of(3, {}) == torch.device("cuda", 0)  # srun shows each process its own


@pytest.mark.parametrize(
    "words",
    [("train", "--autosave-seconds", "nan"), ("train", "--autosave-seconds", "-5"), ("train", "--preview-images", "-3"),
     ("train", "--accumulate", "0"), ("train", "--attempt", "x"), ("calibrate", "--seconds", "inf"),
     ("spread", "--nodes", "0"), ("spread", "--gpus", "-1")],
)  # fmt: skip
def test_numbers_without_meaning_are_refused(words, capsys):
    verb, option, value = words
    assert cli.main([verb, *(["recipe.json", "--out", "x"] if verb == "train" else []), option, value]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mdm {verb}: ") and f"'{option}': '{value}' is " in said and "; write " in said


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "results").write_text("a file")
    folder = tmp_path / "results" / "progress"
    with pytest.raises(ArtifactError, match="progress cannot be written: Not a directory"), only_trainer(folder):
        pass
    with pytest.raises(ArtifactError, match="cannot be written: Is a directory"):
        append_line(tmp_path, "x")


def test_a_line_of_the_log_is_on_disk_before_the_save_that_follows_it(tmp_path, monkeypatch):
    kept, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: kept.append(os.readlink(f"/proc/self/fd/{file}")) or sync(file))
    progress = Progress(tmp_path, (8,), 16, 8, torch.device("cpu"))
    progress.add(8, 8, torch.tensor(1.0), torch.tensor([1.0]))
    progress.tick(8, 1e-3, 0.5, None)
    assert str(tmp_path / "history.jsonl") in kept
