"""What training costs beside the model's own step, as ratios within one run.

    PYTHONPATH=. python benchmarks/train.py [--stage r64] [--steps 60] [--rounds 3]
    PYTHONPATH=. python benchmarks/train.py --muon-only

A stage of the laptop study (its data and captions are made first, in a folder that is removed in the end) is trained
by the real loop. Around the network's step (forward, backward, clipping, optimiser, average) time is counted; what is
left of the loop's time is its overhead: batches, progress, guards, decisions, and the held-out loss if one is due.
Waiting for data is a part of it. The stall of a save, in which the loop cannot go on, is measured on a state of one
gigabyte. Of the optimisers, our Muon is held against torch's: seconds of a step, and how far their updates differ.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple


def prepared(root: Path, study: str, stage: str) -> Path:
    """Data, captions and the recipe of one stage, trained from fresh weights."""
    from mdm.data.shards.shard import index_data, write_manifest, write_shard
    from mdm.data.text.cache import embed
    from mdm.files.artifact import digest
    from mdm.files.atomic import write_json
    from mdm.study import study as studies

    loaded = studies.load(study)
    found = next(s.artifact for run in loaded.runs for s in run.stages if s.name == stage)
    recipe = {**loaded.recipe(found), "parent": None}
    for ref in filter(None, (recipe["data"], recipe["validation"])):
        path = root / ref / "recipe.json"
        made = loaded.recipe(ref)
        write_json(path, made)
        index_data(path)
        for number in range(-(-made["settings"]["num_images"] // made["shard_images"])):
            write_shard(path, number)
        write_manifest(path)
    for ref in filter(None, (recipe["text"], recipe["validation_text"])):
        write_json(root / ref / "recipe.json", loaded.recipe(ref))
        embed(root / ref / "recipe.json")
    path = root / "train" / f"{stage}-{digest(recipe)}" / "recipe.json"
    write_json(path, recipe)
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


class Watched:
    """Clocks around the loop's own parts; the first steps, which allocate, are left out."""

    def __init__(self, warmup: int) -> None:
        self.steps: list[float] = []
        self.waits: list[float] = []
        self.rounds: list[float] = []  # when each round of the loop began
        self._warmup = warmup

    def around(self, loop: Any, parts: Any) -> None:
        """Put the clocks into the modules of the loop and of what it works with."""
        step, pace, watched = loop.training_step, parts.Bottlenecks, self

        def timed(*arguments: Any) -> Any:
            before = time.perf_counter()
            result = step(*arguments)
            float(result[2])  # the step ends when its numbers are there
            watched.steps.append(time.perf_counter() - before)
            return result

        class Waiting(pace):
            @contextmanager
            def waiting(self) -> Iterator[None]:
                before = time.perf_counter()
                watched.rounds.append(before)
                with super().waiting():
                    yield
                watched.waits.append(time.perf_counter() - before)

        loop.training_step, parts.Bottlenecks = timed, Waiting

    def shares(self) -> tuple[float, float]:
        """Overhead and loader wait as shares of the time in the model's own step."""
        own = sum(self.steps[self._warmup : -1])
        return (self.rounds[-1] - self.rounds[self._warmup]) / own - 1, sum(self.waits[self._warmup : -1]) / own


def loop_shares(recipe: Path, steps: int, warmup: int) -> tuple[float, float]:
    """Train the first steps of the stage once, in this process."""
    from mdm.train import loop
    from mdm.train import slice as parts

    before, watched = (loop.training_step, parts.Bottlenecks), Watched(warmup)
    watched.around(loop, parts)
    out = recipe.parent / f"slice-{steps * read_json(recipe)['train']['batch_images']}.ckpt"
    try:
        with redirect_stdout(sys.stderr):
            loop.train(recipe, out, None, 1e9)
    finally:
        loop.training_step, parts.Bottlenecks = before
    out.unlink()
    shutil.rmtree(recipe.parent / "progress")  # with the save of a finished slice, or the next round had nothing to do
    return watched.shares()


class Save(NamedTuple):
    """What a save costs for each gigabyte: three times seconds, and pages that the loop had to wait for."""

    stalled: float  # the loop cannot go on
    worked: float  # of which its processor works
    written: float  # until it is on disk
    faults: float


def saves_of(root: Path, gigabytes: float, rounds: int, ready: bool) -> tuple[float, list[Save]]:
    """Seconds of the processor beside training that the memory takes where it is made ready, and the saves."""
    import torch

    from mdm.cli import keep_freed_memory
    from mdm.train.checkpoint import Autosaves

    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    count = 64
    numbers = int(gigabytes * 1e9 / 4 / count)
    tensors = {f"x{number}": torch.randn(numbers, device=device) for number in range(count)}
    saves, found, before = Autosaves(root / f"saves-{ready}", 0), [], time.process_time()
    if ready:
        saves.make_room(tensors)
        saves.settle()
    room = (time.process_time() - before) / gigabytes
    for number in range(rounds):
        before, worked, faults = time.perf_counter(), time.thread_time(), page_faults()
        saves.save(number, tensors, {})
        stalled, worked = time.perf_counter() - before, time.thread_time() - worked
        faults = page_faults() - faults
        saves.settle()
        found.append(Save(*(x / gigabytes for x in (stalled, worked, time.perf_counter() - before, faults))))
    return room, found


def page_faults() -> int:
    """How often this thread has waited for the kernel to hand out a page."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own, whose memory nobody has used."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def tell_saves(root: Path, gigabytes: float, rounds: int) -> None:
    """Saves of a state: the first one of a process with and without memory made ready, and those that follow."""
    room, (first, *later) = fresh(saves_of, root, gigabytes, rounds + 1, True)
    others = [fresh(saves_of, root, gigabytes, 1, ready) for _ in range(rounds) for ready in (True, False)]
    rooms, ready = [room, *(room for room, _ in others[::2])], [first, *(save for _, (save,) in others[::2])]
    unready = [save for _, (save,) in others[1::2]]
    for title, saves in (
        ("the first save of a process", ready),
        ("later ones", later),
        ("the first one without room made ready", unready),
    ):
        stalled, worked, written, faults = zip(*saves, strict=True)
        print(f"{title}: holds the loop up for {spread(stalled, '.2f')} s/GB,")
        print(f"    of which its processor works {spread(worked, '.2f')}; on disk after {spread(written, '.2f')} s/GB;")
        print(f"    pages waited for: {spread(faults, ',.0f')} for each GB")
    print(f"making room ready: {spread(rooms, '.2f')} s/GB of the processor, beside the training")


def spread(values: Sequence[float], form: str) -> str:
    """The median, and the smallest and largest."""
    return f"{format(statistics.median(values), form)} ({format(min(values), form)} to {format(max(values), form)})"


def tell_loop(root: Path, chosen: argparse.Namespace) -> None:
    """What the loop takes beside the model's own step."""
    recipe = prepared(root, chosen.study, chosen.stage)
    found = [loop_shares(recipe, chosen.steps, warmup=5) for _ in range(chosen.rounds)]
    batch = read_json(recipe)["train"]["batch_images"]
    print(f"{chosen.study} {chosen.stage}, batch {batch}, {chosen.steps} steps, {chosen.rounds} rounds")
    print(f"loop beside the model's own step: {spread([share for share, _ in found], '.2%')}")
    print(f"of which waiting for data:        {spread([wait for _, wait in found], '.2%')}")


def hidden_shapes(study: str, stage: str) -> dict[str, list[tuple[int, ...]]]:
    """Shapes that Muon moves: of one stage, and four wide ones of the published 64 px network."""
    import torch

    from mdm.config import ModelConfig
    from mdm.model.nested import build
    from mdm.model.presets import PRESETS
    from mdm.study import study as studies
    from mdm.train.optim import is_hidden_matrix

    loaded = studies.load(study)
    recipe = next(loaded.recipe(s.artifact) for run in loaded.runs for s in run.stages if s.name == stage)
    with torch.device("meta"):
        found = [
            [tuple(weight.shape) for name, weight in build(config).named_parameters() if is_hidden_matrix(name, weight)]
            for config in (ModelConfig(**recipe["model"]), PRESETS["released-64"]())
        ]
    return {f"{study} {stage}": found[0], "wide": [shape for shape in found[1] if min(shape[:2]) >= 1024][:4]}


def muons(shapes: list[tuple[int, ...]]) -> tuple[list[Any], list[Any]]:
    """Both optimisers and their weights, which are the same; torch's takes matrices only."""
    import torch

    from mdm.model.muon import MOMENTUM, STEPS, Muon

    generator = torch.Generator().manual_seed(0)
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    theirs = [weight.detach().flatten(1).clone().requires_grad_() for weight in ours]
    for weight, matrix in zip(ours, theirs, strict=True):
        weight.grad = torch.randn(weight.shape, generator=generator)
        matrix.grad = weight.grad.flatten(1).clone()
    settings = {"lr": 0.01, "weight_decay": 0.0}
    torchs = torch.optim.Muon(theirs, **settings, momentum=MOMENTUM, ns_steps=STEPS)
    return [Muon(ours, **settings), torchs], [ours, theirs]


def muon_rounds(shapes: list[tuple[int, ...]], rounds: int) -> tuple[float, list[tuple[float, float]]]:
    """Relative difference of the first updates, and the seconds of both steps in each round."""
    import torch

    optimizers, weights = muons(shapes)
    before = [weight.detach().clone() for weight in weights[0]]
    times = []
    for number in range(rounds + 1):  # the first one warms up
        seconds = [0.0, 0.0]
        for place in (0, 1) if number % 2 else (1, 0):
            started = time.perf_counter()
            optimizers[place].step()
            seconds[place] = time.perf_counter() - started
        if number == 0:
            moved = [torch.cat([(w.detach().reshape(b.shape) - b).flatten() for w, b in zip(side, before, strict=True)])
                     for side in weights]  # fmt: skip
        times.append((seconds[0], seconds[1]))
    return float((moved[0] - moved[1]).norm() / moved[0].norm()), times[1:]


def tell_muon(chosen: argparse.Namespace) -> None:
    """Our Muon beside torch's, on small shapes and on wide ones."""
    import torch

    torch.set_num_threads(int(chosen.threads))
    for name, shapes in hidden_shapes(chosen.study, chosen.stage).items():
        difference, times = muon_rounds(shapes, 5 * chosen.rounds)
        ours, theirs = ([1000 * pair[side] for pair in times] for side in (0, 1))
        print(f"Muon, {len(shapes)} weights ({name}), {chosen.threads} thread: ours {spread(ours, '.1f')} ms a step,")
        print(f"    torch's {spread(theirs, '.1f')} ms; ratio {spread([t / o for o, t in times], '.2f')};", end=" ")
        print(f"updates differ by {difference:.1%}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--study", default="laptop")
    options.add_argument("--stage", default="r64")
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--gigabytes", type=float, default=1.0)
    options.add_argument("--threads", default="1")
    options.add_argument("--saves-only", action="store_true", help="leave the loop out")
    options.add_argument("--muon-only", action="store_true", help="hold our Muon against torch's, and nothing else")
    chosen = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = chosen.threads
    if chosen.muon_only:
        return tell_muon(chosen)
    with tempfile.TemporaryDirectory() as place:
        if not chosen.saves_only:
            tell_loop(Path(place), chosen)
        tell_saves(Path(place), chosen.gigabytes, chosen.rounds)


if __name__ == "__main__":
    main()
