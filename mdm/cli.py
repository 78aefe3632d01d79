"""The command line: verbs only. Heavy rooms are imported by the verb that needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mdm.config import StudyError
from mdm.heap import keep_freed_memory
from mdm.manifest import ArtifactError, write_json
from mdm.study_file import LITERATURE

Verb = Callable[[argparse.Namespace], int | None]


def _study(options: argparse.Namespace) -> Any:
    from mdm import study

    try:
        overrides = json.loads(options.set)
    except json.JSONDecodeError as error:
        raise StudyError(f"--set {options.set!r} is not JSON ({error}); write --set '{{\"a.b\": 1}}'") from None
    return study.load(options.study, overrides)


def check(options: argparse.Namespace) -> None:
    study = _study(options)
    print(f"{study.name}: {len(study.runs)} runs, {len(study.artifacts)} artifacts, every recipe is valid")
    if options.files:
        from mdm.external import check_files

        print(f"{check_files(study)} outside files are as the study says")


def plan(options: argparse.Namespace) -> None:
    from mdm import plan

    study = _study(options)
    print(plan.render(study, options.results))
    if options.memory:
        print(plan.memory(study))


def schema(options: argparse.Namespace) -> None:
    from mdm.config import StudyConfig

    write_json(options.out, StudyConfig.model_json_schema())


def index(options: argparse.Namespace) -> None:
    from mdm.data.shards import index_data

    index_data(options.recipe)


def shard(options: argparse.Namespace) -> None:
    from mdm.data.shards import write_shards

    first, dash, last = options.shard.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()):
        raise StudyError(f"--shard {options.shard!r} is neither a number nor a range; write 7 or 00000-00009")
    write_shards(options.recipe, int(first), int(last))


def manifest(options: argparse.Namespace) -> None:
    from mdm.data.shards import write_manifest

    write_manifest(options.recipe)


def data(options: argparse.Namespace) -> int:
    from mdm.data.difference import compare, render

    found = compare(options.first, options.second)
    print(render(found))
    return 0 if found.same else 1


def embed(options: argparse.Namespace) -> None:
    from mdm.text.cache import embed

    embed(options.recipe)


def train(options: argparse.Namespace) -> None:
    from mdm.model.execution import Execution
    from mdm.train.loop import train

    execution = Execution(tuple(options.recompute), options.compile, options.accumulate, options.shard_optimizer)
    train(options.recipe, options.out, options.before, options.autosave_seconds, execution, options.attempt)


def spread(options: argparse.Namespace) -> int:
    from mdm.cluster import processes, spread

    arguments = ["--threads", str(options.cpus), *options.command]
    if processes(options.nodes, options.gpus) == 1:
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


def collect(options: argparse.Namespace) -> None:
    from mdm.results import collect

    _, missing = collect.write(
        _study(options), options.results, options.results / "metrics.csv", options.results / "missing.json"
    )
    print(f"{len(missing)} results are missing")


def tables(options: argparse.Namespace) -> None:
    from mdm.results import tables

    tables.write(
        _study(options), options.results / "metrics.csv", options.results, LITERATURE, options.results / "tables"
    )


def figure(options: argparse.Namespace) -> None:
    from mdm.results import figures

    metrics, out = options.results / "metrics.csv", options.results / "figures"
    figures.write(_study(options), options.name, metrics, options.results, out)


def claims(options: argparse.Namespace) -> None:
    from mdm.results import claims

    claims.write(_study(options), options.results / "metrics.csv", options.results / "claims.json")


def report(options: argparse.Namespace) -> None:
    from mdm.results import report

    missing = report.write(_study(options), options.results, options.out, options.ablation)
    print(f"{options.out}" + (f" (partial: {len(missing)} results are missing)" if missing else ""))


def run(options: argparse.Namespace) -> int:
    from mdm import launch

    return launch.run(_study(options), options.targets, options.cores)


STUDY_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--study", {"default": "laptop", "help": "name in config/studies, or a path (default: %(default)s)"}),
    ("--set", {"default": "{}", "metavar": "JSON", "help": "overrides, e.g. '{\"base.train.batch_images\": 8}'"}),
)
RECIPE: tuple[tuple[str, dict[str, Any]], ...] = (("recipe", {"type": Path, "help": "an artifact's recipe.json"}),)
FILES = ("--files", {"action": "store_true", "help": "also the files from outside, by their hashes"})
MEMORY = ("--memory", {"action": "store_true", "help": "also the memory of a training step (seconds per network)"})
RESULTS = ("--results", {"type": Path, "default": Path("results"), "help": "default: %(default)s"})
OUT = ("--out", {"type": Path, "required": True})
REPORT_OUT = ("--out", {"type": Path, "default": Path("reports/index.html"), "help": "default: %(default)s"})
FORCE = ("--force", {"action": "store_true", "help": "replace a file that is there"})
ABLATION = ("--ablation", {"help": "the page of one ablation"})

VERBS: dict[str, tuple[Verb, str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "check": (check, "validate a study and every run of it", (*STUDY_OPTIONS, FILES)),
    "plan": (plan, "list runs, stages, digests, images and estimated time", (*STUDY_OPTIONS, RESULTS, MEMORY)),
    "run": (
        run, "run a study, or some targets of it, on this machine",
        (*STUDY_OPTIONS, ("targets", {"nargs": "*", "default": ["all"], "help": "all, data, report, an ablation, ..."}),
         ("--cores", {"default": "all", "help": "default: %(default)s"})),
    ),
    "schema": (schema, "write the JSON schema of study files", (OUT,)),
    "index": (index, "list what a data set contains", RECIPE),
    "shard": (
        shard, "make shards of a data set",
        (*RECIPE, ("--shard", {"required": True, "help": "a number, or first and last: 00000-00009"})),
    ),
    "manifest": (manifest, "verify and record the shards of a data set", RECIPE),
    "data": (
        data, "compare two data sets; ends with 1 where they differ",
        (("action", {"choices": ["diff"]}),
         ("first", {"type": Path, "help": "a data folder or its manifest.json"}), ("second", {"type": Path})),
    ),
    "embed": (embed, "embed the captions of a data set", RECIPE),
    "train": (
        train, "train one slice of a stage (several processes: by torchrun or srun)",
        (*RECIPE, OUT, ("--before", {"type": Path, "nargs": "?", "help": "checkpoint of the slice before"}),
         ("--autosave-seconds", {"type": float, "default": 60.0, "help": "default: %(default)s"}),
         ("--recompute", {"type": int, "nargs": "+", "default": (), "metavar": "RESOLUTION",
                          "help": "levels that keep no activations: less memory, more time, the same weights"}),
         ("--compile", {"choices": ("none", "blocks", "network"), "default": "none",
                        "help": "what torch.compile fuses; default: %(default)s"}),
         ("--accumulate", {"type": int, "default": 1, "metavar": "PARTS",
                           "help": "take a batch in so many parts: less memory, the same weights up to rounding"}),
         ("--shard-optimizer", {"action": "store_true", "help": "several processes share the optimiser's moments"}),
         ("--attempt", {"type": int, "default": 1,
                        "help": "Snakemake's count of tries; from 2 on, what ended with an error is not tried again"})),
    ),
    "spread": (
        spread, "run a verb in one process for each GPU of a job",
        (("--nodes", {"type": int, "default": 1}), ("--gpus", {"type": int, "default": 0, "help": "of each node"}),
         ("--cpus", {"type": int, "default": 1, "help": "and threads of each process"}),
         ("command", {"nargs": argparse.REMAINDER, "help": "e.g. train results/.../recipe.json --out ..."})),
    ),
    "export": (export, "write the weights of a finished stage", RECIPE),
    "convert": (
        convert, "read or write weights of the reference implementation (.pth)",
        (("weights", {"type": Path, "help": "a .pth or .safetensors file"}),
         ("--model", {"help": "preset, recipe.json or model.json (default: what the file says)"}),
         ("--out", {"type": Path, "required": True, "help": "NAME.safetensors or NAME.pth"}), FORCE),
    ),
    "grow": (
        grow, "put fresh levels around trained weights, and prove that these stay as they are",
        (("weights", {"type": Path, "help": "a .safetensors file"}),
         ("--model", {"required": True, "help": "the deeper one: preset, recipe.json or model.json"}), OUT,
         ("--seed", {"type": int, "default": 0, "help": "of the fresh weights; default: %(default)s"}), FORCE),
    ),
    "judge": (judge, "train the judge network", RECIPE),
    "clip": (clip, "train the small CLIP", RECIPE),
    "sample": (sample, "draw the pictures of a protocol", RECIPE),
    "generate": (
        generate, "draw a prompt or a class with a trained run",
        (("prompt", {"nargs": "?", "help": 'e.g. "two red circles above a blue square"'}), *STUDY_OPTIONS, RESULTS,
         ("--class", {"dest": "number", "type": int, "help": "class to draw, for a run trained with classes"}),
         ("--run", {"default": "base", "help": "default: %(default)s"}),
         ("--out", {"type": Path, "default": Path("picture.png"), "help": "default: %(default)s"}),
         ("--count", {"type": int, "default": 1, "help": "pictures; default: %(default)s"}),
         ("--seed", {"type": int, "default": 0, "help": "default: %(default)s"}),
         ("--guidance", {"type": float, "help": "default: the run's"}),
         ("--steps", {"type": int, "help": "default: the run's"})),
    ),
    "features": (features, "extract features of pictures", RECIPE),
    "score": (score, "turn features into metrics", RECIPE),
    "collect": (collect, "write metrics.csv and missing.json", (*STUDY_OPTIONS, RESULTS)),
    "tables": (tables, "write every table", (*STUDY_OPTIONS, RESULTS)),
    "figure": (figure, "draw one figure", (*STUDY_OPTIONS, RESULTS, ("--name", {"required": True}))),
    "claims": (claims, "judge the claims of a study", (*STUDY_OPTIONS, RESULTS)),
    "report": (report, "write the report of whatever is finished", (*STUDY_OPTIONS, RESULTS, REPORT_OUT, ABLATION)),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """One sub-command for each verb."""
    top = argparse.ArgumentParser(prog="mdm", description=__doc__)
    top.add_argument("--debug", action="store_true", help="show tracebacks of user errors too")
    top.add_argument("--threads", type=int, help="processor threads of this verb (default: all)")
    commands = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, text, arguments) in VERBS.items():
        command = commands.add_parser(name, help=text, description=text)
        for flag, settings in arguments:
            command.add_argument(flag, **settings)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; user errors are one message, programming errors a traceback."""
    # Nothing is looked up on a model hub at run time; weights come by path and hash.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_freed_memory()
    options = parser().parse_args(arguments)
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read by torch and numpy when they are imported
    try:
        return VERBS[options.verb][0](options) or 0
    except (StudyError, ArtifactError) as error:
        if options.debug:
            raise
        print(f"mdm {options.verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
