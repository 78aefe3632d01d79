"""What a training tells of itself: true waiting, speed of now, lines that a machine and a person read."""

import json
import re
import time

import pytest
import torch

from mdm.files.atomic import ArtifactError
from mdm.train.bottlenecks import Stopwatch
from mdm.train.progress import MACHINE_FACTS, MARKS, Progress, flat, memory_bytes, sentence

CPU = torch.device("cpu")


@pytest.fixture
def now(monkeypatch):
    """A clock that goes only when it is told to."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def step(progress, now, images, waits=0.25, takes=1.0, loss=2.0):
    """One step of four images at a loss; true if it ends a tick."""
    with progress.waits.running():
        now[0] += waits
    now[0] += takes - waits
    return progress.add(images, 4, torch.tensor(loss), torch.tensor([3.0, 1.0]))


def lines(folder):
    return [json.loads(text) for text in (folder / "history.jsonl").read_text().splitlines()]


def test_a_tick_says_everything(tmp_path, now, capsys):
    progress = Progress(tmp_path, (64, 16), 40, 8, CPU)
    assert not step(progress, now, 4)
    assert step(progress, now, 8, loss=4.0)
    progress.tick(8, 1e-3, 0.5, {"64": [0.25]})
    (line,) = lines(tmp_path)
    memory = line.pop("memory_mib")
    assert line == {
        "images": 8, "seconds": 2.0, "loss": 3.0, "losses": {"64": 3.0, "16": 1.0}, "images_per_second": 4.0,
        "data_wait_percent": 25.0, "eta_seconds": 8.0, "learning_rate": 1e-3, "gradient_norm": 0.5,
        "validation": {"64": 0.25},
    }  # fmt: skip
    assert memory == pytest.approx(memory_bytes(CPU) / 2**20, rel=0.2)
    assert json.loads((tmp_path / "status.json").read_text()) == {**line, "memory_mib": memory, "num_images": 40}
    said = capsys.readouterr().out
    assert re.search(
        r"8/40 images +4\.0 images/s +loss 3\.0000 \(64px 3\.0000 16px 1\.0000\) +norm 0\.50 +data wait 25\.0 % +"
        r"memory \S+ [MG]iB +ETA 0:08",
        said,
    )


def test_speed_and_waiting_are_those_of_the_last_ticks(tmp_path, now):
    progress = Progress(tmp_path, (64, 16), 400, 4, CPU)
    for number in range(1, 3 * MARKS):
        late = number > MARKS
        step(progress, now, 4 * number, waits=0.0 if late else 0.9, takes=1.0 if late else 10.0)
        progress.tick(4 * number, 0.0, 0.0, None)
    found = lines(tmp_path)
    assert found[3]["images_per_second"] == 0.4 and found[3]["data_wait_percent"] == 9.0
    assert found[-1]["images_per_second"] == 4.0 and found[-1]["data_wait_percent"] == 0.0


def test_a_long_tick_is_heard_of_before_it_ends(tmp_path, now, capsys):
    progress = Progress(tmp_path, (64, 16), 10**6, 10**6, CPU)
    for number in range(1, 31):
        assert not step(progress, now, 4 * number, takes=5.0)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["images"] == 120 and status["loss"] == 2.0
    assert not (tmp_path / "history.jsonl").exists()
    assert capsys.readouterr().out.count("images/s") == 2  # once a minute


def test_a_loss_that_is_not_finite_is_told_as_such(tmp_path, now, capsys):
    progress = Progress(tmp_path, (64, 16), 8, 4, CPU)
    step(progress, now, 4, loss=float("nan"))
    progress.tick(4, 0.0, float("inf"), None)
    (line,) = lines(tmp_path)
    assert line["loss"] is None and line["gradient_norm"] is None
    assert "loss not finite" in capsys.readouterr().out


def test_a_resumed_log_differs_in_facts_of_the_machine_only(tmp_path, now):
    def told(folder):
        return [{k: v for k, v in line.items() if k not in MACHINE_FACTS} for line in lines(folder)]

    whole = Progress(tmp_path / "whole", (64, 16), 24, 8, CPU)
    broken = Progress(tmp_path / "broken", (64, 16), 24, 8, CPU)
    for images in (4, 8, 12, 16):
        for progress in (whole, broken):
            if step(progress, now, images, loss=images):
                progress.tick(images, 0.0, 1.0, None)
        if images == 12:
            saved = {name: value.clone() for name, value in broken.tensors().items()}
    with (tmp_path / "broken" / "history.jsonl").open("a") as stream:
        stream.write('{"images": 20, "lo')
    broken = Progress(tmp_path / "broken", (64, 16), 24, 8, CPU)
    broken.restore(saved, 12)
    step(broken, now, 16, takes=3.0, loss=16)
    broken.tick(16, 0.0, 1.0, None)
    assert told(tmp_path / "broken") == told(tmp_path / "whole")


def test_a_log_that_cannot_be_written_says_what_to_do(tmp_path, now):
    progress = Progress(tmp_path, (64, 16), 40, 4, CPU)
    (tmp_path / "history.jsonl").symlink_to("/dev/full")
    step(progress, now, 4)
    with pytest.raises(ArtifactError, match=r"history\.jsonl cannot be written: No space left .*; make room"):
        progress.tick(4, 0.0, 1.0, None)


def test_waiting_counts_the_fetching_alone():
    waiting = Stopwatch(CPU)
    with waiting.running():
        time.sleep(0.05)
    time.sleep(0.05)
    first = waiting.seconds()
    assert first >= 0.05 and waiting.seconds() == first


def test_numbers_by_path():
    line = {"images": 4, "loss": 1.0, "losses": {"64": 2.0, "16": None}, "validation": {"64": 3.0}}
    assert flat(line) == {"loss": 1.0, "losses/64": 2.0, "validation/64": 3.0}


def test_a_sentence_without_a_norm():
    line = {"images": 4, "loss": 1.0, "losses": {}, "images_per_second": 1, "data_wait_percent": 0, "memory_mib": 1,
            "eta_seconds": 7300}  # fmt: skip
    assert "norm" not in sentence(line, 8) and sentence(line, 8).endswith("ETA 2:01:40")
