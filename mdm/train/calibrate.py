"""`mdm calibrate`: how fast this machine trains and draws with the networks of a study, for `mdm plan`."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mdm.config import SampleConfig, StudyError, TrainConfig
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid
from mdm.diffusion.sampler import sample
from mdm.diffusion.schedule import levels
from mdm.manifest import write_json
from mdm.model import build
from mdm.model.checkpoints import INNER
from mdm.model.execution import Execution
from mdm.sizes import shape
from mdm.study import Study
from mdm.throughput import VERSION, Work, drawing, training
from mdm.train.example import Example
from mdm.train.optim import make_optimizers
from mdm.train.state import TrainingState, average_of
from mdm.train.step import training_step
from mdm.units import size

FEWEST = 3  # steps that are timed, however long they take
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}


def calibrate(study: Study, out: Path, seconds: float) -> dict[str, Any]:
    """Measure every kind of step that the study repeats, and write what `mdm plan` reads after each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = [w for w in distinct(study) if device.type == "cuda" or not w.on_gpu]
    if not wanted:
        raise StudyError(
            f"study '{study.name}' trains on GPUs, and this machine shows none; run mdm calibrate on one of the nodes "
            "that will train (SLURM: srun --gres=gpu:1 python -m mdm calibrate ...)"
        )
    precisions = sorted({work.precision for work in wanted})
    found: dict[str, Any] = {
        "version": VERSION, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(device),
        "matmul_flops_per_second": {p: matmul_speed(p, device) for p in precisions}, "shapes": {},
    }  # fmt: skip
    for work in wanted:
        found["shapes"][work.key] = facts = measured(work, study, seconds, device)
        write_json(out, found)
        print(sentence(facts, found["matmul_flops_per_second"][work.precision]), flush=True)
    print(out)
    return found


def distinct(study: Study) -> list[Work]:
    """One work for each speed that the study depends on, light ones first."""
    works = [training(study, ref) for ref in study.of_kind("train")]
    works += [drawing(study, ref) for ref in study.of_kind("samples")]
    return sorted({work.key: work for work in works}.values(), key=lambda work: work.gigaflops)


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers hold for. Host names are left out on purpose."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} processor"
    return {
        "kind": device.type, "device": name, "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip


def measured(work: Work, study: Study, seconds: float, device: torch.device) -> dict[str, Any]:
    """Seconds per picture of one kind of step; without them if it does not fit into memory."""
    facts = {
        "kind": work.kind, "ref": work.ref, "precision": work.precision, "batch_images": work.batch_images,
        "gigaflops_per_image": work.gigaflops,
    }  # fmt: skip
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = (_training if work.kind == "train" else _drawing)(work, study, device)
        each = median_seconds(step, seconds, device) / work.batch_images
    except torch.cuda.OutOfMemoryError:
        return {**facts, "out_of_memory": True}
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    speed = {"images_per_second": 1 / each, "flops_per_second": work.gigaflops * 1e9 / each}
    return {**facts, "seconds_per_image": each, **speed, "peak_bytes": peak}


def median_seconds(step: Callable[[], None], seconds: float, device: torch.device) -> float:
    """Of repeated steps, after one that warms up (and compiles)."""
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    step(), wait()
    times: list[float] = []
    while len(times) < FEWEST or sum(times) < seconds:
        start = time.perf_counter()
        step(), wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _nothing() -> None:
    """A processor has done its work when a call returns."""


def _training(work: Work, study: Study, device: torch.device) -> Callable[[], None]:
    """The trainer's own step on a batch that is there already."""
    config = TrainConfig(**study.recipe(work.ref)["train"])
    with device:
        network = build(work.model).to(memory_format=torch.channels_last).train()
    Execution(tuple(work.settings["recompute"]), work.settings["compile"]).apply(network, device)
    inherited, parts = work.settings["inherited_levels"], work.settings.get("accumulate", 1)
    prefix = INNER * (len(work.model.levels) - inherited)
    names = {name for name, _ in network.named_parameters() if inherited and name.startswith(prefix)}
    state = TrainingState(network, average_of(network, config), make_optimizers(network, config, names))
    gammas, example = levels(work.diffusion, work.model.resolutions).to(device), _example(work, device)

    def step() -> None:
        training_step(state, config, work.diffusion, gammas, example, accumulate=parts)

    return step


def _example(work: Work, device: torch.device) -> Example:
    """Pictures of noise with captions of full length."""
    sizes, count = work.model.resolutions, range(work.batch_images)
    images = pyramid(torch.randn(len(count), *shape(sizes[0])), sizes)
    times = noise.training_times(work.diffusion, 0, count)
    text = _text(work, len(count))
    labels = torch.zeros(len(count), dtype=torch.long) if work.model.classes else None
    return Example(images, [torch.randn_like(x) for x in images], times, *text, labels).to(device)


def _text(work: Work, count: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if not work.model.text_channels:
        return None, None
    return torch.randn(count, work.tokens, work.model.text_channels), torch.ones(count, work.tokens)


def _drawing(work: Work, study: Study, device: torch.device) -> Callable[[], None]:
    """One call of the network for a batch of pictures (half of it when guidance doubles the batch)."""
    with device:
        network = build(work.model).eval().to(memory_format=torch.channels_last)
    count = max(1, work.batch_images // (2 if work.settings["guided"] else 1))
    settings = SampleConfig(sampler="ddim", steps=1, guidance=2.0 if work.settings["guided"] else 1.0,
                            precision=work.precision)  # fmt: skip
    gammas = levels(work.diffusion, work.model.resolutions).to(device)
    text = [None if part is None else part.to(device) for part in _text(work, count)]
    labels = torch.zeros(count, dtype=torch.long, device=device) if work.model.classes else None
    sizes = work.model.resolutions

    def step() -> None:
        sample(
            network, gammas, settings, work.diffusion, sizes, *text, *text, range(count), 0, labels=labels,
            negative_labels=labels,
        )  # fmt: skip

    return step


def matmul_speed(precision: str, device: torch.device) -> float:
    """Operations per second of the best of several large matrix products."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(MATRIX_SIDE[device.type], MATRIX_SIDE[device.type], device=device).to(kind)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * len(a) ** 3 / min(times)


def sentence(facts: dict[str, Any], peak: float) -> str:
    """One line for people."""
    start = f"{facts['kind']:<5} {facts['ref']:<44} batch {facts['batch_images']:<4}"
    if "seconds_per_image" not in facts:
        return f"{start} does not fit into memory; raise accumulate or gpus, or write recompute, in its resources"
    memory = "" if facts["peak_bytes"] is None else f"  peak {size(facts['peak_bytes'])}"
    return (
        f"{start} {facts['images_per_second']:10.2f} images/s {facts['flops_per_second'] / 1e12:8.3f} TFLOP/s"
        f"  {facts['flops_per_second'] / peak:5.1%} of a matrix product's{memory}"
    )
