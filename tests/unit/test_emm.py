"""Up to how many training pictures a network copies them: interpolation, claims from trainings, and its figure."""

import math

import pytest

from mdm.config import StudyError
from mdm.files.atomic import write_json
from mdm.report import collect, emm
from mdm.report.collect import Artifacts
from mdm.report.crossing import ABOVE, BELOW, Crossing, Place, comparable, crossing
from mdm.report.evidence import read_evidence
from mdm.report.figures import draw
from mdm.report.page import html
from mdm.report.verdicts import judge_all
from mdm.study import products, study


def of(*shares, level=0.9):
    """Shares at 1000, 2000, ... pictures."""
    return crossing([Place(1000 * (k + 1), share) for k, share in enumerate(shares)], level)


def test_the_published_number_of_cifar():
    """Gu et al. (2023): 92.0 % at 1k and 61.0 % at 2k are said to be 1.07k, to three digits by a line 1.065k."""
    found = of(0.92, 0.61)
    assert found.last == found.first == pytest.approx(1064.5, abs=0.1)


def test_the_last_crossing_counts_and_the_first_is_told():
    found = of(0.95, 0.85, 0.95, 0.45)
    assert (found.first, found.last) == (pytest.approx(1500), pytest.approx(3100))


@pytest.mark.parametrize(
    ("shares", "last", "first"),
    [
        ((0.5, 0.2), BELOW, BELOW),
        ((0.99, 0.95), ABOVE, ABOVE),
        ((0.95, 0.85, 0.95), ABOVE, 1500),
        ((0.9, 0.9), ABOVE, ABOVE),
        ((0.9, 0.8), 1000, 1000),
        ((0.8, 0.95, 0.85), 2500, 2500),
    ],
)
def test_nothing_is_guessed_outside_of_the_grid(shares, last, first):
    found = of(*shares)
    assert (found.last, found.first) == (pytest.approx(last), pytest.approx(first))
    assert (found.low is None) == math.isinf(found.last)


def test_its_interval_follows_from_those_of_both_ends():
    found = crossing([Place(1000, 0.95, 0.02), Place(2000, 0.75, 0.03)], 0.9)
    # By small differences.
    shift = 1e-6
    slopes = [
        (of(0.95 + shift, 0.75).last - of(0.95, 0.75).last) / shift,
        (of(0.95, 0.75 + shift).last - of(0.95, 0.75).last) / shift,
    ]
    assert (found.high - found.low) / 2 == pytest.approx(math.hypot(0.02 * slopes[0], 0.03 * slopes[1]), rel=1e-3)


SIZES = (64, 128, 256)
WORLD = {"split": "train", "seed": 1, "resolution": 32, "max_objects": 2}


def grid(**changes):
    """A study whose ablation `size` has three more data sets, and `wide` has the same with another network."""
    sets = {f"data.few-{n}": {"source": "scenes", "settings": {**WORLD, "num_images": n}} for n in SIZES}
    ablation = {
        "title": "Size", "question": "How many?", "group": "training", "sweep": {"data": [f"few-{n}" for n in SIZES]},
        "protocols": ["zero-shot"],
    }  # fmt: skip
    wide = {**ablation, "set": {"model.time_channels": 128}}
    return {
        **sets, "ablations.size": ablation, "ablations.wide": wide, "audit": {}, "seeds": [0, 1, 2],
        "emm": {
            "narrow": {"runs": ["size"], "metric": "copied_32", "targets": [[100, 95], [200, 40]], "source": "a paper"},
            "wide": {"runs": [f"wide=few-{n}" for n in SIZES], "metric": "copied_32", "title": "Wider"},
        },
        "claims.progressive.expect": 'emm["narrow"] < emm["wide"]',
    } | changes  # fmt: skip


def told(loaded, results, shares):
    """Audits whose shares are a function of run and seed, in place of measured ones."""
    for run in loaded.runs:
        for stage in run.stages:
            write_json(results / stage.artifact / "manifest.json", {"seconds": 1.0, "gigaflops": 1.0})
        for audit in run.audits:
            share = shares(run.name, run.seed)
            row = {"value": share, "low": share - 0.02, "high": share + 0.02, "n": 48, "without": [share] * 20}
            names = ("copied_32", "copied_16", "authentic_32")
            metrics = [{"metric": name, **row} for name in names]
            write_json(results / audit.artifact / "audit.json", {"metrics": metrics, "levels": []})
    collect.write(loaded, results, results / "metrics.csv", results / "missing.json")
    return read_evidence(loaded, results / "metrics.csv")


def falling(run, seed):
    size = int(run.rpartition("-")[2]) if "few" in run else 512
    return max(0.0, 1.0 - size / (2000 if run.startswith("wide") else 1000) - 0.005 * seed)


def test_claims_compare_curves_by_their_trainings(tmp_path):
    loaded = study.load("quick", grid())
    assert loaded.emm["narrow"].sizes == {f"size=few-{n}": n for n in SIZES}
    evidence = told(loaded, tmp_path, falling)
    # 1 - N/1000 is a line already: 100, 95 and 90 pictures for the three seeds.
    rows = [row for row in evidence.rows if row.metric == "emm" and row.run == "narrow"]
    assert [(row.seed, row.value) for row in rows] == [(k, pytest.approx(100 - 5 * k)) for k in range(3)]
    (verdict,) = judge_all(loaded, evidence)
    assert verdict.verdict == "reproduced", verdict.sentence
    assert [len(q.seeds) for q in verdict.numbers.values()] == [3, 3]
    one = study.load("quick", grid(seeds=[0]))
    (verdict,) = judge_all(one, told(one, tmp_path / "one", falling))
    assert verdict.verdict == "one training each: undecided"


def test_a_curve_may_be_called_like_a_run(tmp_path):
    changes = grid()
    changes["emm"]["base"] = changes["emm"].pop("narrow")
    loaded = study.load("quick", changes | {"claims.progressive.expect": 'emm["base"] < emm["wide"]'})
    (verdict,) = judge_all(loaded, told(loaded, tmp_path, falling))
    assert verdict.verdict == "reproduced", verdict.sentence


def test_a_training_outside_of_the_grid_decides_nothing(tmp_path):
    loaded = study.load("quick", grid())
    shares = lambda run, seed: 0.99 if run.startswith("wide") and seed == 1 else falling(run, seed)  # noqa: E731
    (verdict,) = judge_all(loaded, told(loaded, tmp_path, shares))
    assert verdict.verdict == "inconclusive"
    assert 'emm["wide"] lies outside of its grid, above the numbers of pictures' in verdict.sentence
    assert "for seed 1" in verdict.sentence


def steep(run, _seed):
    """Whatever the network: up to 100 pictures are copied, more are not."""
    return 1.0 if "few" in run and int(run.rpartition("-")[2]) <= 100 else 0.0


def test_one_curve_measured_at_other_sizes_is_no_other_curve(tmp_path):
    changes = grid()
    changes["emm"]["wide"]["runs"] = ["wide=few-64", "wide=few-256"]
    loaded = study.load("quick", changes | {"claims.progressive.expect": 'emm["narrow"] < emm["wide"]'})
    (verdict,) = judge_all(loaded, told(loaded, tmp_path, steep))
    assert verdict.verdict == "inconclusive"
    assert "trained on different numbers of pictures" in verdict.sentence


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ((1, 2), (1, 2), True),
        ((1, 2), (2, 4), True),
        ((1, 2), (4, 8), True),
        ((1, 2), (1, 4), False),
        ((2, 4), (1, 3), False),
    ],
)
def test_stretches_that_compare(one, other, wanted):
    mine, theirs = ([Crossing(1.0, 1.0, None, None, place)] for place in (one, other))
    assert comparable(mine, theirs) is comparable(theirs, mine) is wanted
    assert comparable(mine, [Crossing(ABOVE, ABOVE, None, None)])


def test_files_figure_and_page(tmp_path):
    loaded = study.load("quick", grid())
    evidence = told(loaded, tmp_path, falling)
    assert "emm" in products.figure_names(loaded) and "emm.csv" in products.number_names(loaded)
    emm.write(loaded, evidence.rows, tmp_path / "emm.csv")
    head, *lines = (tmp_path / "emm.csv").read_text().splitlines()
    assert head == "name,seed,metric,level,num_images,share,half,emm_last,emm_first" and len(lines) == 2 * 3 * 3
    files = draw.write(loaded, "emm", tmp_path / "metrics.csv", tmp_path, tmp_path)
    text = files[0].read_text()
    assert "Wider" in text and "narrow, a paper" in text
    with draw.style.drawing("emm"):
        bare = study.load("quick", grid())
        nothing = collect.write(bare, tmp_path / "none", tmp_path / "none.csv", tmp_path / "none.json")[0]
        assert nothing == []
        empty = draw.draw("emm", read_evidence(bare, tmp_path / "none.csv"), Artifacts(tmp_path / "none"))
        assert "Nothing to draw yet" in empty.texts[0].get_text()
    html.write(loaded, tmp_path, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "Copies by number of training pictures" in page and 'id="table-audit"' in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emm.narrow.runs": ["size", "sise"]}, "emm.narrow.runs: there is no 'sise'"),
        ({"emm.narrow.metric": "copied_64"}, "emm.narrow.metric: nothing measures 'copied_64'"),
        ({"emm.narrow.metric": "authentic_32"}, "authentic_32 is no share of copies, which falls"),
        ({"emm.narrow.runs": ["base", "guidance=4.0"]}, "must differ in their number of training pictures"),
        ({"emm.narrow.runs": ["base"]}, "must differ in their number of training pictures, and have base 512"),
        ({"emm.narrow.source": ""}, "targets and source belong together"),
        ({"emm.narrow.metric": "copied_max_32"}, "has no snapshots that would tell"),
        ({"claims.progressive.expect": 'emm["narow"] < 3'}, "unknown curve of emm 'narow'.*did you mean 'narrow'"),
        ({"claims.progressive.expect": 'emm["base"] < 3'}, "unknown curve of emm 'base'"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    changed = grid()
    for path, value in changes.items():
        if path.startswith("emm."):
            changed["emm"][path.split(".")[1]][path.split(".")[2]] = value
        else:
            changed[path] = value
    with pytest.raises(StudyError, match=message):
        study.load("quick", changed)
