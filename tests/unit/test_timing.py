"""Speeds are medians of several steps, and a disturbed one says so; time is a number here, not a clock."""

import itertools
import os

import pytest
import torch
from torch.utils.benchmark import Measurement, TaskSpec

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


def steps(*seconds):
    return Measurement(1, list(seconds), TaskSpec("", ""))


def test_interruptions_of_single_steps_do_not_count():
    machine = Machine([9.0, 0.125, 0.125, 0.125, 5.0, 0.125, 0.125, 0.125, 0.125])  # 9: the step that warms up
    found = machine.timing(36.0)
    assert found.steps.median == 0.125 and found.count > 20
    assert found.spread == 0 and found.disturbances(1.0) == []


def test_a_measurement_in_a_busy_spell_is_told():
    found = timing.Timing(steps(*[0.5] * 6, *[1.0] * 6), 1.0)
    assert found.steps.median == 0.75 and found.spread == pytest.approx(2 / 3) and found.steps.has_warnings
    assert found.disturbances(1.0) == ["measurements of the same work differ by 67%"]


def test_unsteady_steps_are_repeated_until_they_are_steady():
    found = Machine([0.5] * 7 + [1.0] * 100).timing(5.0)  # 6 fast steps after the warm-up, 2 slow ones reach 5 s
    assert found.count == 14 and found.disturbances(1.0) == ["measurements of the same work differ by 50%"]
    calm = Machine([1.0] * 3 + [0.5] * 100).timing(3.5)
    assert calm.steps.median == 0.5 and calm.spread == 0 and calm.disturbances(1.0) == []


def test_a_slow_matrix_product_tells_that_the_machine_was_slow():
    found = Machine([0.5], products=[2.0, 4.0]).timing(30.0)
    assert found.product == 3.0 and found.disturbances(3.0) == []
    assert "3.0 times as long as at its best" in found.disturbances(1.0)[0]


@pytest.mark.parametrize(("each", "count"), [(0.1, 30), (3.0, 3), (40.0, 1)])
def test_the_time_for_a_work_is_bounded(each, count):
    machine = Machine([each], products=[0.05])
    found = machine.timing(3.0)
    assert found.count == pytest.approx(count, abs=1) and found.steps.median == pytest.approx(each)
    assert machine.now <= each + 2 * 3.0 + max(1.0, each) + 0.2
    assert any("only" in reason for reason in found.disturbances(0.05)) == (count < 4)


def test_no_time_at_all_is_one_step():
    machine = Machine([1.0, 2.0])
    assert machine.timing(0.0).count == 1


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
    slow, fast = timing.Timing(steps(*[1.0] * 30), 2.0), timing.Timing(steps(*[1.0] * 30), 1.0)
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
    calibrate.compare(found, {"a": timing.Timing(steps(*[1.0] * 30), 1.0)}, CPU)
    said = calibrate.sentence(found["shapes"]["a"])
    assert "matrix" not in said and "steps: 30, spread 4%" in said
