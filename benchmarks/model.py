"""Seconds of a training step and of a denoising step, side by side with any other program.

    python benchmarks/model.py                                            ours alone
    python benchmarks/model.py --against "python /somewhere/driver.py"    and the same elsewhere, in alternating rounds

Machines are noisy, so only ratios within a round are compared: every round times one program and then the other, the
order changing from round to round, and the result is the median of the rounds' ratios with their smallest and largest.

The protocol. COMMAND is started without arguments, reads one JSON object per line from its standard input and answers
each with one line on its standard output (what it prints elsewhere is shown):

    {"ask": "prepare", "case": CASE}   build network, optimiser and inputs, and take one step to warm up
                                    -> {"parameters": 461359107}
    {"ask": "time", "repeat": 2}       take that many steps, wait until the device is done after each
                                    -> {"seconds": [4.1, 4.0], "cpu_seconds": [4.0, 4.0], "peak_bytes": 9123456789}
    end of input                       end

cpu_seconds (processor time of the process) and peak_bytes may be left out.
CASE = {"name", "step": "train" | "denoise", "batch", "tokens", "precision": "float32" | "bf16", "device": "cpu" |
"cuda", "threads", "model": MODEL} where MODEL is the `ModelConfig` of mdm/config as JSON, innermost level first.
A training step draws noise and times, computes loss and gradients in training mode, clips these to norm 2, moves the
weights by Adam and their average. A denoising step is one DDIM step with guidance 7.5 and thresholds: a network call on
twice the batch, without gradients. Text features are [batch, tokens, text_channels] with a mask of ones.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Step = Callable[[], None]
SERVE = [sys.executable, os.path.abspath(__file__), "--serve"]


def cases(names: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every named network, training and denoising."""
    from mdm.config import ModelConfig
    from mdm.model.presets import PRESETS

    inner = {"resolution": 16, "channels": (64, 128), "resnets": (2, 2), "attention": (0, 1), "middle": True}
    outer = {"resolution": 32, "channels": (64, 128), "resnets": (2, 1), "attention_ffn": False}
    small = ModelConfig(levels=(inner, outer), text_channels=64, text_projection=64, mask_text=False)
    for name in names:
        model = small if name == "nested-small" else PRESETS[name]()
        batch = options.batch or (8 if name == "nested-small" else 1)
        for step in options.steps:
            yield {
                "name": name, "step": step, "batch": batch, "tokens": options.tokens, "precision": options.precision,
                "device": options.device, "threads": options.threads, "model": model.model_dump(mode="json"),
            }  # fmt: skip


class Program:
    """One side of the comparison: a process that speaks the protocol."""

    def __init__(self, command: list[str], case: dict[str, Any]) -> None:
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            raise SystemExit(f"{shlex.join(command)} cannot be started: {error.strerror}") from None
        self.parameters = self._ask({"ask": "prepare", "case": case})["parameters"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it has ended: then there is no answer to read either
            print(json.dumps(question), file=self._child.stdin, flush=True)
        answer = self._child.stdout.readline()
        if not answer:
            raise SystemExit(f"{shlex.join(self._child.args)} ended without an answer to {question['ask']!r}")
        try:
            return json.loads(answer)
        except json.JSONDecodeError:
            said = answer.strip()[:100]
            raise SystemExit(f"{shlex.join(self._child.args)} answered {said!r}, which is not JSON") from None

    def time(self, repeat: int) -> dict[str, Any]:
        return self._ask({"ask": "time", "repeat": repeat})

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait()


def measure(case: dict[str, Any], programs: dict[str, list[str]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One dictionary of answers per round; with --alone only one program is in memory at any time."""
    running = {} if options.alone else {name: Program(command, case) for name, command in programs.items()}
    rounds = []
    for number in range(options.rounds):
        answers = {}
        for name in list(programs) if number % 2 == 0 else list(reversed(programs)):
            program = running.get(name) or Program(programs[name], case)
            answers[name] = {**program.time(options.repeat), "parameters": program.parameters}
            if options.alone:
                program.close()
        rounds.append(answers)
    for program in running.values():
        program.close()
    return rounds


def report(case: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    """One line: our seconds, images per second and memory, and the ratio to the other program."""
    ours = statistics.median(statistics.median(answers["ours"]["seconds"]) for answers in rounds)
    last = rounds[-1]["ours"]
    line = f"{case['name']:<14} {case['step']:<8} batch {case['batch']:<3} {ours:9.3f} s"
    line += f" {case['batch'] / ours:9.2f} images/s"
    line += f"  peak {last['peak_bytes'] / 2**30:6.2f} GiB"
    if "flops_per_second" in last:
        line += f"  {statistics.median(r['ours']['flops_per_second'] for r in rounds) / last['matmul_peak']:5.1%} MFU"
    if "theirs" in rounds[0]:
        counts = [answers["parameters"] for answers in rounds[-1].values()]
        if len(set(counts)) > 1:
            raise SystemExit(f"{case['name']}: not the same network, the parameters are {counts}")
        theirs = statistics.median(statistics.median(answers["theirs"]["seconds"]) for answers in rounds)
        line += f"  theirs {theirs:9.3f} s"
        if "peak_bytes" in rounds[-1]["theirs"]:
            line += f" {rounds[-1]['theirs']['peak_bytes'] / 2**30:6.2f} GiB"
        line += f"  ratio {ratio(rounds, 'seconds')}"
        if all("cpu_seconds" in answers["theirs"] for answers in rounds):
            line += f", of processor time {ratio(rounds, 'cpu_seconds')}"
    return line


def ratio(rounds: list[dict[str, Any]], key: str) -> str:
    """Ours to theirs within a round: the median of the rounds, and the smallest and largest."""
    found = [statistics.median(r["ours"][key]) / statistics.median(r["theirs"][key]) for r in rounds]
    return f"{statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


# --- our side of the protocol ------------------------------------------------------------------------------


def serve(options: argparse.Namespace) -> None:
    """Answer questions on standard input."""
    step, case, facts = None, {}, {}
    for line in sys.stdin:
        question = json.loads(line)
        if question["ask"] == "prepare":
            case = question["case"]
            os.environ["OMP_NUM_THREADS"] = str(case["threads"])
            step, answer, facts = prepared(case, options)
        else:
            answer = timed(step, question["repeat"], case["device"], facts)
        print(json.dumps(answer), flush=True)


def prepared(case: dict[str, Any], options: argparse.Namespace) -> tuple[Step, dict[str, Any], dict[str, float]]:
    """The step to time, the answer to `prepare`, and what MFU needs on a GPU."""
    import torch

    from mdm.cli import keep_freed_memory
    from mdm.config import ModelConfig
    from mdm.model import execution
    from mdm.model.nested import build

    keep_freed_memory()
    torch.set_num_threads(case["threads"])
    config, device = ModelConfig(**case["model"]), torch.device(case["device"])
    with device:
        network = build(config).to(memory_format=torch.channels_last)
    make = training if case["step"] == "train" else denoising
    facts = {}
    if case["device"] == "cuda":
        flops = operations(make, case, config, network, device)
        facts = {"flops": flops, "matmul_peak": matmul_peak(case["precision"])}
        torch.cuda.reset_peak_memory_stats()
    execution.recompute(network, options.recompute)
    step = make(case, config, network, device)
    execution.compile_network(network, options.compile, device)
    step()
    return step, {"parameters": sum(p.numel() for p in network.parameters())}, facts


def operations(make: Callable[..., Step], case: dict[str, Any], config: Any, network: Any, device: Any) -> int:
    """Floating-point operations of a step: of one picture, with nothing computed twice, times the batch."""
    from torch.utils.flop_counter import FlopCounterMode

    from mdm.model import execution

    execution.recompute(network, ())
    step = make({**case, "batch": 1}, config, network, device)
    with FlopCounterMode(display=False) as counter:
        step()
    return case["batch"] * counter.get_total_flops()


def training(case: dict[str, Any], config: Any, network: Any, device: Any) -> Step:
    """The trainer's own step, on noises and times drawn as the trainer draws them."""
    import torch

    from mdm.config import DiffusionConfig, TrainConfig
    from mdm.diffusion import noise
    from mdm.diffusion.loss import pyramid
    from mdm.diffusion.schedule import levels
    from mdm.model.ema import Ema
    from mdm.train.example import Example
    from mdm.train.optim import make_optimizers
    from mdm.train.state import TrainingState
    from mdm.train.step import training_step

    batch, resolutions, diffusion = case["batch"], config.resolutions, DiffusionConfig()
    train = TrainConfig(batch_images=batch, learning_rate=5e-5, ema_halflife_images=1e6, precision=case["precision"])
    state = TrainingState(network.train(), Ema(network, 1e6), make_optimizers(network, train, set()))
    gammas, images = levels(diffusion, resolutions).to(device), torch.randn(batch, 3, resolutions[0], resolutions[0])
    text, mask = torch.randn(batch, case["tokens"], config.text_channels), torch.ones(batch, case["tokens"])

    def step() -> None:
        pictures = range(state.images, state.images + batch)
        noises = noise.training_noises(diffusion, 0, pictures, resolutions)
        times = noise.training_times(diffusion, 0, pictures)
        example = Example(pyramid(images, resolutions), noises, times, text, mask, None).to(device)
        training_step(state, train, diffusion, gammas, example)

    return step


def denoising(case: dict[str, Any], config: Any, network: Any, device: Any) -> Step:
    """One step of the sampler itself."""
    import torch

    from mdm.config import DiffusionConfig, SampleConfig
    from mdm.diffusion.sampler import sample
    from mdm.diffusion.schedule import levels

    batch, diffusion = case["batch"], DiffusionConfig()
    settings = SampleConfig(sampler="ddim", steps=1, guidance=7.5, precision=case["precision"])
    text, negative = (torch.randn(batch, case["tokens"], config.text_channels, device=device) for _ in range(2))
    mask = torch.ones(batch, case["tokens"], device=device)
    gammas = levels(diffusion, config.resolutions).to(device)
    network.eval()

    def step() -> None:
        sample(network, gammas, settings, diffusion, config.resolutions, text, mask, negative, mask, range(batch), 0)

    return step


def timed(step: Step, repeat: int, device: str, facts: dict[str, float]) -> dict[str, Any]:
    """Seconds of each step, and the most memory that was in use."""
    import resource
    import time

    import torch

    seconds, cpu_seconds = [], []
    for _ in range(repeat):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    if device != "cuda":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak}
    speed = {"flops_per_second": facts["flops"] / statistics.median(seconds), "matmul_peak": facts["matmul_peak"]}
    return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated(), **speed}


def matmul_peak(precision: str) -> float:
    """Operations per second of the best of several large matrix products."""
    import time

    import torch

    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * len(a) ** 3 / best


def positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above zero")
    return int(word)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ["nested-small", "released-64", "released-256", "released-1024"]
    text = f"{', '.join(known)}; default: the first three"
    parser.add_argument("cases", nargs="*", metavar="CASE", help=text)
    parser.add_argument("--against", metavar="COMMAND", help="a program that speaks the protocol")
    parser.add_argument("--steps", nargs="+", choices=("train", "denoise"), default=("train", "denoise"))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--repeat", type=positive, default=1, help="steps of each program in a round")
    parser.add_argument("--alone", action="store_true", help="restart a program for its turn: half the memory")
    parser.add_argument("--batch", type=positive, help="default: 8 for nested-small, else 1")
    parser.add_argument("--tokens", type=positive, default=32)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--recompute", type=int, nargs="+", default=(), metavar="RESOLUTION", help="ours only")
    parser.add_argument("--compile", choices=("none", "blocks", "network"), default="none", help="ours only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append case and rounds to it, a line each")
    parser.add_argument("--serve", action="store_true", help="be our side of the protocol")
    options = parser.parse_args()
    options.cases = options.cases or known[:3]
    if unknown := [name for name in options.cases if name not in known]:
        parser.error(f"no case is called {unknown[0]}; write {', '.join(known)}")
    return options


def main() -> None:
    options = arguments()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if options.serve:
        return serve(options)
    ours = [*SERVE, "--compile", options.compile]
    ours += ["--recompute", *map(str, options.recompute)] if options.recompute else []
    programs = {"ours": ours} | ({"theirs": shlex.split(options.against)} if options.against else {})
    for case in cases(options.cases, options):
        rounds = measure(case, programs, options)
        if options.json:
            with options.json.open("a") as file:
                print(json.dumps({"case": case, "compile": options.compile, "rounds": rounds}), file=file)
        print(report(case, rounds), flush=True)


if __name__ == "__main__":
    main()
