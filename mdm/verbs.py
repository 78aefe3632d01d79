"""What each verb of the command line does. Heavy rooms are imported by the verb that needs them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from mdm.config import StudyError
from mdm.manifest import read_recipe, write_json
from mdm.study_file import LITERATURE, read_overrides


def _study(options: argparse.Namespace) -> Any:
    from mdm import study

    return study.load(options.study, read_overrides(options.set))


def check(options: argparse.Namespace) -> None:
    study = _study(options)
    said = [f"{study.name}: {len(study.runs)} runs, {len(study.artifacts)} artifacts, every recipe is valid"]
    if options.files:
        from mdm.external import check_files, files_said

        said.append(files_said(study, check_files(study, options.results)))
    print("\n".join(said))  # nothing is called valid before all that was asked for is


def weights(options: argparse.Namespace) -> None:
    from mdm.external import bring, external_files

    study = _study(options)
    for path in bring(study, options.packages):
        print(path)
    missing = {str(file.path) for file in external_files(study) if not file.path.is_file()}
    print(f"no package has: {', '.join(sorted(missing))}" if missing else "every outside file is there")


def plan(options: argparse.Namespace) -> None:
    from mdm import plan, throughput

    study = _study(options)
    calibration = options.calibration or options.results / throughput.FILE
    speeds = throughput.load(study, calibration, asked_for=options.calibration is not None)
    found = plan.memories(study) if options.memory else {}
    print(plan.render(study, options.results, speeds, {ref: one.peak for ref, one in found.items()}))
    if found:
        print(plan.memory(study, found))


def calibrate(options: argparse.Namespace) -> None:
    from mdm import throughput
    from mdm.train.calibrate import calibrate

    calibrate(_study(options), options.out or options.results / throughput.FILE, options.seconds)


def status(options: argparse.Namespace) -> None:
    from mdm import status

    study = _study(options) if options.study else None
    status.show(study, options.results, options.watch)


def schema(options: argparse.Namespace) -> None:
    from mdm.config import StudyConfig

    write_json(options.out, StudyConfig.model_json_schema())


def index(options: argparse.Namespace) -> None:
    from mdm.data.shards import index_data
    from mdm.text.captions import list_captions

    (list_captions if _of_text(options) else index_data)(options.recipe)


def shard(options: argparse.Namespace) -> None:
    from mdm.data.shards import write_shards

    write_shards(options.recipe, *_shards(options.shard))


def _shards(words: str) -> tuple[int, int]:
    """First and last of the shards asked for."""
    first, dash, last = words.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()):
        raise StudyError(f"--shard {words!r} is neither a number nor a range; write 7 or 00000-00009")
    if int(last) < int(first):
        raise StudyError(f"--shard {words!r} ends before it begins; write {last}-{first}")
    return int(first), int(last)


def manifest(options: argparse.Namespace) -> None:
    from mdm.data.shards import write_manifest
    from mdm.text.gather import gather

    (gather if _of_text(options) else write_manifest)(options.recipe)


def _of_text(options: argparse.Namespace) -> bool:
    return bool(read_recipe(options.recipe)["kind"] == "text")


def data(options: argparse.Namespace) -> int:
    from mdm.data.difference import compare, render

    found = compare(options.first, options.second)
    print(render(found))
    return 0 if found.same else 1


def embed(options: argparse.Namespace) -> None:
    from mdm.text.cache import embed, embed_shards

    if options.shard:
        embed_shards(options.recipe, *_shards(options.shard))
    else:
        embed(options.recipe)


def flan_t5_small(options: argparse.Namespace) -> None:
    import runpy

    script = Path(__file__).parents[1] / "tools" / "flan_t5_small.py"
    if not script.is_file():
        raise StudyError(f"{script} is not there: a package without its repository cannot do this; run it in a clone")
    tool = runpy.run_path(str(script))
    print(tool["study_entry"](options.out, tool["unpack"](options.wheel, options.out, options.force)))


def train(options: argparse.Namespace) -> None:
    from mdm.model.execution import Execution
    from mdm.train.loop import train

    execution = Execution(tuple(options.recompute), options.compile, options.accumulate, options.shard_optimizer)
    train(
        options.recipe, options.out, options.before, options.autosave_seconds, execution, options.preview_images,
        options.attempt,
    )  # fmt: skip


def spread(options: argparse.Namespace) -> int:
    from mdm.cluster import processes, spread

    arguments = ["--threads", str(options.cpus), *options.command]
    os.environ["MDM_GPUS"] = str(options.gpus)  # so that a training notices GPUs that are not there
    if processes(options.nodes, options.gpus) == 1:
        from mdm.cli import main

        return main(arguments)
    command = spread(arguments, options.nodes, options.gpus, options.cpus, os.environ)
    os.execvp(command[0], command)


def export(options: argparse.Namespace) -> None:
    from mdm.train.export import export

    export(options.recipe)


def convert(options: argparse.Namespace) -> None:
    from mdm.model.convert import convert

    convert(options.weights, options.model, options.out, options.force)


def grow(options: argparse.Namespace) -> None:
    from mdm.model.growth import grow_file

    grow_file(options.weights, options.model, options.out, options.seed, options.force)


def judge(options: argparse.Namespace) -> None:
    from mdm.evaluate.judge import train_judge

    train_judge(options.recipe)


def clip(options: argparse.Namespace) -> None:
    from mdm.evaluate.clip_model import train_clip

    train_clip(options.recipe)


def sample(options: argparse.Namespace) -> None:
    from mdm.evaluate.generate import generate

    generate(options.recipe)


def generate(options: argparse.Namespace) -> None:
    from mdm.evaluate.prompt import Wanted, generate

    wanted = Wanted(options.prompt, options.number, options.count, options.seed)
    changes = {"guidance": options.guidance, "steps": options.steps}
    print(generate(_study(options), options.results, options.run, wanted, options.out, changes))


def features(options: argparse.Namespace) -> None:
    from mdm.evaluate.features import extract_features

    extract_features(options.recipe)


def score(options: argparse.Namespace) -> None:
    from mdm.evaluate.scores import score

    score(options.recipe)


def _of_study(options: argparse.Namespace) -> tuple[Any, Path]:
    """The study, and the folder of its own results."""
    from mdm.results.names import home

    study = _study(options)
    return study, home(options.results, study)


def collect(options: argparse.Namespace) -> None:
    from mdm.results import collect

    study, own = _of_study(options)
    _, missing = collect.write(study, options.results, own / "metrics.csv", own / "missing.json")
    print(f"{len(missing)} results are missing")


def tables(options: argparse.Namespace) -> None:
    from mdm.results import tables

    study, own = _of_study(options)
    tables.write(study, own / "metrics.csv", options.results, LITERATURE, own / "tables")


def figure(options: argparse.Namespace) -> None:
    from mdm.results import figures

    study, own = _of_study(options)
    figures.write(study, options.name, own / "metrics.csv", options.results, own / "figures")


def claims(options: argparse.Namespace) -> None:
    from mdm.results import claims

    study, own = _of_study(options)
    claims.write(study, own / "metrics.csv", own / "claims.json")


def report(options: argparse.Namespace) -> None:
    from mdm.results import report
    from mdm.results.names import home

    study = _study(options)
    page = f"ablations/{options.ablation}.html" if options.ablation else "index.html"
    out = options.out or home("reports", study) / page
    missing = report.write(study, options.results, out, options.ablation)
    print(f"{out}" + (f" (partial: {len(missing)} results are missing)" if missing else ""))


def run(options: argparse.Namespace) -> int:
    from mdm import launch

    return launch.run(_study(options), options.targets, options.cores)
