"""Speeds are medians of several measurements, and a disturbed one says so; time is a number here, not a clock."""

import itertools
import os

import pytest
import torch

from mdm.study.cost import calibrate, timing

CPU = torch.device("cpu")


class Machine:
    """Time that passes only by what is done; `durations` of the steps in turn, and of the products."""

    def __init__(self, durations, products=(1.0,)):
        self.now, self._steps, self._products = 0.0, itertools.cycle(durations), itertools.cycle(products)

    def step(self):
        self.now += next(self._steps)

    def product(self):
        taken = next(self._products)
        self.now += taken
        return taken

    def timing(self, seconds):
        return timing.timing(self.step, self.product, seconds, lambda: self.now)


def test_interruptions_of_single_steps_do_not_count():
    machine = Machine([9.0, 0.125, 0.125, 0.125, 5.0, 0.125, 0.125, 0.125, 0.125])  # 9: the step that warms up
    found = machine.timing(24.0)
    assert found.seconds == 0.125 and found.steps > 20 and len(found.rounds) == 3
    assert found.spread == 0 and found.disturbances(1.0) == []


def test_a_measurement_in_a_busy_spell_is_told():
    found = Machine([0.5] * 7 + [1.0] * 100).timing(9.0)  # 6 timed steps in the first measurement
    assert found.rounds == (0.5, 1.0, 1.0) and found.spread == 1
    assert found.disturbances(1.0) == ["measurements of the same work differ by 100%"]


def test_a_slow_matrix_product_tells_that_the_machine_was_slow():
    found = Machine([0.5], products=[3.0]).timing(30.0)
    assert found.disturbances(3.0) == [] and "3.0 times as long as at its best" in found.disturbances(1.0)[0]


@pytest.mark.parametrize(("each", "rounds"), [(0.1, 3), (3.0, 2), (40.0, 1)])
def test_the_time_for_a_work_is_bounded(each, rounds):
    machine = Machine([each], products=[0.05])
    found = machine.timing(3.0)
    assert len(found.rounds) == rounds and found.seconds == pytest.approx(each)
    assert machine.now <= each + 2 * 3.0 + max(1.0, each) + 0.2
    assert any("only" in reason for reason in found.disturbances(0.05)) == (rounds < 3)


def test_the_load_of_the_minute_before_is_told(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 9.0, 9.0))
    assert timing.load() == ""
    monkeypatch.setattr(os, "getloadavg", lambda: (6.5, 0.0, 0.0))
    assert timing.load() == "6.5 programs wanted its 4 cores in the minute before"


def facts(flops):
    return {"kind": "train", "ref": "train/r8-0", "precision": "float32", "batch_images": 16, "steps": 30,
            "seconds_per_image": 0.1, "images_per_second": 9.0, "spread": 0.04, "flops_per_second": flops,
            "peak_bytes": None, "threads": 1}  # fmt: skip


def test_later_measurements_show_that_an_early_one_was_slow():
    operations = timing.product_operations(CPU)
    found = {"busy": "", "shapes": {"a": facts(operations / 4.0)}}
    slow, fast = timing.Timing(1.0, 30, (1.0, 1.0, 1.0), 2.0), timing.Timing(1.0, 30, (1.0, 1.0, 1.0), 1.0)
    calibrate.compare(found, {"a": slow}, CPU)
    assert (found["shapes"]["a"]["disturbed"], found["shapes"]["a"]["matmul_share"]) == ([], 0.5)
    assert calibrate.warnings(found) == []
    found["shapes"]["b"] = facts(operations / 2.0)
    calibrate.compare(found, {"a": slow, "b": fast}, CPU)
    assert found["shapes"]["a"]["disturbed"] and found["shapes"]["a"]["matmul_share"] == 0.25
    (said,) = calibrate.warnings(found)
    other = {"busy": "", "shapes": {"a": facts(operations / 4.0), "b": {**facts(operations / 2.0), "threads": 8}}}
    calibrate.compare(other, {"a": slow, "b": fast}, CPU)  # a product with more threads is another product
    assert other["shapes"]["a"]["disturbed"] == []
    assert "1 of 2 works were disturbed" in said and "Calibrate again when it is idle" in said


def test_no_share_above_a_whole_matrix_product_is_printed():
    operations = timing.product_operations(CPU)
    found = {"busy": "", "shapes": {"a": facts(1.4 * operations)}}
    calibrate.compare(found, {"a": timing.Timing(1.0, 30, (1.0, 1.0, 1.0), 1.0)}, CPU)
    said = calibrate.sentence(found["shapes"]["a"])
    assert "matrix" not in said and "steps: 30, spread 4%" in said
