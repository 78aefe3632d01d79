"""The benchmark of the network: our side of its protocol, and what it makes of two sides."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mdm.config import LevelConfig, ModelConfig
from mdm.model import execution
from mdm.model.nested import build

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "model.py"
OPTIONS = argparse.Namespace(recompute=(), compile="none", rounds=3, repeat=2, alone=False)
# Answers as the protocol says, always the same.
OTHER = """
import json, sys
for line in sys.stdin:
    question = json.loads(line)
    known = {"parameters": 5} if question["ask"] == "prepare" else {"seconds": [4.0] * question["repeat"]}
    print(json.dumps(known), flush=True)
"""


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_the_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case(step: str) -> dict:
    shared = {"channels": (32, 32), "resnets": (1, 1)}
    inner = LevelConfig(resolution=4, attention=(0, 1), middle=True, **shared)
    model = ModelConfig(levels=(inner, LevelConfig(resolution=8, **shared)), text_channels=16)
    return {
        "name": "tiny", "step": step, "batch": 2, "tokens": 3, "precision": "float32", "device": "cpu", "threads": 1,
        "model": json.loads(model.model_dump_json()),
    }  # fmt: skip


@pytest.mark.parametrize("step", ["train", "denoise"])
def test_our_side_of_the_protocol(benchmark, step) -> None:
    take, answer, facts = benchmark.prepared(case(step), OPTIONS)
    timed = benchmark.timed(take, 2, "cpu", facts)
    assert answer["parameters"] > 100_000
    assert len(timed["seconds"]) == len(timed["cpu_seconds"]) == 2
    assert min(timed["seconds"]) > 0 and timed["peak_bytes"] > 0


def test_only_ratios_within_a_round_count(benchmark) -> None:
    seconds = [(1.0, 2.0), (30.0, 40.0), (2.0, 8.0)]
    rounds = [{"ours": {"seconds": [a]}, "theirs": {"seconds": [b]}} for a, b in seconds]
    assert benchmark.ratio(rounds, "seconds") == "0.500 (0.250 to 0.750)"


@pytest.mark.parametrize("alone", [False, True])
def test_two_programs_in_alternating_rounds(benchmark, alone) -> None:
    options = argparse.Namespace(**{**vars(OPTIONS), "alone": alone})
    other = [sys.executable, "-c", OTHER]
    rounds = benchmark.measure(case("train"), {"ours": other, "theirs": other}, options)
    assert [list(answers) for answers in rounds] == [["ours", "theirs"], ["theirs", "ours"], ["ours", "theirs"]]
    assert rounds[0]["theirs"] == {"seconds": [4.0, 4.0], "parameters": 5}


def test_another_network_is_no_comparison(benchmark) -> None:
    ours = {"seconds": [1.0], "peak_bytes": 1, "parameters": 5}
    with pytest.raises(SystemExit, match=r"tiny: not the same network, the parameters are \[5, 6\]"):
        benchmark.report(case("train"), [{"ours": ours, "theirs": {**ours, "parameters": 6}}])


def test_a_program_that_dies_is_named(benchmark) -> None:
    with pytest.raises(SystemExit, match="ended without an answer to 'prepare'"):
        benchmark.Program([sys.executable, "-c", "pass"], case("train"))


@pytest.mark.parametrize(
    ("command", "words"),
    [("/no/such/program", "cannot be started: No such file"), ("echo hello", "answered 'hello', which is not JSON")],
)
def test_a_program_that_does_not_speak_the_protocol_is_named(benchmark, command, words) -> None:
    with pytest.raises(SystemExit, match=words):
        benchmark.Program(command.split(), case("train"))


@pytest.mark.parametrize("words", [["relased-64"], ["paper-video"], ["--rounds", "0"], ["--repeat", "-1"]])
def test_options_that_measure_nothing_are_refused(benchmark, monkeypatch, capsys, words) -> None:
    monkeypatch.setattr(sys, "argv", ["model.py", *words])
    with pytest.raises(SystemExit):
        benchmark.arguments()
    said = capsys.readouterr().err
    assert words[-1] in said and "Traceback" not in said


def test_what_is_computed_twice_counts_once(benchmark) -> None:
    """Or recomputation would look like speed; and every picture of a batch counts."""
    one = case("train")
    config = ModelConfig(**one["model"])
    network, device = build(config), torch.device("cpu")
    plain = benchmark.operations(benchmark.training, one, config, network, device)
    execution.recompute(network, (8, 4))
    assert benchmark.operations(benchmark.training, one, config, network, device) == plain > 0
    assert benchmark.operations(benchmark.training, {**one, "batch": 6}, config, network, device) == 3 * plain


def test_a_gpu_day_that_was_cut_off_still_tells_what_it_measured(tmp_path: Path) -> None:
    """benchmarks/gpu_day.sh: numbers of each step as soon as it ends, a line that was being written left out."""
    (tmp_path / "machine.log").write_text("2.13.0 NVIDIA H200\n")
    (tmp_path / "steps.jsonl").write_text(
        '{"step": "tests", "status": 0, "seconds": 31, "limit": 90}\n'
        '{"step": "study", "status": 124, "seconds": 180, "limit": 180}\n'
    )
    ours = {"seconds": [2.0, 4.0], "peak_bytes": 2**31, "flops_per_second": 3e14, "matmul_peak": 6e14}
    measured = {
        "case": {"name": "released-64", "step": "train", "batch": 6, "precision": "bf16", "device": "cuda"},
        "compile": "blocks",
        "rounds": [{"ours": ours, "theirs": {"seconds": [6.0]}}] * 3,
    }
    (tmp_path / "model.jsonl").write_text(json.dumps(measured) + '\n{"case": {"na')
    script = SCRIPT.with_name("gpu_day.py")
    told = subprocess.check_output([sys.executable, str(script), str(tmp_path)], text=True)
    day = json.loads((tmp_path / "gpu_day.json").read_text())
    (found,) = day["model"]
    assert (found["images_per_second"], found["peak_gib"], found["mfu"]) == (2.0, 2.0, 0.5)
    assert found["ratio_to_theirs"] == 0.5
    assert "| released-64 | train | blocks | 6 | 3.000 | 2.00 | 2.00 | 50.0% | 0.500 |" in told
    assert "study: not done in 180 s" in told
