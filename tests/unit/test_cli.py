"""The command line is frozen: new knobs belong into the study, not here."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mdm import cli
from mdm.cli.artifacts import SeveralNumbers
from mdm.config import StudyError
from mdm.study.study_file import read_overrides

FROZEN = {
    "check", "weights", "flan-t5-small", "plan", "recipes", "calibrate", "status", "run", "schema", "index", "shard",
    "manifest", "data", "embed", "train", "spread", "export", "snapshot", "convert", "grow", "judge", "clip", "sample",
    "gather", "generate", "features", "excess", "audit", "theory", "score", "collect", "tables", "figure", "claims",
    "report", "autoencoder", "encode",
}  # fmt: skip


def test_the_verbs_are_these():
    assert set(cli.door.commands) == FROZEN


TOP = click.Context(cli.door, **cli.door.context_settings)
GOLDEN = Path(__file__).parent / "golden" / "command_line.txt"
TYPES = {"text": "text", "Path": "path", "integer": "whole number", "float": "number", "seconds": "seconds",
         "shards": "text", "part": "text"}  # fmt: skip


def type_of(parameter):
    kind = parameter.type
    if getattr(parameter, "is_flag", False):
        return "flag"
    if isinstance(kind, click.Choice):
        return "|".join(kind.choices)
    if isinstance(kind, click.IntRange):
        return f"whole number from {kind.min}" if kind.max is None else "seed"
    return TYPES[kind.name]


def may_stand_alone(verb, flag):
    try:
        verb.make_parser(click.Context(verb, TOP)).parse_args([flag])
    except click.BadOptionUsage:
        return False
    return True


def described(verb, parameter):
    """One line: how a parameter is written, what it takes, and what stands for it where it is left out."""
    option, facts = isinstance(parameter, click.Option), parameter.to_info_dict()
    words = [type_of(parameter), "required" if facts["required"] else ""]
    if facts["nargs"] == -1:
        rest = verb.context_settings.get("allow_interspersed_args") is False
        words.append("the rest of the line" if rest else "any number")
    if facts["multiple"]:
        words.append("one or more after the flag" if isinstance(verb, SeveralNumbers) else "again and again")
    words += ["or no value"] if option and words[0] != "flag" and may_stand_alone(verb, parameter.opts[0]) else []
    default = facts["default"] if isinstance(facts["default"], (list, tuple)) else [facts["default"]]
    default = ", ".join(str(value) for value in default if value is not None and value is not False)
    words += [f"default {default}"] if default else []
    return f"    {parameter.opts[0]}: {', '.join(filter(None, words))}"


def command_line():
    """Every verb, and below it its parameters."""
    lines = []
    for name, verb in {"": cli.door, **cli.door.commands}.items():
        parameters = sorted(described(verb, parameter) for parameter in verb.params)
        lines.append("\n".join([f"mdm {name}".strip(), *parameters]))
    return "\n".join(sorted(lines)) + "\n"


def test_the_command_line_is_the_one_that_scripts_and_workflows_rely_on():
    assert command_line() == GOLDEN.read_text()


def test_a_user_error_is_one_message_and_status_2(capsys):
    assert cli.main(["check", "--study", "laptp"]) == 2
    assert capsys.readouterr().err.startswith("mdm check: there is no study 'laptp'")


def test_a_valid_study_is_told_so(capsys):
    assert cli.main(["check", "--study", "quick", "--files"]) == 0
    assert "every recipe is valid" in capsys.readouterr().out


def refused(capsys, *words):
    """What is said of words that no verb takes."""
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert not said.out
    return said.err


def test_unknown_options_are_refused(capsys):
    said = refused(capsys, "train", "recipe.json", "--out", "x", "--learning-rate", "1")
    assert said.startswith("mdm train: No such option '--learning-rate'")


def test_mistyped_words_name_the_nearest(capsys):
    assert refused(capsys, "trian", "recipe.json").startswith("mdm: No such command 'trian'. Did you mean 'train'?")
    assert "No such option '--acumulate'. (Did you mean one of: '--accumulate'," in refused(
        capsys, "train", "recipe.json", "--acumulate", "2"
    )
    assert "'--nods'. Did you mean '--nodes'?" in refused(capsys, "spread", "--nods", "2", "train", "recipe.json")
    assert "mdm train --help" in refused(capsys, "train", "recipe.json")
    assert "Missing option '--out'" in refused(capsys, "train", "recipe.json")


@pytest.mark.parametrize("help_option", ["--help", "-h"])
def test_help_shows_every_verb_in_one_line(help_option, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([help_option]) == 0
    said = capsys.readouterr().out
    for name in FROZEN:
        assert re.search(rf"^  {name} +[A-Z].*[.]$", said, re.MULTILINE), name
    assert cli.main([]) == 2 and capsys.readouterr().err == said


def trained_with(*words):
    """The parameters that `mdm train` reads from a line."""
    return cli.door.commands["train"].make_context("train", [*words, "--out", "final.ckpt"], TOP).params


def test_several_sizes_follow_one_flag():
    assert trained_with("r.json")["recompute"] == ()
    assert trained_with("r.json", "--recompute", "64")["recompute"] == (64,)
    found = trained_with("r.json", "--recompute", "64", "256", "1024", "--compile", "blocks", "--attempt", "2")
    assert (found["recompute"], found["compile"], found["attempt"]) == ((64, 256, 1024), "blocks", 2)
    first = trained_with("--recompute", "8", "16", "r.json")
    assert (first["recompute"], first["recipe"]) == ((8, 16), Path("r.json"))


def test_a_slice_without_one_before_may_say_so_with_nothing():
    """The rule train_slice writes `--before ` and then other options, slurm/torchrun.sh ends with it."""
    assert trained_with("r.json", "--before")["before"] is None
    found = trained_with("r.json", "--before", "--compile", "none", "--attempt", "3")
    assert found["before"] is None and found["attempt"] == 3
    assert trained_with("r.json", "--before", "a.ckpt", "--attempt", "1")["before"] == Path("a.ckpt")


def test_what_follows_the_verb_of_spread_is_left_as_it_is(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execvp", lambda program, words: started.append((program, words)))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("MDM_GPUS", "0")  # `spread` sets it: later tests must not see that
    rest = [
        "train",
        "r.json",
        "--out",
        "x",
        "--before",
        "--recompute",
        "8",
        "16",
        "--nodes",
        "9",
        "-h",
        "--",
        "--cpus=1",
    ]
    cli.main(["spread", "--nodes", "2", "--gpus", "4", "--cpus", "3", *rest])
    ((program, words),) = started
    assert program == "srun" and words[-len(rest) - 2 :] == ["--threads", "3", *rest]
    assert os.environ["MDM_GPUS"] == "4"


def failing(monkeypatch, error):
    def load(*_):
        raise error

    monkeypatch.setattr("mdm.study.load", load)
    return ["check", "--study", "quick"]


def test_an_interrupt_ends_with_130(monkeypatch):
    assert cli.main(failing(monkeypatch, KeyboardInterrupt())) == 130


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "of a socket"), EOFError(), ValueError("a bug")])
def test_an_error_of_ours_is_shown_whole(monkeypatch, error):
    with pytest.raises(type(error)):
        cli.main(failing(monkeypatch, error))


def test_debug_shows_where_a_user_error_comes_from():
    with pytest.raises(StudyError, match="there is no study 'laptp'"):
        cli.main(["--debug", "check", "--study", "laptp"])


def test_threads_are_set_before_anything_reads_them(monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert cli.main(["--threads", "3", "check", "--study", "quick"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == "3"
    capsys.readouterr()
    said = refused(capsys, "--threads", "0", "check")
    assert "'--threads': '0' is not possible; write a whole number from 1 on" in said


def test_the_door_is_light():
    code = "import sys, mdm.cli; print(sorted({'torch', 'numpy', 'pandas', 'snakemake', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


INTERRUPTED = """
import runpy, signal
from mdm.study import study_file
study_file.read_overrides = lambda _: signal.raise_signal(signal.SIGINT)
runpy.run_module("mdm", run_name="__main__")
"""


def test_a_verb_dies_of_ctrl_c_as_shells_expect():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stderr == ""


def test_a_range_of_shards_that_is_none_says_so(capsys):
    assert cli.main(["shard", "recipe.json", "--shard", "3-"]) == 2
    assert "write 7 or 00000-00009" in capsys.readouterr().err


def test_overrides_that_are_no_json_say_so(capsys):
    assert cli.main(["check", "--study", "quick", "--set", "{batch: 3"]) == 2
    assert "--set" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["base"], ["=3"], ["[1]"], ["3"], ["a=[1"]])
def test_overrides_that_are_none_say_so(words, capsys):
    assert cli.main(["check", "--study", "quick", "--set", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("mdm check: ") and "--set" in said


def test_overrides_are_written_as_in_a_study():
    words = ["base.sample.guidance=6.0", "seeds=[0, 1]", "x.y={a: 1}", "t=a=b", '{"base.train.batch_images": 8}']
    assert read_overrides(words) == {
        "base.sample.guidance": 6.0, "seeds": [0, 1], "x.y": {"a": 1}, "t": "a=b", "base.train.batch_images": 8
    }  # fmt: skip


def test_an_unknown_override_names_the_nearest_key(capsys):
    assert cli.main(["check", "--study", "quick", "--set", "base.sample.guidnce=6.0"]) == 2
    assert "'guidance'" in capsys.readouterr().err
