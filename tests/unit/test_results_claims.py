"""Claims: what the small language accepts, and all four verdicts with the numbers behind them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import results_fixture as fixture

from mdm.report.collect import Row, read_metrics
from mdm.report.comparisons import conjunction, disjunction
from mdm.report.evidence import Evidence
from mdm.report.verdicts import VERDICTS, judge, judge_all, write
from mdm.study.claims import ExpressionError, Reference, check_expression

METRICS, RUNS = {"fd_judge", "kid_judge", "alignment"}, {"base", "no-progressive"}


def row(run: str, value: float, half: float | None = 1.0, seed: int = 0, metric: str = "fd_judge") -> Row:
    low, high = (None, None) if half is None else (value - half, value + half)
    return Row(run, "r64", seed, metric, value, low, high, "p", 100, 1.0, "d")


def verdict(expect: str, *rows: Row):
    study = SimpleNamespace(runs=[], protocols={"p": None}, claims={})
    claim = SimpleNamespace(statement="s", source="x", expect=expect, protocol="p")
    return judge("c", claim, Evidence(study, list(rows)))


BELOW = 'fd_judge["base"] < fd_judge["other"]'


def test_reproduced_when_the_interval_excludes_zero() -> None:
    found = verdict(BELOW, row("base", 10), row("other", 20))
    assert found.verdict == "reproduced"
    margin = found.comparisons[0].margin
    assert margin.value == 10 and margin.low == pytest.approx(10 - 2**0.5)
    assert "should be below" in found.sentence and "+10.0" in found.sentence


def test_not_reproduced_when_it_excludes_zero_on_the_other_side() -> None:
    assert verdict(BELOW, row("base", 20), row("other", 10)).verdict == "not reproduced"


def test_inconclusive_when_it_includes_zero() -> None:
    found = verdict(BELOW, row("base", 10), row("other", 11))
    assert found.verdict == "inconclusive"
    assert "single seed" in found.sentence


def test_not_run_lists_what_is_missing_and_keeps_what_is_there() -> None:
    found = verdict(BELOW, row("base", 10))
    assert found.verdict == "not run"
    assert found.missing == ['fd_judge["other"]'] and 'fd_judge["other"]' in found.sentence
    assert [r.run for r in found.numbers] == ["base"]


def test_seeds_that_disagree_make_a_claim_inconclusive() -> None:
    agreeing = [row("base", 10, 0.1), row("base", 10.2, 0.1, seed=1), row("other", 12, 0.1)]
    disagreeing = [row("base", 6, 0.1), row("base", 14, 0.1, seed=1), row("other", 12, 0.1)]
    assert verdict(BELOW, *agreeing).verdict == "reproduced"
    assert verdict(BELOW, *disagreeing).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("expect", "wanted"),
    [
        ('fd_judge["base"] < fd_judge["other"] and fd_judge["base"] > 5', "reproduced"),
        ('fd_judge["base"] > fd_judge["other"] or fd_judge["base"] > 5', "reproduced"),
        ('not fd_judge["base"] > fd_judge["other"]', "reproduced"),
        ('5 < fd_judge["base"] < 15', "reproduced"),
        ('fd_judge["base"] < 10.5 and fd_judge["other"] < 5', "not reproduced"),
        ('fd_judge["base"] < 10.5 or fd_judge["other"] < 5', "inconclusive"),
        ('(fd_judge["other"] - fd_judge["base"]) / fd_judge["other"] > 0.2', "reproduced"),
        ('fd_judge["other"] / fd_judge["base"] > 1.9', "inconclusive"),
        ('fd_judge["base", "p"] <= fd_judge["other"]', "reproduced"),
        ('2 * fd_judge["base"] - fd_judge["base"] * 2 >= 0', "reproduced"),
        ('-fd_judge["base"] < +fd_judge["other"]', "reproduced"),
    ],
)
def test_the_language(expect: str, wanted: str) -> None:
    assert verdict(expect, row("base", 10), row("other", 20)).verdict == wanted


def test_exact_numbers_decide_without_interval_and_the_sentence_says_so() -> None:
    rows = [row(run, n, None, metric="parameters") for run, n in (("base", 5), ("other", 6))]
    found = verdict('parameters["base"] < parameters["other"]', *rows)
    assert found.verdict == "reproduced" and "counts as exact" in found.sentence
    same = verdict('parameters["base"] < parameters["base"]', *rows)
    assert same.verdict == "not reproduced"


def test_division_by_a_measured_zero_is_inconclusive() -> None:
    found = verdict('fd_judge["base"] / fd_judge["other"] < 1', row("base", 1), row("other", 0))
    assert found.verdict == "inconclusive" and "zero" in found.sentence


def test_three_valued_logic() -> None:
    assert conjunction([True, None]) is None and conjunction([False, None]) is False
    assert disjunction([False, None]) is None and disjunction([True, None]) is True


@pytest.mark.parametrize(
    "text",
    [
        '__import__("os").system("true") < 1',
        'fd_judge["base"].real < 1',
        "fd_judge < 1",
        'fd_judge["base"] ** 2 < 1',
        'fd_judge["base"] == 1',
        "fd_judge[0] < 1",
        'fd_judge["base", "p", "q"] < 1',
        '[x for x in "a"] < 1',
        "(lambda: 1)() < 1",
        'fd_judge["base"] < "one"',
        'fd_judge["base"] < True',
        'fd_judge["base"] < 1e999',
        'fd_judge["base"] if 1 < 2 else 3',
        'fd_judge["base"] < (1 < 2)',
        'fd_judge["base"]',
        "(x := 1) < 2",
        "",
        "1 <",
        "1 < 2",
        "-" * 900 + "1 < 2",
        "1 < 2 " * 300,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        check_expression(text, METRICS, RUNS)


def test_names_are_checked_with_the_nearest_valid_one() -> None:
    good = 'fd_judge["base"] < fd_judge["no-progressive"]'
    assert check_expression(good, METRICS, RUNS) == [
        Reference("fd_judge", "base"), Reference("fd_judge", "no-progressive"),
    ]  # fmt: skip
    with pytest.raises(ExpressionError, match=r"unknown metric 'fd_jugde'.*did you mean 'fd_judge'"):
        check_expression('fd_jugde["base"] < 1', METRICS, RUNS)
    with pytest.raises(ExpressionError, match=r"unknown run 'bas'.*did you mean 'base'"):
        check_expression('fd_judge["bas"] < 1', METRICS, RUNS)
    with pytest.raises(ExpressionError, match="unknown protocol 'q'"):
        check_expression('fd_judge["base", "q"] < 1', METRICS, RUNS, ["p"])
    check_expression('anything["at all"] < 1', None, None)


def test_the_module_that_the_configuration_imports_is_light() -> None:
    heavy = "{'pandas', 'matplotlib', 'torch', 'numpy', 'jinja2'}"
    code = f"import sys, mdm.study.claims, mdm.study.products; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_fixture_has_every_verdict_and_claims_json_holds_them(tmp_path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    verdicts = judge_all(study, Evidence(study, read_metrics(sources.metrics_csv)))
    assert {v.verdict for v in verdicts} == set(VERDICTS)
    written = write(study, sources.metrics_csv, tmp_path / "claims.json")
    assert [v.verdict for v in written] == [v.verdict for v in verdicts]
    assert '"verdict": "reproduced"' in (tmp_path / "claims.json").read_text()
