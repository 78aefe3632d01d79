"""How verbs are found, shown, run and refused, and the options that several of them have."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdm.config import StudyError
from mdm.files.atomic import ArtifactError

if TYPE_CHECKING:
    from mdm.study.study import Study

HELP = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
TRIM_THRESHOLD, MMAP_MAX, NEVER = -1, -4, -1  # malloc.h of glibc


class Section(click.Group):
    """Verbs that stand together in `mdm --help`, in the order of their file."""

    def verb(self, text: str, *shared: click.Parameter, **settings: Any) -> Callable[..., click.Command]:
        """Make a function a verb; `text` is what help says of it, `shared` are parameters that others have as well."""
        return self.command(help=text, params=[*shared], **settings)


class Door(click.Group):
    """All verbs, shown by sections."""

    def open(self, *sections: Section) -> None:
        self.sections = sections
        self.commands = {name: verb for section in sections for name, verb in section.commands.items()}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in self.sections:
            with formatter.section(str(section.name)):
                verbs = section.commands.items()
                formatter.write_dl((f"{name:13}", verb.get_short_help_str(99)) for name, verb in verbs)


class Number(click.IntRange):
    """A whole number; for another word the message says what to write instead."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        with suppress(click.BadParameter):
            return super().convert(value, param, ctx)
        end = "on" if self.max is None else f"to {self.max}"
        self.fail(f"{value!r} is not possible; write a whole number from {self.min} {end}", param, ctx)


def seconds(word: str) -> float:
    """Parse a length of time; FloatRange would let nan pass."""
    with suppress(ValueError):
        if 0 <= (found := float(word)) < math.inf:
            return found
    raise ValueError(f"{word!r} is no time; write seconds, such as 60")


def load(context: click.Context, _: click.Parameter, name: str | None) -> Study | None:
    """Load the study that --study names, changed by --set."""
    from mdm import study
    from mdm.study.study_file import read_overrides

    changes = read_overrides(context.params.pop("changes"))  # --set is eager, so it has been read
    return study.load(name, changes) if name else None


CHANGES = "Change the study for this once, e.g. base.sample.guidance=6.0; several: again, or as JSON."
SET = click.Option(["--set", "changes"], multiple=True, is_eager=True, metavar="KEY=VALUE", help=CHANGES)
STUDY = click.Option(["--study"], default="laptop", callback=load, help="Name in config/studies, or a path.")
RESULTS = click.Option(["--results"], type=Path, default="results", help="Folder of the artifacts.")
RECIPE = click.Argument(["recipe"], type=Path, help="An artifact's recipe.json.")
OUT = click.Option(["--out"], type=Path, required=True, help="What to write.")
FORCE = click.Option(["--force"], is_flag=True, help="Replace a file that is there.")
SEED = click.Option(["--seed"], type=Number(0, 2**63 - 1), default=0, help="Of what is drawn at random.")


@click.group("mdm", cls=Door, context_settings=HELP, subcommand_metavar="VERB ...")
@click.option("--debug", is_flag=True, help="Show tracebacks of user errors too.")
@click.option("--threads", type=Number(1), show_default="all", help="Processor threads of this verb.")
def door(debug: bool, threads: int | None) -> None:
    """Matryoshka diffusion, reproduced: check, plan, run and watch studies. The README shows the way."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch and numpy when they are imported


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status; user errors are one message, programming errors a traceback."""
    # Nothing is looked up on a model hub at run time; weights come by path and hash.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    keep_freed_memory()
    context = None
    try:
        # As door.main() does it, which would also end without a word where a verb met a broken pipe.
        context = door.make_context("mdm", list(sys.argv[1:] if arguments is None else arguments))
        with context:
            return door.invoke(context) or 0
    except click.exceptions.Exit as end:  # of --help
        return end.exit_code
    except (click.UsageError, StudyError, ArtifactError) as error:
        return _refused(error, context)
    except KeyboardInterrupt:
        return 130


def _refused(error: Exception, context: click.Context | None) -> int:
    """Say what was wrong with the command line, or with the files of its user."""
    name = f"mdm {context.invoked_subcommand}" if context and context.invoked_subcommand else "mdm"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    elif isinstance(error, click.UsageError):
        print(f"{name}: {error.format_message()}\n`{name} --help` shows what there is", file=sys.stderr)
    elif context and context.params["debug"]:
        raise error
    else:
        print(f"{name}: {error}", file=sys.stderr)
    return 2


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; false where the C library has no such switch.

    A training step frees and allocates the same megabytes again. Zeroed pages from the kernel took a tenth of a step of
    the laptop's networks; the price is that memory once in use stays with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, NEVER) and mallopt(MMAP_MAX, 0))
