"""The command line is frozen: new knobs belong into the study, not here."""

import pytest

from mdm import cli

FROZEN = {
    "check", "plan", "run", "schema", "index", "shard", "manifest", "data", "embed", "train", "export", "convert",
    "grow", "judge", "clip", "sample", "generate", "features", "score", "collect", "tables", "figure", "claims",
    "report", "spread",
}  # fmt: skip


def test_the_verbs_are_these():
    assert set(cli.VERBS) == FROZEN


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
