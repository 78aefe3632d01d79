"""One process or several: the same batches, the same noise, the same masks, the same weights up to rounding."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from repository import HANG_SECONDS
from training_world import NEVER, begin, copied, make_world, together, train_and_halt

from mdm.config import DiffusionConfig, ModelConfig, StudyError, TrainConfig
from mdm.config.recipe import StageRecipe
from mdm.data.pictures.decode import BadPicture
from mdm.data.pictures.failures import Failure
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError
from mdm.files.weights import load_weights, save_weights, state_hash
from mdm.model import dropout
from mdm.model.dropout import PictureDropout
from mdm.model.ema import Ema
from mdm.model.execution import Execution
from mdm.model.nested import build
from mdm.study import study
from mdm.train import gradient_buckets
from mdm.train.attempts import Attempts
from mdm.train.checkpoint import read_checkpoint
from mdm.train.example import training_examples
from mdm.train.journal import Journal, last_error
from mdm.train.loop import train
from mdm.train.optim import make_optimizers
from mdm.train.ranks import Place, Ranks, joined, meeting_point, place
from mdm.train.sharding import owners
from mdm.train.state import TrainingState, picture_keys

# Everything that could depend on who sees which picture: dropout, batches of mixed resolution, captions dropped.
MIXED = {
    "data.scenes-train.settings.num_images": 48,
    "data.scenes-new.settings.num_images": 16,
    "base.model.levels.8.dropout": 0.2,
    "base.model.levels.16.dropout": 0.1,
    "base.stages": {"r16": {"resolutions": [8, 16], "num_images": 80, "diffusion": {"mixed_ratio": [1, 2]}}},
    "base.train.matrix_rate": None,
    "base.train.learning_rate": 1e-4,
    "base.train.validate_images": 0,
    "protocols.zero-shot.num_images": 16,
    "protocols.zero-shot.num_reference": 16,
    "ablations": {},
    "claims": {},
}


# Measured after five steps: rounding moves weights by 5e-7 of the largest, other masks of dropout by 5e-2.
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("results"), MIXED, ("r16",))


@pytest.fixture
def recipe(recipes, tmp_path):
    return copied(recipes, tmp_path)["r16"]


@pytest.fixture(scope="module")
def alone(recipes, tmp_path_factory):
    """What one process makes of the stage."""
    return trained(copied(recipes, tmp_path_factory.mktemp("alone"))["r16"])


def trained(recipe, world=1, before=None, **execution):
    out = recipe.parent / "final.ckpt"
    arguments = (recipe, out, before, NEVER, Execution(**execution))
    if world == 1:
        train(*arguments)
    else:
        assert together(world, train, *arguments, log=recipe.parent / "out") == [0] * world
    return read_checkpoint(out)[0]


def difference(found, wanted):
    """The largest difference of weights, relative to the largest weight of the tensor."""
    names = [name for name in wanted if name.startswith(("model.", "ema."))]
    assert names and found.keys() == wanted.keys()
    return max(((found[n] - wanted[n]).abs().max() / wanted[n].abs().max().clamp(min=1e-2)).item() for n in names)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_see_the_same_batches_and_noises(recipe, world):
    settings = read_recipe(recipe, StageRecipe)
    whole = training_examples(recipe, settings, Ranks())
    ranks = [training_examples(recipe, settings, Ranks(rank, world)) for rank in range(world)]
    for seen in (0, 16, 64):
        one, parts = whole.at(seen), [rank.at(seen) for rank in ranks]
        assert sorted(picture for part in parts for picture in part.pictures) == list(range(seen, seen + 16))
        for rank, part in enumerate(parts):
            own = one.part(rank, world)
            assert part.pictures == own.pictures
            for found, wanted in zip(flat(part), flat(own), strict=True):
                assert torch.equal(found, wanted)


def test_each_process_notes_what_it_left_out_in_a_file_of_its_own(recipe):
    loader = training_examples(recipe, read_recipe(recipe, StageRecipe), Ranks(1, 2))._loader
    loader._skip(3, BadPicture("it is damaged", Failure.BROKEN_PICTURE))
    assert (recipe.parent / "progress" / "skipped-training-1.jsonl").is_file()


def flat(example):
    return [*example.images, *example.noises, example.times, example.text, example.mask]


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_train_the_same_weights_within_rounding(recipe, alone, world):
    assert difference(trained(recipe, world), alone) < TOLERANCE


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_trains_the_same_weights_within_rounding(recipe, alone, parts):
    assert difference(trained(recipe, accumulate=parts), alone) < TOLERANCE


def test_parts_of_ranks_train_the_same_weights_within_rounding(recipe, alone):
    assert difference(trained(recipe, 2, accumulate=2), alone) < TOLERANCE


def test_shared_moments_train_the_same_weights_bit_for_bit(recipe):
    wanted = trained(recipe, 2)
    (recipe.parent / "final.ckpt").unlink()
    found = trained(recipe, 2, shard_optimizer=True)
    assert without_time(found) == without_time(wanted)


def without_time(tensors):
    return state_hash({name: value for name, value in tensors.items() if name != "progress.seconds"})


def test_shared_moments_are_saved_whole(recipe, alone):
    first, out = recipe.parent / "slice-48.ckpt", recipe.parent / "final.ckpt"
    assert together(4, train, recipe, first, None, NEVER, Execution(shard_optimizer=True)) == [0] * 4
    assert difference(trained(recipe, before=first), alone) < TOLERANCE
    out.unlink()
    assert difference(trained(recipe, 2, before=first, shard_optimizer=True), alone) < TOLERANCE


def step_with_momentum(folder):
    """A step of orthogonal momentum and AdamW, moments shared or not; weights and moments."""
    with joined() as ranks:
        for shared in (False, True):
            torch.manual_seed(0)
            layers = [torch.nn.Linear(4, 4) for _ in range(3)] + [torch.nn.Conv2d(4, 4, 3)]
            network = torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)
            config = TrainConfig(batch_images=1, learning_rate=0.1, matrix_rate=0.1, ema_halflife_images=1)
            state = TrainingState(network, Ema(network, 1), make_optimizers(network, config, set()))
            if shared:
                state.shard_moments(ranks)
                kept = sum(len(g["params"]) for o in state.optimizers for g in o.param_groups)
                assert kept == (3, 5)[ranks.rank]  # half of the biases; the large matrix, or the three small ones
            for _ in range(2):
                for number, parameter in enumerate(network.parameters()):
                    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                state.step()
            tensors = state.tensors()
            if ranks.first:
                save_weights(folder / f"{shared}.safetensors", tensors)
            again = TrainingState(network, Ema(network, 1), make_optimizers(network, config, set()))
            again.shard_moments(ranks)
            if ranks.first:
                again.restore(tensors, 1)


def test_shared_momentum_is_the_same_too(tmp_path):
    assert together(2, step_with_momentum, tmp_path, log=tmp_path / "out") == [0, 0]
    found, wanted = (load_weights(tmp_path / f"{shared}.safetensors") for shared in (True, False))
    assert state_hash(found) == state_hash(wanted) and any("momentum" in name for name in found)


def test_the_numbers_are_shared_evenly():
    sizes = [3000, 10, 10, 2000, 1500, 700, 10]
    found = owners(sizes, 3)
    loads = [sum(size for size, owner in zip(sizes, found, strict=True) if owner == rank) for rank in range(3)]
    assert sum(loads) == sum(sizes) and max(loads) == 3000
    assert owners([5], 4) == [0]


def test_a_slice_goes_on_with_another_number_of_processes(recipe, alone):
    first = recipe.parent / "slice-48.ckpt"
    assert together(2, train, recipe, first, None, NEVER) == [0, 0]
    assert difference(trained(recipe, before=first), alone) < TOLERANCE
    (recipe.parent / "final.ckpt").unlink()
    assert difference(trained(recipe, 4, before=first), alone) < TOLERANCE


def test_a_slice_goes_on_with_another_number_of_parts(recipe, alone):
    first = recipe.parent / "slice-48.ckpt"
    train(recipe, first, None, NEVER, Execution(accumulate=2))
    assert difference(trained(recipe, before=first, accumulate=4), alone) < TOLERANCE


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_resume_bit_for_bit(recipe, world):
    resumes_bit_for_bit(recipe, world)


def test_three_processes_resume_bit_for_bit(tmp_path):
    """Three are the fewest where the order of a sum depends on its place in a bucket."""
    stages = {"r16": {"resolutions": [8, 16], "num_images": 96, "diffusion": {"mixed_ratio": [1, 2]}}}
    changes = {**MIXED, "base.train.batch_images": 24, "base.stages": stages}
    resumes_bit_for_bit(make_world(tmp_path / "results", changes, ("r16",))["r16"], 3)


def resumes_bit_for_bit(recipe, world):
    once = trained(recipe, world)
    (recipe.parent / "final.ckpt").unlink()
    assert together(world, train, recipe, recipe.parent / "slice-48.ckpt", None, NEVER) == [0] * world
    twice = trained(recipe, world, before=recipe.parent / "slice-48.ckpt")
    assert without_time(once) == without_time(twice)


def begin_training(recipe, world, seconds):
    return begin(world, train_and_halt, recipe, recipe.parent / "final.ckpt", None, seconds, log=recipe.parent / "out")


def wait_for(processes, found):
    end = time.monotonic() + HANG_SECONDS
    while not found():
        assert all(process.is_alive() for process in processes), "a process ended early"
        assert time.monotonic() < end
        time.sleep(0.02)


def saves(recipe):
    return sorted(path.name for path in (recipe.parent / "progress").glob("autosave-*.ckpt"))


def test_two_processes_are_killed_and_one_goes_on(recipe, alone):
    processes = begin_training(recipe, 2, 0)
    wait_for(processes, lambda: saves(recipe))
    for process in processes:
        process.kill(), process.join()
    assert not (recipe.parent / "final.ckpt").exists() and saves(recipe)
    assert difference(trained(recipe), alone) < TOLERANCE


def test_one_of_two_processes_is_killed_and_the_next_attempt_goes_on(recipe, alone):
    processes = begin_training(recipe, 2, 0)
    wait_for(processes, lambda: saves(recipe))
    processes[1].kill()
    (recipe.parent / "go").touch()
    for process in processes:
        process.join(HANG_SECONDS)
    assert [process.exitcode for process in processes] == [1, -9]  # the other one does not wait for it
    assert together(2, train, recipe, recipe.parent / "final.ckpt", None, NEVER, attempt=2) == [0, 0]
    assert difference(read_checkpoint(recipe.parent / "final.ckpt")[0], alone) < TOLERANCE


def second_has_a_bug(folder):
    with joined() as ranks, Attempts(folder).errors(1):
        if ranks.rank == 1:
            raise ValueError("a bug")
        ranks.barrier()


def test_what_ended_the_first_process_to_go_is_what_counts(tmp_path):
    assert together(2, second_has_a_bug, tmp_path, log=tmp_path / "out") == [1, 1]
    assert "gloo" in (tmp_path / "out.0.log").read_text()
    found = last_error(Journal(tmp_path).lines())
    assert found["error"] == "ValueError: a bug" and found["comes_again"] is True


def test_all_stop_after_the_same_step_when_one_is_asked_to(recipe, alone):
    processes = begin_training(recipe, 2, NEVER)
    log = recipe.parent / "out.0.log"
    wait_for(processes, lambda: log.exists() and "images/s" in log.read_text())
    os.kill(processes[1].pid, signal.SIGTERM)
    (recipe.parent / "go").touch()
    for process in processes:
        process.join(HANG_SECONDS)
    assert [process.exitcode for process in processes] == [128 + signal.SIGTERM] * 2
    said = log.read_text()
    assert "stopped by signal 15; saved at" in said and len(saves(recipe)) == 1
    assert (recipe.parent / "out.1.log").read_text() == ""  # one process speaks for all
    assert difference(trained(recipe), alone) < TOLERANCE


def is_free(lock):
    """Whether the killed are gone: the kernel takes its time."""
    with open(lock) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.slow
def test_torchrun_starts_the_command_line(recipe, alone):
    """The way of the README: torchrun, two processes, killed hard, resumed by one."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mdm",
               "--threads", "1", "train", str(recipe), "--out", str(recipe.parent / "final.ckpt"),
               "--autosave-seconds", "0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        wait_for([], lambda: saves(recipe) or run.poll() is not None)
        assert saves(recipe), run.stdout.read()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # they were faster
            workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            for process in (run.pid, *map(int, workers)):
                os.kill(process, signal.SIGKILL)
    wait_for([], lambda: is_free(recipe.parent / "progress" / "lock"))
    assert difference(trained(recipe), alone) < TOLERANCE


def test_a_batch_that_cannot_be_shared_is_refused(recipe):
    out = recipe.parent / "final.ckpt"
    with pytest.raises(StudyError, match=r"batch_images 16 cannot be shared by 3 parts .* such as 15"):
        train(recipe, out, None, NEVER, Execution(accumulate=3))
    with pytest.raises(StudyError, match=r"mixed_ratio \[1\.0, 2\.0\] sends 5 of 16 .* fewer than the 8 parts"):
        train(recipe, out, None, NEVER, Execution(accumulate=8))
    config = TrainConfig(batch_images=16, learning_rate=1, ema_halflife_images=1)
    config.require_parts(16, DiffusionConfig())
    stages = {"stages": {"r8": {"resolutions": [8], "num_images": 48, "resources": {"accumulate": 3}}}}
    with pytest.raises(StudyError, match=r"stages\.r8: train\.batch_images 16 cannot be shared by 3 parts"):
        study.load("quick", {**MIXED, **{f"base.{key}": value for key, value in stages.items()}})


def test_who_a_process_is():
    assert place({}) == Place(0, 1, 0)
    assert place({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "SLURM_STEP_NUM_TASKS": "2"}) == Place(3, 4, 1)
    step = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert place(step) == Place(5, 8, 1)
    # A batch script of many tasks is one process.
    assert place({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}).world == 1
    with pytest.raises(StudyError, match="WORLD_SIZE is set but RANK is not"):
        place({"WORLD_SIZE": "2"})
    assert meeting_point({"MASTER_ADDR": "a", "MASTER_PORT": "1"}) == ("a", 1)
    assert meeting_point({"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1", "SLURM_JOB_ID": "44007"}) == ("10.0.0.1", 28007)
    with pytest.raises(StudyError, match="MASTER_ADDR"), joined({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}):
        pass


def told():
    with joined() as ranks:
        assert ranks.broadcast({"rank": ranks.rank}) == {"rank": 0} and ranks.broadcast(None) is None
        assert ranks.all_max(ranks.rank, None, -1) == [1, 0, -1]
        assert ranks.all_sum(torch.tensor([1.0 + ranks.rank])).item() == 3


def added_up():
    with joined() as ranks:
        torch.manual_seed(ranks.rank)  # weights and gradients of every process differ
        layers = [torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 8, 1), torch.nn.Linear(8, 3), torch.nn.Linear(3, 1)]
        network = torch.nn.ModuleList(layers).to(memory_format=torch.channels_last)
        gradient_buckets.BUCKET_BYTES = 300
        shared = gradient_buckets.GradientBuckets(network.parameters())
        shared.begin()
        assert len(set(ranks.broadcast([p.sum().item() for p in network.parameters()]))) > 4
        weights = [weight.tolist() for weight in network.parameters()]
        assert weights == ranks.broadcast(weights)
        parts = [torch.randn(2, 4, 5, 5) for _ in range(2)]
        x = torch.cat(parts)

        def loss(x):
            return layers[3](layers[2](layers[1](layers[0](x)).mean((2, 3)))).square().sum()

        own = torch.autograd.grad(loss(x), list(network.parameters()))
        loss(parts[0]).backward()  # a part that stays at home
        with shared.adding_up():
            loss(parts[1]).backward()
        for parameter, gradient in zip(network.parameters(), own, strict=True):
            torch.testing.assert_close(parameter.grad, ranks.all_sum(gradient.contiguous()), rtol=1e-4, atol=1e-4)
            assert parameter.grad.stride() == parameter.stride()
        with pytest.raises(ArtifactError, match="2 trained weights got no gradient"), shared.adding_up():
            layers[2](layers[1](layers[0](x)).mean((2, 3))).sum().backward()


def test_gradients_of_three_processes_are_added_up(tmp_path):
    assert together(3, added_up, log=tmp_path / "out") == [0, 0, 0]


def test_buckets_hold_every_weight_once():
    weights = [torch.nn.Parameter(torch.ones(size)) for size in (2**23, 10, 10, 2**22, 2**22)]
    found = gradient_buckets.buckets(weights)
    assert [[len(weight) for weight in bucket] for bucket in found] == [[2**22, 2**22], [10, 10, 2**23]]


def test_what_ranks_say_to_one_another():
    assert together(2, told) == [0, 0]
    assert Ranks().all_max(3, None) == [3, 0] and Ranks().broadcast([1]) == [1]


def test_the_masks_of_a_picture_do_not_depend_on_its_company():
    layer, x = PictureDropout(0.3), torch.ones(6, 8, 5, 4)
    layer.keys = picture_keys(7, range(100, 106))
    whole = layer(x, 6)
    assert whole.unique().tolist() == pytest.approx([0, 1 / 0.7])
    layer.keys = picture_keys(7, range(100, 106)[1::2])
    assert torch.equal(layer(x[:3], 3), whole[1::2]) and torch.equal(layer(x[:2], 2), whole[1:4:2])
    layer.keys = picture_keys(8, range(101, 106, 2))
    assert not torch.equal(layer(x[:3], 3), whole[1::2])
    # Frames of a clip are rows of their own, with masks of their own.
    clips = layer(x, 3)
    assert torch.equal(layer(x[:2], 1), clips[:2]) and not torch.equal(clips[0], clips[1])
    assert torch.equal(layer.eval()(x, 6), x)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_masks_are_evenly_spread_and_independent(share):
    layer, x = PictureDropout(share), torch.ones(64, 16, 16, 16)
    layer.keys = picture_keys(0, range(64))
    gone = (layer(x, 64) == 0).double()
    deviation = (share * (1 - share)) ** 0.5
    assert abs(gone.mean() - share) < 5 * deviation / gone.numel() ** 0.5
    rows = (gone.flatten(1) - share) / deviation
    # Pictures, neighbours and distant places: correlations as small as chance makes those of 4096 draws.
    assert (rows @ rows.T / rows.shape[1]).fill_diagonal_(0).abs().max() < 5.5 / rows.shape[1] ** 0.5
    for step in (1, 16, 256):
        assert abs((rows[:, step:] * rows[:, :-step]).mean()) < 5 / rows[:, step:].numel() ** 0.5


def test_layers_and_blocks_draw_different_masks():
    levels = [{"resolution": 8, "channels": (32,), "resnets": (2,), "middle": True, "dropout": 0.5}]
    found = dropout.layers(build(ModelConfig(levels=levels)))
    assert len(found) > 2 and len({layer.salt for layer in found}) == len(found)
    keys, x = picture_keys(0, [0]), torch.ones(1, 32, 8, 8)
    masks = []
    for layer in found:
        layer.keys = keys
        masks.append(layer(x, 1))
    assert all(not torch.equal(masks[0], other) for other in masks[1:])
