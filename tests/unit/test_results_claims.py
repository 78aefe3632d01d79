"""Claims: what the small language accepts, and every verdict with the numbers behind it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import results_fixture as fixture

from mdm.config import StudyError
from mdm.report.collect import Left, Row
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.verdicts import NOT_REACHED, VERDICTS, Verdict, holm, judge, judge_all, tally, write
from mdm.study.claims import ExpressionError, Reference, check_expression
from mdm.study.study import load

METRICS, RUNS = {"fd_judge", "kid_judge", "alignment"}, {"base", "no-progressive"}
UNDECIDED, NOT_COMPARABLE = "one training each: undecided", "not comparable"


def row(run: str, value: float, half: float | None = 1.0, seed: int = 0, metric: str = "fd_judge") -> Row:
    low, high = (None, None) if half is None else (value - half, value + half)
    return Row(run, "r64", seed, metric, value, low, high, "p", 100, 1.0, "d")


def rows(run: str, *values: float, half: float | None = 1.0, metric: str = "fd_judge") -> list[Row]:
    """One training for each value."""
    return [row(run, value, half, seed, metric) for seed, value in enumerate(values)]


def claim(expect: str, number_from: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(statement="s", source="x", expect=expect, protocol="p", number_from=number_from)


def study(standard: str | None = None, resize: str = "clean", **claims: str) -> SimpleNamespace:
    protocols = {"p": SimpleNamespace(standard=standard, resize=resize)}
    return SimpleNamespace(runs=[], protocols=protocols, claims={k: claim(v) for k, v in claims.items()})


def verdict(expect: str, *given: Row, number_from: str | None = "own", groups: list[Left] | None = None) -> Verdict:
    return judge("c", claim(expect, number_from), Evidence(study(), list(given), groups))


BELOW = 'fd_judge["base"] < fd_judge["other"]'
CLEAR = (*rows("base", 9.9, 10, 10.1), *rows("other", 19.9, 20, 20.1))


def test_reproduced_when_the_interval_excludes_zero() -> None:
    found = verdict(BELOW, *rows("base", 9, 10, 11), *rows("other", 20, 20, 20))
    assert found.verdict == "reproduced"
    margin = found.comparisons[0].margin
    # Student on the three differences (deviation 1), and both runs' own intervals: nothing says what they share.
    assert margin.value == 10 and margin.value - margin.low == pytest.approx((4.3027**2 / 3 + 2) ** 0.5, rel=1e-4)
    assert margin.over == "trainings" and found.as_json()["comparisons"][0]["over"] == "trainings"
    assert "should be below" in found.sentence and "+10.0" in found.sentence
    assert "over 3 pairs of trainings: it holds" in found.sentence
    assert found.chance < 0.05


def test_not_reproduced_when_it_excludes_zero_on_the_other_side() -> None:
    found = verdict(BELOW, *rows("base", 19.9, 20, 20.1), *rows("other", 9.9, 10, 10.1))
    assert found.verdict == "not reproduced" and "it is contradicted" in found.sentence and found.chance < 0.05


def test_inconclusive_when_it_includes_zero() -> None:
    found = verdict(BELOW, *rows("base", 10, 10.1, 9.9), *rows("other", 11, 11.2, 10.8))
    assert found.verdict == "inconclusive" and found.chance > 0.05
    assert "decides nothing either way" in found.sentence


def test_not_run_lists_what_is_missing_and_keeps_what_is_there() -> None:
    found = verdict(BELOW, row("base", 10))
    assert found.verdict == "not run"
    assert found.missing == ['fd_judge["other"]'] and 'fd_judge["other"]' in found.sentence
    assert [r.run for r in found.numbers] == ["base"]


def test_seeds_that_disagree_make_a_claim_inconclusive() -> None:
    other = rows("other", 12, 12, 12, half=0.1)
    assert verdict(BELOW, *rows("base", 10, 10.2, 10.1, half=0.1), *other).verdict == "reproduced"
    assert verdict(BELOW, *rows("base", 6, 14, 10, half=0.1), *other).verdict == "inconclusive"


@pytest.mark.parametrize(("own", "other"), [(1, 1), (1, 3), (3, 1), (2, 2), (5, 2)])
def test_fewer_than_three_trainings_on_a_side_never_decide_whatever_the_pictures_say(own: int, other: int) -> None:
    given = [*rows("base", *[10.0] * own, half=1e-6), *rows("other", *[20.0] * other, half=1e-6)]
    found = verdict(BELOW, *given)
    assert found.verdict == UNDECIDED and found.chance == 1.0 and not found.stands
    fewest = "one training" if 1 in (own, other) else "2 trainings"
    assert f"A side has {fewest}, and another training would give another number" in found.sentence
    assert "that takes 3 a side" in found.sentence
    assert verdict(BELOW, *rows("base", 10, 10, 10), *rows("other", 20, 20, 20)).verdict == "reproduced"


def test_three_trainings_decide_with_other_seeds_on_each_side() -> None:
    other = [row("other", value, seed=seed) for seed, value in ((7, 20.1), (8, 19.9), (9, 20.0))]
    assert verdict(BELOW, *rows("base", 9.9, 10, 10.1), *other).verdict == "reproduced"


def test_the_order_of_seeds_and_rows_changes_nothing() -> None:
    given = [*rows("base", 10.3, 9.1, 11.7, half=0.3), *rows("other", 14.2, 12.9, 15.1, half=0.2)]
    groups = [
        Left(r.run, r.seed, r.metric, r.protocol, "p", f"{r.value - 0.1!r} {r.value + 0.15!r} {r.value - 0.05!r}")
        for r in given
    ]
    ratio = 'fd_judge["base"] / fd_judge["other"] < 0.9'
    for expect in (BELOW, ratio):
        wanted = verdict(expect, *given, groups=groups).as_json()
        for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 37):
            shuffled = [given[place] for place in order]
            assert verdict(expect, *shuffled, groups=groups[::-1]).as_json() == wanted


LOGS = 'log(fd_judge["base"]) < log(fd_judge["other"])'


def test_logarithms_compare_what_spreads_in_proportion_to_its_size() -> None:
    # Four times as large with every seed; but the larger one's spread hides that from a plain difference.
    given = [*rows("base", 0.5, 0.7, 0.9, half=0.01), *rows("other", 1.5, 3.0, 4.5, half=0.01)]
    assert verdict(BELOW, *given).verdict == "inconclusive"
    found = verdict(LOGS, *given)
    ratios = np.log([1.5 / 0.5, 3.0 / 0.7, 4.5 / 0.9])
    half = 4.302653 * ratios.std(ddof=1) / 3**0.5
    (margin,) = found.as_json()["comparisons"]
    assert margin["margin"] == pytest.approx(ratios.mean())
    assert margin["margin"] - margin["low"] == pytest.approx(half, rel=0.02)  # and a little of the pictures' own
    assert found.verdict == "reproduced"
    assert 'fd_judge["base"] = 0.68' in found.sentence and "by a factor of 4.0" in found.sentence
    (base, other) = found.as_json()["numbers"]
    assert base["value"] == pytest.approx(0.7) and other["value"] == pytest.approx(3.0)  # plain, as everywhere else
    assert verdict('log(fd_judge["base"]) > log(fd_judge["other"])', *given).verdict == "not reproduced"


def test_differences_of_logarithms_are_told_as_ratios() -> None:
    """How far one is ahead of another, here a factor of 4, and elsewhere, a factor of 2."""
    given = [*rows("a", 1.0, 1.1, 0.9, half=0.01), *rows("b", 4.0, 4.4, 3.6, half=0.01)]
    given += [*rows("c", 1.0, 1.1, 0.9, half=0.01), *rows("d", 2.0, 2.2, 1.8, half=0.01)]
    ahead, then = (f'log(fd_judge["{x}"]) - log(fd_judge["{y}"])' for x, y in ("ba", "dc"))
    found = verdict(f"{ahead} > {then}", *given)
    assert found.verdict == "reproduced"
    assert found.sentence.startswith('fd_judge["b"] / fd_judge["a"] = 4.0'), found.sentence
    assert 'should be above fd_judge["d"] / fd_judge["c"] = 2.0' in found.sentence
    assert "by a factor of 2.0" in found.sentence


def test_two_orders_agree_where_the_product_of_their_differences_is_above_zero() -> None:
    given = [*rows("a", 1.0, 1.1, 0.9, half=0.01), *rows("b", 4.0, 4.4, 3.6, half=0.01)]
    alike = [*rows("a", 2.0, 2.1, 1.9, half=0.01, metric="kid_judge")]
    alike += [*rows("b", 3.0, 3.2, 2.8, half=0.01, metric="kid_judge")]
    expect = '(fd_judge["a"] - fd_judge["b"]) * (kid_judge["a"] - kid_judge["b"]) > 0'
    found = verdict(expect, *given, *alike, number_from=None)
    assert found.verdict == "reproduced" and found.comparisons[0].margin.value == pytest.approx(3.0)


def test_a_number_that_has_no_logarithm_decides_nothing() -> None:
    found = verdict(LOGS, *rows("base", -0.1, 0.5, 0.5), *rows("other", 2, 2, 2))
    assert found.verdict == "inconclusive" and "logarithm" in found.sentence


def test_only_what_is_above_zero_has_a_logarithm() -> None:
    metrics = {"fd_judge", "fd_judge_unbiased", "kid_judge", "detail_64"}
    assert check_expression(LOGS, metrics, ["base", "other"])[0] == Reference("fd_judge", "base", log=True)
    check_expression('log(detail_64["base"]) < 1', metrics, ["base"])
    for metric in ("fd_judge_unbiased", "kid_judge"):
        with pytest.raises(ExpressionError, match=f"{metric} may be zero or less, and has no logarithm"):
            check_expression(f'log({metric}["base"]) < 1', metrics, ["base"])


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
    assert verdict(expect, *CLEAR).verdict == wanted


def test_what_no_training_changes_is_decided_by_one() -> None:
    given = [row(run, n, None, metric="parameters") for run, n in (("base", 5), ("other", 6))]
    found = verdict('parameters["base"] < parameters["other"]', *given)
    assert found.verdict == "reproduced" and found.chance < 1e-9
    assert "without an interval" not in found.sentence
    same = verdict('parameters["base"] < parameters["base"]', *given)
    assert same.verdict == "not reproduced"
    # Seconds of training have no interval either, but another training would take others.
    seconds = [row(run, n, None, metric="train_seconds") for run, n in (("base", 5), ("other", 6))]
    found = verdict('train_seconds["base"] < train_seconds["other"]', *seconds)
    assert found.verdict == UNDECIDED and "A number without an interval counts as exact." in found.sentence


def test_what_no_training_changes_may_have_other_seeds_on_each_side() -> None:
    given = [*rows("base", 5, 5, 5, half=None, metric="parameters"), row("other", 6, None, 7, "parameters")]
    for expect in ('parameters["base"] < parameters["other"]', 'parameters["other"] - parameters["base"] > 0'):
        assert verdict(expect, *given, number_from=None).verdict == "reproduced", expect


def test_division_by_a_measured_zero_is_inconclusive() -> None:
    found = verdict('fd_judge["base"] / fd_judge["other"] < 1', *rows("base", 1, 1, 1), *rows("other", 0, 0, 0))
    assert found.verdict == "inconclusive" and "zero" in found.sentence


@pytest.mark.parametrize(
    ("expect", "truth", "chance"),
    [
        # of `a < b`, `a < c` and `b < c` the first is undecided
        ("{ab} and {ac}", "inconclusive", "ab"),
        ("{ab} and {ca}", "not reproduced", "2 ac"),
        ("{ab} or {ca}", "inconclusive", "ab"),
        ("{ab} or {ac}", "reproduced", "2 ac"),
        ("{ac} and {bc}", "reproduced", "bc"),
        ("{ca} or {cb}", "not reproduced", "bc"),
        ("not ({ac} and {bc})", "not reproduced", "bc"),
    ],
)
def test_three_valued_logic_with_the_chance_of_its_answer(expect: str, truth: str, chance: str) -> None:
    """What needs all parts is as uncertain as the least certain of them; what needs one of two had two chances."""
    given = [*rows("a", 10, 10.1, 9.9), *rows("b", 10.5, 10.4, 10.9), *rows("c", 20, 20.2, 19.5)]
    single = {pair: verdict('fd_judge["{}"] < fd_judge["{}"]'.format(*pair), *given) for pair in ("ab", "ac", "bc")}
    assert {pair: v.verdict for pair, v in single.items()} == {
        "ab": "inconclusive", "ac": "reproduced", "bc": "reproduced",
    }  # fmt: skip
    assert single["ac"].chance < single["bc"].chance < 0.05 < single["ab"].chance
    words = {f"{x}{y}": f'fd_judge["{x}"] < fd_judge["{y}"]' for x, y in itertools.permutations("abc", 2)}
    found = verdict(expect.format(**words), *given)
    times, _, pair = chance.rpartition(" ")
    assert (found.verdict, found.chance) == (truth, pytest.approx(int(times or 1) * single[pair].chance))


def test_a_papers_number_is_compared_only_under_its_own_protocol() -> None:
    expect = 'fd_judge["base"] < 12.5'
    given = rows("base", 9.9, 10, 10.1)

    def became(number_from: str | None, standard: str | None, resize: str = "clean") -> Verdict:
        return judge("c", claim(expect, number_from), Evidence(study(standard, resize), given))

    assert became("own", None).verdict == "reproduced"
    assert became("coco-30k-one/clean", "coco-30k-one").verdict == "reproduced"
    assert became("coco-30k-one/tf1", "coco-30k-one", "tf1").verdict == "reproduced"
    for other in (
        ("coco-30k-one/tf1", "coco-30k-one"), ("coco-30k-one/clean", "coco-30k-one", "tf1"),
        ("coco-30k-drawn-all/clean", "coco-30k-one"), ("coco-30k-one/clean", None), ("None/clean", None),
    ):  # fmt: skip
        found = became(*other)
        assert found.verdict == NOT_COMPARABLE and found.chance == 1.0
        assert f"The number was measured under {other[0]}, ours under another protocol." in found.sentence
    unknown = became(None, "coco-30k-one")
    assert unknown.verdict == NOT_COMPARABLE and "a protocol that the claim does not name" in unknown.sentence


def test_that_a_number_cannot_be_compared_matters_more_than_how_often_was_trained() -> None:
    assert verdict('fd_judge["base"] < 12.5', row("base", 10), number_from=None).verdict == NOT_COMPARABLE
    assert verdict('fd_judge["base"] < 12.5', row("base", 10)).verdict == UNDECIDED


@pytest.mark.parametrize("expect", [BELOW, 'fd_judge["other"] - fd_judge["base"] > 0', '0 < fd_judge["base"]'])
def test_a_claim_without_a_number_needs_no_protocol_of_one(expect: str) -> None:
    assert verdict(expect, *CLEAR, number_from=None).verdict == "reproduced"


@pytest.mark.parametrize("expect", ['fd_judge["base"] - 12.5 < 0', '0 > (fd_judge["base"] - 12.5) / 2'])
def test_a_number_is_one_wherever_it_stands(expect: str) -> None:
    assert verdict(expect, *CLEAR, number_from=None).verdict == NOT_COMPARABLE


def test_holm_by_hand() -> None:
    # 0.005 * 4 = 0.02 and 0.01 * 3 = 0.03 stay below 0.05; 0.03 * 2 = 0.06 does not, and ends it for 0.04 too.
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == {"a", "d"}
    assert holm({"a": 0.02, "b": 0.03}) == {"a", "b"} and holm({"a": 0.03, "b": 0.03}) == set()
    assert holm({"a": 0.05}) == {"a"} and holm({"a": 0.051}) == set() and holm({}) == set()


def test_a_weak_verdict_does_not_stand_beside_others() -> None:
    """Of one claim it would; beside four that are open it is one of five chances."""
    close = (*rows("a", 10, 10.1, 9.9, half=1e-9), *rows("b", 10.4, 10.35, 10.4, half=1e-9))
    noisy = (*rows("x", 10, 14, 12), *rows("y", 12, 11, 14))
    weak = 'fd_judge["a"] < fd_judge["b"]'
    opens = {f"open{k}": 'fd_judge["x"] < fd_judge["y"]' for k in range(4)}

    def standing(**claims: str) -> list[Verdict]:
        made = study(**claims)
        return judge_all(made, Evidence(made, [*close, *noisy, row("once", 3)]))

    (alone,) = standing(weak=weak)
    assert alone.verdict == "reproduced" and 0.01 < alone.chance < 0.05 and alone.stands
    assert tally([alone]) == "1 reproduced (1 of the 1 decided after Holm's correction for 1 comparisons)"
    found = standing(weak=weak, **opens)
    assert [v.verdict for v in found] == ["reproduced", *["inconclusive"] * 4]
    assert not any(v.stands for v in found) and not found[0].as_json()["stands_after_holm"]
    assert tally(found) == "1 reproduced, 4 inconclusive (0 of the 1 decided after Holm's correction for 5 comparisons)"
    # What was not compared is no chance to be wrong.
    beside = standing(weak=weak, once='fd_judge["once"] < fd_judge["b"]', never='fd_judge["never"] < fd_judge["b"]',
                      number='fd_judge["a"] < 20')  # fmt: skip
    assert [v.verdict for v in beside] == ["reproduced", UNDECIDED, "not run", NOT_COMPARABLE] and beside[0].stands
    assert tally(beside[1:]) == "1 one training each: undecided, 1 not comparable, 1 not run"


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
        'log(2 * fd_judge["base"]) < 1',
        'log(fd_judge["base"], 10) < 1',
        'exp(fd_judge["base"]) < 1',
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
    verdicts = judge_all(study, read_evidence(study, sources.metrics_csv))
    assert {v.name: v.verdict for v in verdicts} == {
        "progressive": "reproduced", "nesting": "reproduced", "levels": UNDECIDED, "guidance": "not reproduced",
        "noise": "not run", "weaker": "inconclusive", "number": NOT_COMPARABLE,
    }  # fmt: skip
    assert {v.verdict for v in verdicts} == set(VERDICTS) - {NOT_REACHED}  # which its own test has
    written = write(study, sources.metrics_csv, tmp_path / "claims.json")
    assert written == verdicts
    stored = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [c["verdict"] for c in stored] == [v.verdict for v in verdicts]
    assert [c["p_value"] for c in stored] == [v.chance for v in verdicts]
    assert [c["stands_after_holm"] for c in stored] == [v.stands for v in verdicts]


def test_a_count_of_a_run_that_was_trained_once_hides_no_training() -> None:
    """Three trainings that differ by more than the runs do, times what each cost: pictures alone decide nothing."""
    given = [*rows("base", 1.0, 2.0, 0.6, half=0.05), *rows("other", 2.0, 1.1, 2.2, half=0.05)]
    counts = [*rows("base", *[6500.0] * 3, half=None, metric="train_gigaflops")]
    expect = 'fd_judge["base"] * train_gigaflops["base"] < fd_judge["other"] * train_gigaflops["{}"]'
    alike = verdict(expect.format("base"), *given, *counts)
    once = verdict(expect.format("once"), *given, *counts, row("once", 6500, None, metric="train_gigaflops"))
    assert once.verdict == alike.verdict == "inconclusive" and once.chance == pytest.approx(alike.chance)
    assert once.comparisons[0].margin.over == "trainings"


def test_an_equal_count_beside_a_clear_difference_changes_no_p_value() -> None:
    counts = [r for run in ("base", "other") for r in rows(run, *[6500.0] * 3, half=None, metric="train_images")]
    alone = verdict(BELOW, *CLEAR)
    both = verdict(f'{BELOW} and train_images["base"] <= train_images["other"]', *CLEAR, *counts)
    assert (both.verdict, both.chance) == (alone.verdict, alone.chance)


@pytest.mark.parametrize(("metric", "protocol", "wanted"), [
    ("fid", "p", "reproduced"), ("fid", "mine", NOT_COMPARABLE), ("fid_unbiased", "p", NOT_COMPARABLE),
])  # fmt: skip
def test_what_stands_against_a_papers_number_says_itself_how_it_was_measured(metric, protocol, wanted) -> None:
    """A claim may name another protocol inside its expression; and no paper removed the bias."""
    given = [replace(r, protocol=protocol) for r in rows("base", 9.9, 10, 10.1, metric=metric)]
    measured = study("coco-30k-one", "tf1")
    measured.protocols["mine"] = SimpleNamespace(standard=None, resize="clean")
    asked = claim(f'{metric}["base", "{protocol}"] < 12.5', "coco-30k-one/tf1")
    assert judge("c", asked, Evidence(measured, given)).verdict == wanted


def test_a_study_file_can_say_where_a_number_is_from() -> None:
    """As docs/settings.md and paper.yaml tell people to write it."""
    assert load("paper", {"claims.table-1-guided.number_from": "coco-30k-one/tf1"}).claims["table-1-guided"].number_from
    for wrong in ("coco-30k-one", "coco-30k-one/tf2", "coco-30k-on/tf1"):
        with pytest.raises(StudyError, match="number_from"):
            load("paper", {"claims.table-1-guided.number_from": wrong})


def test_one_of_several_comparisons_that_barely_holds_decides_nothing() -> None:
    """Four chances at p = 0.038 are one of 0.15: that verdict and its p-value would contradict each other."""
    given = [r for run in ("a", "b", "c", "d") for r in rows(run, 10, 10, 10, half=None)]
    given += rows("other", 11, 11.35, 10.65, half=None)
    single = 'fd_judge["{}"] < fd_judge["other"]'
    assert verdict(single.format("a"), *given).verdict == "reproduced"
    found = verdict(" or ".join(map(single.format, "abcd")), *given)
    assert found.verdict == "inconclusive" and found.chance == pytest.approx(4 * 0.0385, rel=0.01)


def test_a_term_without_real_pictures_takes_no_error_from_the_others() -> None:
    given = [*rows("base", 1, 1.1, 0.9), *rows("base", 0.5, 0.5, 0.5, metric="alignment")]
    groups = [
        Left(r.run, r.seed, r.metric, r.protocol, "p", f"{r.value - 0.1!r} {r.value + 0.1!r}",
             f"{r.value - 0.5!r} {r.value + 0.5!r}" if r.metric == "fd_judge" else "")
        for r in given
    ]  # fmt: skip
    alone, beside = (
        verdict(f'fd_judge["base"]{more} < 2', *given, groups=groups).comparisons[0].margin
        for more in ("", ' + 0.000001 * alignment["base"]')
    )
    assert beside.above == pytest.approx(alone.above, rel=1e-3)


@pytest.mark.parametrize(
    "expect",
    ['log(fd_judge["base"]) + 0.1 < log(fd_judge["other"])', 'log(fd_judge["base"]) < log(fd_judge["other"]) * 2'],
)
def test_only_two_plain_logarithms_are_shown_as_a_ratio(expect: str) -> None:
    sentence = verdict(expect, *CLEAR).sentence
    assert "factor" not in sentence and 'log(fd_judge["base"])' in sentence


def test_an_answer_that_had_several_chances_says_so() -> None:
    several = " or ".join(f'fd_judge["base"] < fd_judge["other"] - {k}' for k in (0, 9, 9.5))
    found = [
        verdict(several, *rows("base", 1, 1, 1, half=0.01), *rows("other", 1.5 - spread, 1.5, 1.5 + spread, half=0.01))
        for spread in np.linspace(0.05, 0.3, 26)
    ]
    alone = [v for v in found if v.verdict == "inconclusive" and any(c.holds for c in v.comparisons)]
    assert alone and all("each was a chance" in v.sentence for v in alone)
