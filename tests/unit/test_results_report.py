"""The page as text: self-contained, escaped, complete, deterministic, and honest when parts are missing."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import results_fixture as fixture

from mdm.files.atomic import write_json
from mdm.report.page import html
from mdm.report.verdicts import NOT_REACHED, VERDICTS

SECTIONS = (
    "verdicts", "results", "figures", "samples", "ablations", "literature", "cost", "instruments",
    "provenance", "missing", "rerun",
)  # fmt: skip
VOID = {"meta", "link", "img", "br", "rect", "path", "use"}


class Tags(HTMLParser):
    """Collects elements, and proves that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.elements if a.get("id")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("page")
    study = fixture.make_study()
    html.write_report(study, fixture.write_tree(study, root, captions=(fixture.HOSTILE,)), root / "index.html")
    return (root / "index.html").read_text()


def test_sections_are_there_in_order_and_listed(page: str) -> None:
    tags = Tags(page)
    assert not tags.open
    ids = tags.ids()
    assert [i for i in ids if i in SECTIONS] == list(SECTIONS)
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in tags.elements if tag == "a" and (a.get("href") or "").startswith("#")}
    assert targets <= set(ids) and set(SECTIONS) <= targets


def test_nothing_comes_from_outside(page: str) -> None:
    tags = Tags(page)
    for tag, attributes in tags.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, key, value[:60])
    style = page[page.index("<style>") : page.index("</style>")]
    assert "@import" not in style and "url(" not in style
    assert "default-src 'none'" in page


def test_verdicts_are_counted_and_coloured_and_holm_is_said(page: str) -> None:
    shown = page[page.index('id="verdicts"') : page.index('id="results"')]
    for verdict in (verdict for verdict in VERDICTS if verdict != NOT_REACHED):  # the fixture has no curves
        look = verdict.replace(":", "").replace(" ", "-")
        assert f'class="verdict {look}">{verdict}<' in shown and f'class="verdict {look}"><b>' in shown
    assert "over at least three trainings a side" in shown and "Student over the seeds" in shown
    assert re.search(r"Several claims are several chances to be wrong: 2 reproduced, .*Holm", shown)


def test_hostile_captions_stay_text(page: str) -> None:
    assert "&lt;script&gt;window.hacked" in page and "<script>window.hacked" not in page
    tags = Tags(page)
    assert sum(tag == "script" for tag, _ in tags.elements) == 1
    assert not any(key.startswith("on") for _, attributes in tags.elements for key in attributes)


def test_hostile_titles_stay_text(tmp_path: Path) -> None:
    study = fixture.make_study(fixture.HOSTILE)
    study.runs = [replace(run, label=fixture.HOSTILE) for run in study.runs]
    study.groups = dict.fromkeys(study.groups, fixture.HOSTILE)
    study.ablations = {k: replace(a, title=fixture.HOSTILE) for k, a in study.ablations.items()}
    sources = fixture.write_tree(study, tmp_path)
    html.write_report(study, sources, tmp_path / "index.html")
    html.ablation_page(study, "guidance", sources, tmp_path / "ablation.html")
    for name in ("index.html", "ablation.html"):
        tags = Tags((tmp_path / name).read_text())
        assert sum(tag == "script" for tag, _ in tags.elements) == 1


def test_every_table_and_figure_has_a_caption_and_provenance(page: str) -> None:
    for figure in re.findall(r'<figure class="block[^"]*".*?</figcaption>', page, flags=re.DOTALL):
        assert "<figcaption>" in figure and 'class="provenance"' in figure
    assert page.count("recipe digest f1c2d3e4a5b6") > 10
    assert fixture.COMMIT in page and "data/scenes-train-5ca1ab1e0000" in page


def test_the_same_inputs_make_the_same_page(page: str, tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path, captions=(fixture.HOSTILE,))
    html.write_report(study, sources, tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text() == page


def test_partial_results_make_a_partial_report(page: str, tmp_path: Path) -> None:
    assert "Partial report." in page and "train/r256-" in page[page.index('id="missing"') :]
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path, absent=tuple(fixture.INVENTED))
    html.write_report(study, sources, tmp_path / "none.html")
    nothing = (tmp_path / "none.html").read_text()
    assert "Nothing to draw yet" in nothing and "not run" in nothing and not Tags(nothing).open
    sources = fixture.write_tree(study, tmp_path, absent=())
    html.write_report(study, sources, tmp_path / "all.html")
    everything = (tmp_path / "all.html").read_text()
    assert "Partial report." not in everything and "Every run of the study is trained" in everything


def test_a_study_without_a_judge_has_no_word_of_one(tmp_path: Path) -> None:
    # Before, own.yaml's report told that no run has been judged, and of a Fréchet distance that nothing measures.
    study = fixture.make_study(judge=None)
    study.claims, study.question = {}, ""
    html.write_report(study, fixture.write_tree(study, tmp_path, absent=()), tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    shown = page[page.index('id="results"') :]
    for word in ("Nothing to draw yet", "judge", "Fréchet", "Alignment"):
        assert word not in shown, shown[shown.index(word) - 200 :][:400]
    tags = Tags(page)
    assert not tags.open and "literature" not in tags.ids() and "figure-guidance" in tags.ids()
    targets = {a["href"][1:] for tag, a in tags.elements if tag == "a" and (a.get("href") or "").startswith("#")}
    assert targets <= set(tags.ids())


def test_a_changed_source_is_said(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    path = sources.results / study.runs[0].stages[0].artifact / "manifest.json"
    path.write_text(path.read_text().replace('"dirty": false', '"dirty": true'))
    html.write_report(study, sources, tmp_path / "index.html")
    assert "made with uncommitted changes" in (tmp_path / "index.html").read_text()


def test_the_page_names_the_source_that_measured_and_the_one_that_wrote_it(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    scores = sources.results / study.runs[0].evaluations[0].scores
    write_json(scores / "manifest.json", {"git": {"commit": "fedcba9876543210", "dirty": True}})
    html.write_report(study, sources, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert "0123456789, fedcba9876 + uncommitted changes" in text and "this page was written at" in text


def test_the_guidance_caption_says_what_was_measured(page: str) -> None:
    caption = page[page.index('id="figure-guidance"') :]
    caption = caption[: caption.index("</figure>")]
    assert "highest at weight 6, Fréchet distance (judge) lowest at 4" in caption
    assert "caption out of 100 in 62" in caption and "coarse agreement" in caption


def test_an_empty_study_has_a_page(tmp_path: Path) -> None:
    study = fixture.make_study()
    study.ablations, study.groups, study.claims, study.protocols = {}, {}, {}, {}
    study.runs = [replace(run, evaluations=[]) for run in study.runs[:1]]
    sources = fixture.write_tree(study, tmp_path, absent=("base",))
    html.write_report(study, sources, tmp_path / "index.html")
    assert "The study states no claim." in (tmp_path / "index.html").read_text()


def test_the_page_stays_within_its_budget(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(page.encode()) < html.MAX_BYTES
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path, captions=(fixture.HOSTILE,))
    monkeypatch.setattr(html, "MAX_BYTES", len(page.encode()) - 1)
    html.write_report(study, sources, tmp_path / "small.html")
    assert (tmp_path / "small.html").read_text().count("<img") < page.count("<img")


def test_ablation_page_shows_question_diff_result_and_pictures(tmp_path: Path) -> None:
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    html.ablation_page(study, "no-progressive", sources, tmp_path / "ablations" / "no-progressive.html")
    text = (tmp_path / "ablations" / "no-progressive.html").read_text()
    assert study.ablations["no-progressive"].question in text
    assert "<del>3 stages</del>" in text and "<ins>1 stage</ins>" in text
    assert "Fréchet distance (judge) +" in text and "Same prompts, same noise" in text
    assert "snakemake --cores all no-progressive --config study=fixture" in text
    with pytest.raises(ValueError, match="no ablation 'nonsense'"):
        html.ablation_page(study, "nonsense", sources, tmp_path / "x.html")


def test_the_room_needs_no_torch() -> None:
    code = "import sys, mdm.report.page.html, mdm.report.figures.draw; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
