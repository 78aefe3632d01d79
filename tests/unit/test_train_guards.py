"""What goes wrong while training is noticed, and the message says what to change."""

import json
import time

import pytest
import torch
from training_world import together

from mdm.config import DiffusionConfig, LevelConfig, ModelConfig, StudyError, TrainConfig
from mdm.diffusion.schedule import levels
from mdm.files.atomic import ArtifactError
from mdm.files.weights import state_hash
from mdm.model.nested import build
from mdm.study import study
from mdm.train.bottlenecks import Bottlenecks, Stopwatch, starving, straggling
from mdm.train.checkpoint import Autosaves
from mdm.train.example import Example
from mdm.train.guards import Finite, advising_on_memory
from mdm.train.machine import machine, trained_on
from mdm.train.optim import make_optimizers
from mdm.train.progress import MACHINE_FACTS, Progress
from mdm.train.ranks import Ranks, joined
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step

DIFFUSION = DiffusionConfig()


def config(**changes):
    return TrainConfig(**{"batch_images": 2, "learning_rate": 1e-3, "ema_halflife_images": 4, **changes})


def fresh(settings):
    inner = LevelConfig(resolution=8, channels=(32,), resnets=(1,), middle=True)
    model = build(ModelConfig(levels=(inner, LevelConfig(resolution=16, channels=(32, 32), resnets=(1, 1)))))
    return TrainingState(model.train(), average_of(model, settings), make_optimizers(model, settings, set()))


def example(number, broken=False):
    generator = torch.Generator().manual_seed(number)
    images, noises = ([torch.randn(2, 3, r, r, generator=generator) for r in (16, 8)] for _ in range(2))
    if broken:
        images[0][1, 0, 3, 3] = torch.inf
    return Example(images, noises, torch.tensor([100, 500]), None, None, None)


def run(settings, broken, tmp_path, restarts=()):
    """Four steps, some on a broken picture, some after a restart; the state and the line of the log."""
    state, gammas = fresh(settings), levels(DIFFUSION, (16, 8))
    finite, progress = Finite(settings, (16, 8), Autosaves(tmp_path, 0), state), log(tmp_path)
    for number in range(4):
        if number in restarts:
            saved = {**state.tensors(), **progress.tensors()}
            state, images, skipped = fresh(settings), state.images, state.skipped
            state.restore(saved, images, skipped)
            finite, progress = Finite(settings, (16, 8), Autosaves(tmp_path, 0), state), log(tmp_path)
            progress.restore(saved, images)
        before = {name: value.clone() for name, value in state.tensors().items()}
        loss, per_level, norm = training_step(state, settings, DIFFUSION, gammas, example(number, number in broken))
        finite.note(state.images, per_level, norm)
        progress.add(state.images, 2, loss, per_level)
        if number in broken and settings.skip_nonfinite:
            after = state.tensors()
            assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    finite.check(state)
    progress.tick(state.images, 1e-3, 0.0, None)
    line = json.loads((tmp_path / "history.jsonl").read_text())
    return state, {key: value for key, value in line.items() if key not in MACHINE_FACTS}


def log(folder):
    return Progress(folder, (16, 8), 8, 8, torch.device("cpu"))


def test_a_step_that_is_not_finite_may_be_left_out(tmp_path, capsys):
    state, line = run(config(skip_nonfinite=2), {1, 2}, tmp_path)
    assert state.skipped == 2 and state.images == 8 and state.metadata()["skipped"] == 2
    assert all(value.isfinite().all() for value in state.tensors().values())
    assert line["loss"] > 0 and all(line["losses"].values())
    assert capsys.readouterr().out.count("warning: the step before image") == 2


@pytest.mark.parametrize("broken", [{0}, {0, 1}, {2}, {1, 3}])
def test_a_restart_beside_steps_that_are_left_out_changes_nothing(tmp_path, broken):
    whole, wanted = run(config(skip_nonfinite=2), broken, tmp_path / "whole")
    found, line = run(config(skip_nonfinite=2), broken, tmp_path / "restarted", restarts=(1, 2, 3))
    assert line == wanted and found.metadata() == whole.metadata()
    assert state_hash(found.tensors()) == state_hash(whole.tensors())


def test_more_of_them_than_allowed_end_training(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"the 2th such step where train\.skip_nonfinite allows 1; the slice began at 0"
    ):
        run(config(skip_nonfinite=1), {1, 2}, tmp_path)


def test_the_first_bad_step_is_named(tmp_path):
    saves = Autosaves(tmp_path, 0)
    saves.save(2, {"x": torch.zeros(1)}, {})
    with pytest.raises(ArtifactError) as error:
        run(config(), {1}, tmp_path)
    assert "loss of the level 16 px, 8 px, in step 2 (images 2 to 3); the last good checkpoint is" in str(error.value)
    assert str(saves.at(2)) in str(error.value) and "train.learning_rate" in str(error.value)


def test_a_step_without_room_says_what_takes_less():
    with (
        pytest.raises(
            ArtifactError, match=r"memory for a step of 2 pictures.*accumulate: 2 .*recompute.*allocate memory"
        ),
        advising_on_memory(config(), Ranks(), 1),
    ):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="size"), advising_on_memory(config(), Ranks(), 1):
        torch.ones(2) @ torch.ones(3)


def test_who_waits_is_told():
    assert starving([0.02], 4) is None and straggling([1.0]) is None
    assert "waits for data 35% of the time, with no decoding threads" in starving([0.35], 0)
    assert "with 14 decoding threads" in starving([0.3, 0.25, 0.28, 0.3], 14)
    assert starving([0.01, 0.5, 0.02, 0.01], 4).startswith(
        "process 1 waits for data 50% of the time, the typical one 1%"
    )
    assert straggling([1.0, 1.1, 1.2, 1.0]) is None
    assert straggling([1.0, 1.0, 1.0, 1.7]).startswith("process 3 computes 1.7 times as long")
    assert straggling([1.0, 2.0]).startswith("process 1 computes 2.0 times")


class Clock:
    """Time that goes only when it is told to: a busy machine would lengthen what is measured."""

    def __init__(self):
        self.now = 1000.0
        time.monotonic = time.perf_counter = lambda: self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(time, "monotonic", time.monotonic)  # put back afterwards
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)
    return Clock()


def slow_second():
    with joined() as ranks:
        clock, pace = Clock(), Bottlenecks(ranks, 0, seconds=0.05)
        for _ in range(4):
            with pace.forward.running():
                clock.wait(0.3 if ranks.rank == 1 else 0.01)
            clock.wait(0.01 if ranks.rank == 1 else 0.3)
            pace.look()


def test_a_slow_process_is_named_once(tmp_path):
    assert together(2, slow_second, log=tmp_path / "out") == [0, 0]
    said = (tmp_path / "out.0.log").read_text()
    assert said.count("warning:") == 1 and "process 1 computes" in said
    assert (tmp_path / "out.1.log").read_text() == ""


def test_the_first_batch_and_short_delays_are_not_told(capsys, clock):
    for pace in (Bottlenecks(Ranks(), 0, seconds=0.01), Bottlenecks(Ranks(), 0)):
        with pace.waiting():
            clock.wait(0.05)
        pace.look()
    for _ in range(3):
        with pace.waiting():
            clock.wait(0.02)
        pace.look()
    assert capsys.readouterr().out == ""


def test_a_loader_that_is_too_slow_is_told_once(capsys, clock):
    pace = Bottlenecks(Ranks(), 0, seconds=0.01)
    for _ in range(4):
        pace.look()
        with pace.waiting():
            clock.wait(0.02)
    assert capsys.readouterr().out.count("warning: training waits for data") == 1


def test_the_clock_counts_what_it_is_put_around(clock):
    stopwatch = Stopwatch(torch.device("cpu"))
    with stopwatch.running():
        clock.wait(0.02)
    clock.wait(0.05)
    assert stopwatch.take() == pytest.approx(0.02) and stopwatch.take() == 0


def test_the_machines_of_a_stage_are_listed_from_where_they_took_over():
    facts = machine(Ranks())
    assert facts["processes"] == 1 and facts["torch"] == torch.__version__
    first = trained_on([], 0, facts)
    assert trained_on(first, 64, facts) == first == [{"from_image": 0, **facts}]
    other = {**facts, "processes": 4}
    both = trained_on(first, 64, other)
    assert [entry["from_image"] for entry in both] == [0, 64]
    assert trained_on(both, 64, facts) == first  # taken back: nothing came of it


def test_settings_that_change_nothing_are_refused():
    stage = {"base.stages": {"r8": {"resolutions": [8], "num_images": 48, "moments": "carried"}}}
    with pytest.raises(StudyError, match="moments: carried has no effect, a first stage has none"):
        study.load("quick", {**stage, "ablations": {}, "claims": {}})
    with pytest.raises(StudyError, match=r"moments: carried has no effect, train\.inner_rate 0 freezes"):
        study.load("quick", {"base.stages.r16.moments": "carried", "base.stages.r16.train": {"inner_rate": 0}})
    with pytest.raises(StudyError, match=r"its train\.matrix_rate is 0\.01 and here None; write moments: fresh"):
        study.load("quick", {"base.stages.r16.moments": "carried", "base.stages.r16.train": {"matrix_rate": None}})
    with pytest.raises(StudyError, match="shard_optimizer has no effect with a single process"):
        study.load("quick", {"base.stages.r16.resources": {"shard_optimizer": True}})
    with pytest.raises(StudyError, match="write one of them"):
        study.load("quick", {"base.train.ema_width": 0.1})


def test_new_settings_at_their_defaults_are_not_in_recipes():
    assert not {"ema_width", "skip_nonfinite"} & config().model_dump().keys()
    changed = TrainConfig(batch_images=2, learning_rate=1, ema_width=0.1, skip_nonfinite=3)
    assert TrainConfig(**changed.model_dump()) == changed and changed.model_dump()["skip_nonfinite"] == 3
    carried = study.load("quick", {"base.stages.r16.moments": "carried"})
    assert carried.recipe(carried.runs[0].stages[1].artifact).moments == "carried"
