"""The command line is frozen: new knobs belong into the study, not here."""

import signal
import subprocess
import sys

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


def test_a_user_error_is_one_message_and_status_2(capsys):
    assert cli.main(["check", "--study", "laptp"]) == 2
    assert capsys.readouterr().err.startswith("mdm check: there is no study 'laptp'")


def test_a_valid_study_is_told_so(capsys):
    assert cli.main(["check", "--study", "quick", "--files"]) == 0
    assert "every recipe is valid" in capsys.readouterr().out


INTERRUPTED = """
import runpy, signal
from mdm import verbs
verbs.read_overrides = lambda _: signal.raise_signal(signal.SIGINT)
runpy.run_module("mdm", run_name="__main__")
"""


def test_a_verb_dies_of_ctrl_c_as_shells_expect():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT and done.stderr == ""


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
