"""`mdm calibrate`: how fast this machine trains and draws with the networks of a study, for `mdm plan`."""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from mdm.config import SampleConfig, StudyError
from mdm.config.sizes import shape
from mdm.config.units import size
from mdm.diffusion import noise
from mdm.diffusion.loss import pyramid
from mdm.diffusion.sampler import sample
from mdm.diffusion.schedule import levels
from mdm.files.atomic import write_json
from mdm.model.execution import Execution
from mdm.model.networks import build
from mdm.model.upsampler import seeing
from mdm.study.cost.memory import fresh_state
from mdm.study.cost.speeds import VERSION, Work, drawing, passes, training
from mdm.study.cost.timing import Timing, load, product_operations, product_seconds, timing
from mdm.study.study import Study
from mdm.train.example import Example
from mdm.train.low import blank_low
from mdm.train.step import training_step


def calibrate(study: Study, out: Path, seconds: float) -> dict[str, Any]:
    """Measure every kind of step that the study repeats, and write what `mdm plan` reads after each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = [w for w in distinct(study) if device.type == "cuda" or not w.on_gpu]
    if not wanted:
        raise StudyError(
            f"study '{study.name}' trains on GPUs, and this machine shows none; run mdm calibrate on one of the nodes "
            "that will train (SLURM: srun --gres=gpu:1 python -m mdm calibrate ...)"
        )
    found: dict[str, Any] = {
        "version": VERSION, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": machine(device),
        "busy": load(), "shapes": {},
    }  # fmt: skip
    timings: dict[str, Timing] = {}
    for work in wanted:
        facts, timed = measured(work, study, seconds, device)
        found["shapes"][work.key] = facts
        timings |= {work.key: timed} if timed else {}
        compare(found, timings, device)
        write_json(out, found)
        print(sentence(facts), flush=True)
    print("\n".join([*warnings(found), str(out)]))
    return found


def compare(found: dict[str, Any], timings: dict[str, Timing], device: torch.device) -> None:
    """Note whether each measurement so far was disturbed: a later product may show that an earlier one was slow."""
    operations, shapes = product_operations(device), found["shapes"]
    same_product = itemgetter("precision", "threads")
    for key, timed in timings.items():
        facts = shapes[key]
        fastest = min(other.product for k, other in timings.items() if same_product(shapes[k]) == same_product(facts))
        share = facts["flops_per_second"] * fastest / operations
        facts |= {"disturbed": timed.disturbances(fastest), "matmul_share": share if share <= 1 else None}


def distinct(study: Study) -> list[Work]:
    """Return one work for each speed that the study depends on, light ones first."""
    works = [training(study, ref) for ref in study.of_kind("train")]
    works += [drawing(study, ref) for ref in study.of_kind("samples") if passes(study, ref)]
    return sorted({work.key: work for work in works}.values(), key=lambda work: work.gigaflops)


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the numbers hold for. Host names are left out on purpose."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} processor"
    return {
        "kind": device.type, "device": name, "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__, "cuda": torch.version.cuda,
    }  # fmt: skip


def measured(work: Work, study: Study, seconds: float, device: torch.device) -> tuple[dict[str, Any], Timing | None]:
    """Seconds per picture of one kind of step and how steady they are; without them if it does not fit into memory."""
    facts = {
        "kind": work.kind, "ref": work.ref, "precision": work.precision, "batch_images": work.batch_images,
        "gigaflops_per_image": work.gigaflops, "threads": study.resources(work.ref).cpus,
    }  # fmt: skip
    torch.set_num_threads(facts["threads"])  # as its job will: more than that wait for one another on a busy machine
    memory = PeakMemory(device)
    try:
        step = (_training if work.kind == "train" else _drawing)(work, study, device)
        product = partial(product_seconds, work.precision, device)
        timed = timing(step, lambda: memory.without(product), seconds)
    except torch.cuda.OutOfMemoryError:
        return {**facts, "out_of_memory": True}, None
    each = timed.steps.median / work.batch_images
    return {
        **facts, "seconds_per_image": each, "images_per_second": 1 / each, "steps": timed.count,
        "spread": timed.spread, "flops_per_second": work.gigaflops * 1e9 / each,
        "matmul_flops_per_second": product_operations(device) / timed.product, "peak_bytes": memory.peak(),
    }, timed  # fmt: skip


class PeakMemory:
    """The most memory that a GPU held for a work, apart from what was measured in between."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._most = device.type == "cuda", 0
        if self._on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Return bytes; None on a processor."""
        return max(self._most, torch.cuda.max_memory_allocated()) if self._on_gpu else None

    def without(self, other: Callable[[], float]) -> float:
        """Return another measurement, whose memory is left out of the peak."""
        self._most = self.peak() or 0
        found = other()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()
        return found


def _training(work: Work, study: Study, device: torch.device) -> Callable[[], None]:
    """Return the trainer's own step, on a batch that is there already."""
    config = study.recipe(work.ref).train
    with device:
        network = build(work.model).to(memory_format=torch.channels_last).train()
    Execution(tuple(work.settings["recompute"]), work.settings["compile"]).apply(network, device)
    state, parts = fresh_state(network, config, work.settings["inherited_levels"]), work.settings.get("accumulate", 1)
    gammas, example = levels(work.diffusion, work.model.resolutions).to(device), _example(work, device)

    def step() -> None:
        training_step(state, config, work.diffusion, gammas, example, accumulate=parts)

    return step


def _example(work: Work, device: torch.device) -> Example:
    """Make pictures of noise with captions of full length."""
    sizes, count = work.model.resolutions, work.batch_images
    images = pyramid(torch.randn(count, *shape(sizes[0])), sizes)
    times = noise.training_times(work.diffusion, 0, range(count))
    labels = torch.zeros(count, dtype=torch.long) if work.model.classes else None
    noises, low = [torch.randn_like(x) for x in images], blank_low(work.model, count)
    return Example(images, noises, times, *_text(work, count), labels, low=low).to(device)


def _text(work: Work, count: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if not work.model.text_channels:
        return None, None
    return torch.randn(count, work.tokens, work.model.text_channels), torch.ones(count, work.tokens)


def _drawing(work: Work, study: Study, device: torch.device) -> Callable[[], None]:
    """Return one call of the network for a batch of pictures (half of it when guidance doubles the batch)."""
    with device:
        network = build(work.model).eval().to(memory_format=torch.channels_last)
    count = max(1, work.batch_images // (2 if work.settings["guided"] else 1))
    settings = SampleConfig(sampler="ddim", steps=1, guidance=2.0 if work.settings["guided"] else 1.0,
                            precision=work.precision)  # fmt: skip
    gammas = levels(work.diffusion, work.model.resolutions).to(device)
    text = [None if part is None else part.to(device) for part in _text(work, count)]
    labels = torch.zeros(count, dtype=torch.long, device=device) if work.model.classes else None
    sizes, low = work.model.resolutions, blank_low(work.model, count, device)

    def step() -> None:
        sample(
            seeing(network, low), gammas, settings, work.diffusion, sizes, *text, *text, range(count), 0, labels=labels,
            negative_labels=labels,
        )  # fmt: skip

    return step


def sentence(facts: dict[str, Any]) -> str:
    """Describe one measurement in a line."""
    start = f"{facts['kind']:<5} {facts['ref']:<44} batch {facts['batch_images']:<4}"
    if "seconds_per_image" not in facts:
        return f"{start} does not fit into memory; raise accumulate or gpus, or write recompute, in its resources"
    memory = "" if facts["peak_bytes"] is None else f"  peak {size(facts['peak_bytes'])}"
    share = "" if facts["matmul_share"] is None else f"  {facts['matmul_share']:5.1%} of a matrix product's"
    doubt = f"  UNSTEADY: {'; '.join(facts['disturbed'])}" if facts["disturbed"] else ""
    return (
        f"{start} {facts['images_per_second']:10.2f} images/s {facts['flops_per_second'] / 1e12:8.3f} TFLOP/s"
        f"{share}  steps: {facts['steps']}, spread {facts['spread']:.0%}{memory}{doubt}"
    )


def warnings(found: dict[str, Any]) -> list[str]:
    """Say what makes the speeds of a calibration doubtful."""
    doubtful = [facts["ref"] for facts in found["shapes"].values() if facts.get("disturbed")]
    reasons = [found["busy"]] if found["busy"] else []
    if doubtful:
        reasons.append(f"{len(doubtful)} of {len(found['shapes'])} works were disturbed ({', '.join(doubtful)})")
    if not reasons:
        return []
    return [f"The machine is busy: {'; '.join(reasons)}. Calibrate again when it is idle; the plan marks these speeds."]
