"""TensorBoard and W&B get what our own files get; nothing is sent anywhere unless somebody asks."""

import glob
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mdm.config import StudyError
from mdm.config.recipe import StageRecipe
from mdm.train import loggers
from mdm.train.progress import Progress

RECIPE = StageRecipe.model_construct(seed=3)
PICTURE = np.full((8, 8, 3), 200, np.uint8)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "r64-0123456789ab" / "progress"
    path.mkdir(parents=True)
    return path


def train(folder, images=(8, 16), begin=0):
    """Ticks at these image counts, to the loggers that the environment names."""
    progress = Progress(folder, (64, 16), 32, 8, torch.device("cpu"))
    progress.restore({}, begin)
    opened = loggers.open_loggers(folder, RECIPE, begin)
    progress.report_to(opened)
    for count in images:
        progress.add(count, 8, torch.tensor(float(count)), torch.tensor([3.0, 1.0]))
        progress.tick(count, 1e-3, 0.5, None)
    for logger in opened:
        logger.picture(images[-1], PICTURE)
    return opened


def test_nobody_is_told_by_default(folder, monkeypatch):
    monkeypatch.delenv(loggers.VARIABLE, raising=False)
    assert train(folder) == []
    assert {path.name for path in folder.iterdir()} == {"history.jsonl", "status.json"}


def test_a_name_that_is_none_gets_a_hint(folder, monkeypatch):
    monkeypatch.setenv(loggers.VARIABLE, "tensorbord")
    with pytest.raises(StudyError, match="did you mean 'tensorboard'"):
        loggers.open_loggers(folder, RECIPE, 0)


@pytest.mark.parametrize("name", loggers.LOGGERS)
def test_a_missing_package_is_named_with_its_remedy(folder, monkeypatch, name):
    monkeypatch.setenv(loggers.VARIABLE, name)
    monkeypatch.setattr(loggers, "find_spec", lambda module: None)
    with pytest.raises(StudyError, match=f"{name}, which is not installed; run `pip install {name}`"):
        loggers.open_loggers(folder, RECIPE, 0)


def test_tensorboard_reads_back_what_was_told(folder, monkeypatch):
    pytest.importorskip("tensorboard", reason="an extra: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv(loggers.VARIABLE, "tensorboard")
    train(folder, (8, 16))  # killed before its first save
    train(folder, (8, 16, 24))
    train(folder, (16, 24, 32), begin=8)  # killed after 24, the last save was at 8
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"loss", "losses/64", "losses/16", "gradient_norm", "images_per_second"} <= set(found.Tags()["scalars"])
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(8, 8), (16, 16), (24, 24), (32, 32)]
    assert [(event.step, event.width) for event in found.Images("samples")] == [(32, 8)]


def wandb_records(content):
    """The records of a .wandb file: after 7 bytes, blocks of 32 KiB with pieces (checksum, length, kind, bytes)."""
    position, parts = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""


@pytest.mark.slow
def test_wandb_writes_a_run_that_can_be_sent_later(folder, monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="an extra: pip install wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv(loggers.VARIABLE, "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for variable in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (opened,) = train(folder)
    import wandb

    opened._run.finish()
    wandb.teardown()  # its service writes the file, and ends with it
    (path,) = glob.glob(str(folder / "wandb" / "offline-run-*" / "*.wandb"))
    losses, name = [], None
    for data in wandb_records(Path(path).read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        name = record.run.run_id or name
        assert record.run.host in ("", loggers.NO_HOST) and not record.environment.host and not record.environment.args
        losses += [i.value_json for i in record.history.item if (i.key or "/".join(i.nested_key)) == "loss"]
    assert name == "r64-0123456789ab"
    assert [float(value) for value in losses] == [8.0, 16.0]
    assert len(list((folder / "wandb").glob("offline-run-*/files/media/images/samples_*.png"))) == 1
