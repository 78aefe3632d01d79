"""docs/paper.md: every entry that it names exists, and nothing of the paper's studies is missing from it."""

import re

import pytest
from repository import ROOT

from mdm.study import study

PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"`(paper|imagenet|laptop|baselines)/([a-z0-9][^`]*)`")
NAMED = [(name, entry) for name, entry in ENTRY.findall(PAGE)]


def entries(loaded):
    """All that the page may name: runs, ablations, protocols and claims."""
    return {*(run.name for run in loaded.runs), *loaded.ablations, *loaded.protocols, *loaded.claims}


@pytest.mark.parametrize("name", sorted({name for name, _ in NAMED}))
def test_every_entry_that_the_page_names_exists(name):
    named = {entry for study_name, entry in NAMED if study_name == name}
    assert named - entries(study.load(name)) == set()


@pytest.mark.parametrize("name", ["paper", "imagenet", "baselines"])
def test_nothing_of_the_papers_studies_is_missing(name):
    loaded, named = study.load(name), {entry for study_name, entry in NAMED if study_name == name}
    runs = {run.name: {run.name, run.ablation} for run in loaded.runs}
    assert [run for run, words in runs.items() if not words & named] == []
    own = set(loaded.protocols) - {"zero-shot"}  # the laptop study's
    assert {*loaded.claims, *own} - named == set()


def rows(text):
    """The cells of the lines of tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]


def test_verdicts_in_small_are_those_of_the_readme():
    verdicts = {
        cells[0]: cells[1] for cells in rows((ROOT / "README.md").read_text(encoding="utf-8")) if len(cells) > 1
    }
    sentences = rows(PAGE.partition("## Sentences")[2])
    told = [(claim, cells[-1]) for cells in sentences for name, claim in ENTRY.findall(cells[-2]) if name == "laptop"]
    assert len(told) == 5 and [(claim, said) for claim, said in told if said != f"in small: {verdicts[claim]}"] == []


def test_verdicts_of_the_baselines_are_those_of_their_page():
    published = {cells[0]: cells[1] for cells in rows((ROOT / "docs" / "baselines.md").read_text(encoding="utf-8"))}
    claims = study.load("baselines").claims
    told = {}
    for cells in rows(PAGE.partition("## Sentences")[2]):
        names = [claim for name, claim in ENTRY.findall(cells[-2]) if name == "baselines"]
        words = cells[-1].removeprefix("in small: ").split("; ")
        told |= dict(zip(names, words, strict=True)) if names else {}
    told |= dict(re.findall(r"`baselines/([a-z-]+)` \((reproduced|inconclusive)\)", PAGE))
    assert set(told) == set(claims)
    assert told == {name: published[claim.statement] for name, claim in claims.items()}


def test_every_row_has_a_state_and_no_planned_run_has_a_verdict():
    tables = rows(PAGE.partition("## Tables")[2])
    assert {len(cells) for cells in tables} == {4, 5}
    states = ("planned", "in small", "not ", "listed", "rebuilt", "---", "state")
    assert [cells for cells in tables if not cells[-2].startswith(states)] == []
    ran = [c for c in tables if c[-1].startswith("in small") and not re.search("`(laptop|baselines)/", c[-2])]
    assert ran == []
