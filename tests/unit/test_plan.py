"""What a study would cost: what is done is subtracted, what is shared is counted once, speeds come from a file."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mdm import cli
from mdm.config import StudyError
from mdm.files.atomic import write_json
from mdm.model.arithmetic import step_gigaflops
from mdm.study import study
from mdm.study.cost import calibrate, plan, step_memory
from mdm.study.cost import speeds as throughput
from mdm.study.cost.speeds import Throughput
from mdm.study.cost.works import works
from mdm.train.step import training_step

LONG = {"base.stages.r8.num_images": 512, "base.stages.r8.slice_images": 128}


def row(text, *words):
    """The line with all these words."""
    (found,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return found


def test_shared_stages_are_counted_once_and_what_is_done_is_known(tmp_path):
    loaded = study.load("quick")
    before = plan.render(loaded, tmp_path)
    assert before.count("shared") == 6  # three stages in each of two guidance runs
    first, second = (stage.artifact for stage in loaded.runs[0].stages[:2])
    write_json(tmp_path / first / "manifest.json", {"seconds": 12.0})
    (tmp_path / second / "progress").mkdir(parents=True)
    (tmp_path / second / "progress" / "autosave-000000000064.ckpt").touch()
    after = plan.render(loaded, tmp_path)
    assert "12 s" in row(after, first, "base #0") and row(after, first, "base #0").endswith("0/2  done")
    assert row(after, second, "base #0").endswith("1/1  25%")


def test_slices_saves_and_drawn_pictures_are_subtracted(tmp_path):
    loaded = study.load("quick", LONG)
    stage, samples = loaded.runs[0].stages[0].artifact, loaded.runs[0].evaluations[0].samples
    estimate = plan.Estimate(loaded, tmp_path)
    whole = estimate.line(stage)
    assert (whole.slices, whole.left_slices, whole.status) == (4, 4, "to do")
    assert whole.left_seconds == whole.seconds == estimate.seconds(stage)
    (tmp_path / stage / "progress").mkdir(parents=True)
    (tmp_path / stage / "slice-256.ckpt").touch()
    (tmp_path / stage / "progress" / "autosave-000000000320.ckpt").touch()
    line = estimate.line(stage)
    assert (line.slices, line.left_slices, line.left_seconds) == (4, 2, whole.seconds * 192 / 512)
    (tmp_path / samples / "partial" / "0123-32").mkdir(parents=True)
    (tmp_path / samples / "partial" / "0123-32" / "0000000.npz").touch()
    assert estimate.line(samples).left_seconds == pytest.approx(estimate.line(samples).seconds * 16 / 48)


def test_a_stage_that_has_begun_is_planned_at_its_own_speed(tmp_path):
    loaded = study.load("quick")
    ref = loaded.runs[0].stages[0].artifact
    write_json(tmp_path / ref / "progress" / "status.json", {"images": 64, "images_per_second": 4.0})
    line = plan.Estimate(loaded, tmp_path).line(ref)
    assert (line.seconds, line.mark) == (128.0, "")


@pytest.mark.parametrize("ended", [True, False])
def test_equal_work_on_this_disk_goes_before_the_calibration(ended, tmp_path):
    # Two seeds train the same networks; before, the second was planned at the calibrated speed.
    loaded = study.load("quick", {"seeds": [0, 1], "base.stages.r8.num_images": 512})
    first, second = (run.stages[0].artifact for run in loaded.runs if run.name == "base")
    speeds = Throughput(1.0, calibration(shape(throughput.training(loaded, first), 99.0)))
    assert plan.Estimate(loaded, tmp_path, speeds).line(second).mark == "c"
    if ended:
        write_json(tmp_path / first / "manifest.json", {"seconds": 128.0})
    else:
        write_json(tmp_path / first / "progress" / "status.json", {"images": 64, "images_per_second": 4.0})
    line = plan.Estimate(loaded, tmp_path, speeds).line(second)
    assert (line.seconds, line.mark) == (128.0, "r")
    assert "r = as fast as equal work went in this results folder" in plan.render(loaded, tmp_path, speeds)


def test_drawings_with_more_calls_are_planned_from_those_that_are_done(tmp_path):
    loaded = study.load("quick", {"ablations.guidance.sweep": {"sample.steps": [7, 21]}})
    few, many = (run.evaluations[0].samples for run in loaded.runs if run.name.startswith("guidance"))
    write_json(tmp_path / few / "manifest.json", {"seconds": 10.0})
    ratio = throughput.passes(loaded, many) / throughput.passes(loaded, few)
    line = plan.Estimate(loaded, tmp_path).line(many)
    assert ratio == 3 and (line.seconds, line.mark) == (pytest.approx(10.0 * ratio), "r")


def test_what_a_busy_machine_was_calibrated_at_is_marked(tmp_path):
    loaded = study.load("quick")
    first, second, third = (throughput.training(loaded, stage.artifact) for stage in loaded.runs[0].stages)
    shaken = shape(first, 0.5, disturbed=["measurements of the same work differ by 90%"])
    assert [Throughput(7.0, calibration(shaken)).speed(w).mark for w in (first, second)] == ["cb", "fb"]
    steady = Throughput(7.0, calibration({**shaken, **shape(second, 0.1)}))
    assert [steady.speed(w).mark for w in (first, second, third)] == ["cb", "c", "f"]
    by_flops = steady.speed(third).seconds  # from the steady one alone
    assert by_flops == pytest.approx(0.1 * third.gigaflops / second.gigaflops)
    loaded_machine = Throughput(7.0, {**calibration(shape(first, 0.5)), "busy": "9.0 programs wanted its 2 cores"})
    assert loaded_machine.speed(first).mark == "cb"
    assert "which was busy: run `mdm calibrate` again when it is idle" in plan.render(loaded, tmp_path, loaded_machine)


def test_totals_of_runs_ablations_and_the_study(tmp_path):
    loaded = study.load("quick")
    made = plan.Plan(loaded, tmp_path, Throughput(0.01))
    alone = {run.name: {ref for _, ref in works(run)} for run in loaded.runs}
    assert set(made.added["base", 0]) == alone["base"]
    assert made.added["guidance=4.0", 0] == [loaded.runs[-1].evaluations[0].samples]
    assert sorted(ref for refs in made.added.values() for ref in refs) == sorted(made.lines)
    text, seconds = made.text(), {name: sum(made.lines[r].seconds for r in refs) for name, refs in alone.items()}
    assert row(text, "guidance=4.0 #0", "1/1   ").split()[2:4] == plan.rough_duration(seconds["guidance=4.0"]).split()
    assert plan.rough_duration(sum(line.seconds for line in made.lines.values())) in row(text, "the whole study")
    assert "guidance (2 runs)" in text


def test_a_plan_of_one_ablation_has_its_runs_and_what_they_need(tmp_path, capsys):
    loaded = study.load("quick")
    runs = [run for run in loaded.runs if run.ablation == "guidance"]
    made = plan.Plan(loaded, tmp_path, Throughput(0.01), only=["guidance"])
    assert made.runs == runs and set(made.lines) == {ref for run in runs for _, ref in works(run)}
    text = made.text()
    assert "base #0" not in text and "no-progressive" not in text and "the whole study" not in text
    assert "guidance (2 runs)" in text
    seconds = sum(line.seconds for line in made.lines.values())
    assert plan.rough_duration(seconds) in row(text, "all of these")
    assert cli.main(["plan", "--study", "quick", "--results", str(tmp_path), "base", "guidance=4.0"]) == 0
    out = capsys.readouterr().out
    assert "base #0" in out and "guidance=4.0 #0" in out and "guidance=1.0" not in out
    assert cli.main(["plan", "--study", "quick", "guidence"]) == 2
    assert "no run or ablation 'guidence'; did you mean 'guidance'" in capsys.readouterr().err


def test_gpu_hours_storage_and_jobs_of_the_paper_study(tmp_path):
    loaded = study.load("paper")
    ref = loaded.runs[0].stages[0].artifact
    line = plan.Estimate(loaded, tmp_path, Throughput(1e-6)).line(ref)
    recipe = loaded.recipe(ref)
    gigaflops = step_gigaflops(recipe.model, recipe.diffusion, 128)
    assert line.gpu_hours == pytest.approx(102_400_000 * gigaflops * 1e-6 / 3600)
    assert (line.slices, line.left_slices) == (20, 20)
    text = plan.render(loaded, tmp_path)
    assert "at most 5.72 TiB of embeddings (captions of 128 tokens), by 23 jobs" in row(
        text, "text/flan-t5-xl-cc12m-256-"
    )
    # Two checkpoints' worth of weights and moments: what is written is what is announced.
    assert line.bytes == 24 * plan.parameters(recipe.model)


def test_a_job_longer_than_its_time_limit_is_warned_of(tmp_path):
    loaded = study.load("paper", {"base.stages.r64.slice_images": None, "base.stages.r64.resources.minutes": 60})
    ref = loaded.runs[0].stages[0].artifact
    line = row(plan.render(loaded, tmp_path), f"{ref}: a job takes")
    assert "asks for 60 min; write a smaller slice_images or more minutes" in line
    assert "a job takes" not in plan.render(study.load("paper"), tmp_path)


def test_a_plan_needs_no_torch(tmp_path):
    code = f"import sys; from mdm import cli; cli.main(['plan', '--study', 'paper', '--results', {str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False"


def calibration(shapes, kind="cpu"):
    return {"version": throughput.VERSION, "made": time.strftime("%Y-%m-%d"), "shapes": shapes,
            "machine": {"kind": kind, "device": "a machine"}}  # fmt: skip


def shape(work, seconds, **more):
    return {work.key: {"kind": work.kind, "precision": work.precision, "seconds_per_image": seconds,
                       "gigaflops_per_image": work.gigaflops, "peak_bytes": None, **more}}  # fmt: skip


def test_speed_is_that_of_the_very_work_else_by_flops_else_assumed():
    loaded = study.load("quick")
    first, second = (throughput.training(loaded, stage.artifact) for stage in loaded.runs[0].stages[:2])
    drawn = throughput.drawing(loaded, loaded.runs[0].evaluations[0].samples)
    speeds = Throughput(7.0, calibration(shape(first, 0.5, peak_bytes=123)))
    assert speeds.speed(first) == throughput.Speed(0.5, "c", 123)
    by_flops = speeds.speed(second)
    assert (by_flops.seconds, by_flops.mark) == (pytest.approx(0.5 * second.gigaflops / first.gigaflops), "f")
    assert speeds.speed(drawn) == throughput.Speed(7.0 * drawn.gigaflops, "?")


def test_work_is_the_same_where_its_speed_is():
    loaded = study.load("paper")
    keys = {run.name: throughput.training(loaded, run.stages[0].artifact).key for run in loaded.runs}
    assert keys["less-pretraining=25600000"] == keys["base"] != keys["no-progressive"]
    measured = [run for run in loaded.runs if run.evaluations]
    drawn = {run.name: throughput.drawing(loaded, run.evaluations[0].samples).key for run in measured}
    assert drawn["guidance=2.0"] == drawn["guidance=7.5"] != drawn["guidance=1.0"]


def test_the_work_of_a_process_is_its_own_part_of_a_batch():
    resources = {"nodes": 2, "gpus": 4, "accumulate": 2}
    # Before, one device was calibrated with the batch of all.
    loaded = study.load("paper", {"base.stages.r64.resources": resources})
    ref = loaded.runs[0].stages[0].artifact
    work = throughput.training(loaded, ref)
    assert (work.batch_images, work.settings["accumulate"], step_memory.at_once(loaded, ref)) == (64, 2, 32)
    alone = throughput.training(study.load("quick"), study.load("quick").runs[0].stages[0].artifact)
    assert alone.batch_images == 16 and "accumulate" not in alone.settings
    assert "what they tell one another is not counted" in plan.render(loaded, Path("nowhere"))


@pytest.mark.parametrize(
    "changes",
    [{"base.train.ema_halflife_images": None, "base.train.ema_width": 0.1},
     {"base.stages.r8.resources": {"nodes": 2, "accumulate": 4}}],
)  # fmt: skip
def test_every_way_of_training_can_be_calibrated(changes, monkeypatch):
    loaded, seen = study.load("quick", changes), []
    work = throughput.training(loaded, loaded.runs[0].stages[0].artifact)
    monkeypatch.setattr(
        calibrate, "training_step", lambda *a, **k: seen.append((len(a[4].times), k)) or training_step(*a, **k)
    )
    facts, _ = calibrate.measured(work, loaded, 0.0, torch.device("cpu"))
    assert facts["seconds_per_image"] > 0
    nodes = changes.get("base.stages.r8.resources", {}).get("nodes", 1)
    assert seen[0] == (16 // nodes, {"accumulate": work.settings.get("accumulate", 1)})


def test_a_processor_says_nothing_of_gpus():
    loaded = study.load("paper")
    work = throughput.training(loaded, loaded.runs[0].stages[0].artifact)
    assert Throughput(1.0, calibration(shape(work, 9.0))).speed(work).mark == "?"
    assert Throughput(1.0, calibration(shape(work, 9.0), "cuda")).speed(work).mark == "c"


@pytest.mark.slow
def test_what_calibrate_measures_the_plan_uses(tmp_path, capsys):
    torch.set_num_threads(1)
    out = tmp_path / "results" / "calibration.json"
    arguments = ["--study", "quick", "--results", str(tmp_path / "results")]
    assert cli.main(["calibrate", *arguments, "--seconds", "0.01"]) == 0
    said = capsys.readouterr().out
    found, loaded = json.loads(out.read_text()), study.load("quick")
    assert found["shapes"].keys() == {work.key for work in calibrate.distinct(loaded)}
    assert found["machine"]["torch"] == torch.__version__
    for facts in found["shapes"].values():
        assert facts["threads"] == loaded.resources(facts["ref"]).cpus and facts["matmul_flops_per_second"] > 1e8
        assert facts["flops_per_second"] == pytest.approx(
            facts["gigaflops_per_image"] * 1e9 / facts["seconds_per_image"]
        )
        assert f"{facts['images_per_second']:.2f} images/s" in row(said, facts["ref"], "batch")
    assert cli.main(["plan", *arguments]) == 0
    text = capsys.readouterr().out
    assert " ? " not in text and "calibrated on x86_64 processor" in text
    ref = loaded.runs[0].stages[0].artifact
    each = found["shapes"][throughput.training(loaded, ref).key]["seconds_per_image"]
    assert plan.rough_duration(512 * each) in row(text, ref, "base #0")


def test_calibrating_a_gpu_study_without_gpu_says_where_to(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(StudyError, match="run mdm calibrate on one of the nodes"):
        calibrate.calibrate(study.load("paper"), tmp_path / "x.json", 1.0)


def test_a_calibration_that_is_none_says_what_to_do(tmp_path):
    write_json(tmp_path / "calibration.json", {"version": 0})
    with pytest.raises(StudyError, match="mdm calibrate --out"):
        throughput.load(study.load("quick"), tmp_path / "calibration.json")
    assert cli.main(["plan", "--study", "quick", "--calibration", str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (192, "3.2 min"), (18360, "5.1 h"), (12 * 86400, "12 d")])
def test_durations_are_readable(seconds, text):
    assert plan.rough_duration(seconds) == text
