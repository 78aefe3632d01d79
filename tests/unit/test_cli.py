"""The command line is frozen: new knobs belong into the study, not here."""

import argparse
from pathlib import Path

import pytest

from mdm import cli
from mdm.study_file import read_overrides

FROZEN = {
    "check", "weights", "flan-t5-small", "plan", "calibrate", "status", "run", "schema", "index", "shard", "manifest",
    "data", "embed", "train", "spread", "export", "convert", "grow", "judge", "clip", "sample", "generate",
    "features", "score", "collect", "tables", "figure", "claims", "report",
}  # fmt: skip


def test_the_verbs_are_these():
    assert set(cli.VERBS) == FROZEN


GOLDEN = Path(__file__).parent / "golden" / "command_line.txt"
MANY = {"*": "any number", "+": "one or more after the flag", "...": "the rest of the line"}


def type_of(action):
    known = {
        None: "text", Path: "path", int: "whole number", float: "number", cli._seed: "seed", cli._seconds: "seconds",
        cli.COUNT: "whole number from 0", cli.POSITIVE: "whole number from 1",
    }  # fmt: skip
    if isinstance(action, argparse._StoreTrueAction):
        return "flag"
    return "|".join(action.choices) if action.choices else known[action.type]


def described(action):
    """One line: how a parameter is written, what it takes, and what stands for it where it is left out."""
    option = bool(action.option_strings)
    defaults = [] if action.default in (None, ()) or action.default is False else action.default
    defaults = ", ".join(map(str, defaults if isinstance(defaults, list) else [defaults]))
    required = action.required if option else action.nargs is None
    words = [type_of(action), "required" if required else "", MANY.get(action.nargs, "")]
    words += ["again and again"] if isinstance(action, argparse._AppendAction) else []
    words += ["or no value"] if option and action.nargs == "?" else []
    words += [f"default {defaults}"] if defaults else []
    return f"    {(action.option_strings or [action.dest])[-1]}: {', '.join(filter(None, words))}"


def command_line():
    """Every verb, and below it its parameters."""
    top = cli.parser()
    (verbs,) = (action.choices for action in top._actions if isinstance(action, argparse._SubParsersAction))
    lines = []
    for name, parser in {"": top, **verbs}.items():
        found = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
        parameters = sorted(described(action) for action in found if action.dest != "help")
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


def test_unknown_options_are_refused():
    with pytest.raises(SystemExit):
        cli.main(["train", "recipe.json", "--out", "x", "--learning-rate", "1"])


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
