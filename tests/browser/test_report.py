"""The report in a real browser: nothing fails, nothing is fetched, all is there, at every width and theme.

`MDM_REPORT=reports/index.html pytest -m browser` checks that page too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import chromium
import evaluate_artifacts
import pytest
import results_fixture as fixture

from mdm.evaluate.theory import draw_theory
from mdm.report.page import html

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(chromium.ABSENT), reason=chromium.ABSENT)]
GIVEN = os.environ.get("MDM_REPORT")
ON_REQUEST = ("copies", "theory")  # of studies that ask for them
OPTIONAL = ("literature",)  # of studies with a distance that papers have, too
SECTIONS = (
    "verdicts", "results", "figures", "samples", "ablations", "literature", "cost", "instruments",
    "provenance", "missing", "rerun",
)  # fmt: skip
PHONE, DESKTOP = (390, 844), (1400, 900)
OVERFLOWING = """
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll('body *')]
    .filter(e => e.checkVisibility() && !e.closest('.scroll') && !e.closest('pre') && !e.closest('.skip'))
    .filter(e => e.getBoundingClientRect().right > wide + 1).map(e => e.outerHTML.slice(0, 120));
"""
BRIGHTNESS = """
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  return (r + g + b) / 3;
"""
UNREADABLE = """
  const linear = x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = c => {
    const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(x => linear(x / 255));
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c.startsWith('rgb(')) return c; } return 'rgb(255, 255, 255)'; };
  const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const leaves = [...document.querySelectorAll('main *')]
    .filter(e => e.checkVisibility() && !e.closest('svg') && speaks(e));
  return leaves.map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [(a + .05) / (b + .05), e.textContent.trim().slice(0, 40)]; }).filter(x => x[0] < 4.5);
"""


@pytest.fixture(scope="module")
def chrome() -> Iterator[chromium.Browser]:
    with chromium.browser() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of the invented study."""
    root = tmp_path_factory.mktemp("reports")
    study = fixture.make_study()
    sources = fixture.write_tree(study, root, captions=(fixture.HOSTILE,))
    html.write_report(study, sources, root / "index.html")
    html.ablation_page(study, "no-progressive", sources, root / "ablations" / "no-progressive.html")
    return root


@pytest.fixture(params=["fixture", "given"])
def report(request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of the invented study's report and, if one is given, of a real one."""
    if request.param == "fixture":
        return (folder / "index.html").as_uri()
    if not GIVEN:
        pytest.skip("MDM_REPORT names no report")
    return Path(GIVEN).resolve(strict=True).as_uri()


def show(chrome: chromium.Browser, url: str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> None:
    """Open a page afresh, with empty logs and no remembered theme."""
    chrome.look(*size, dark)
    chrome.open("about:blank")
    chrome.console(), chrome.requests()
    chrome.open(url)


def test_no_console_message_and_no_outside_request(chrome: chromium.Browser, report: str) -> None:
    show(chrome, report)
    chrome.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    chrome.run("scrollTo(0, document.body.scrollHeight)")
    assert chrome.console() == []
    outside = [url for url in chrome.requests() if not url.startswith("data:") and url != report]
    assert outside == []


def test_all_sections_pictures_and_figures_are_there(chrome: chromium.Browser, report: str) -> None:
    show(chrome, report)
    shown = chrome.run("return [...document.querySelectorAll('main > section')].map(s => s.id)")
    left_out = {name for name in OPTIONAL if GIVEN and name not in shown}
    assert [name for name in shown if name not in ON_REQUEST] == [name for name in SECTIONS if name not in left_out]
    chrome.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"
    assert chrome.run(broken) == []
    assert chrome.run("return document.images.length") > 0 or GIVEN
    boxes = "return [...document.querySelectorAll('.drawing svg[role]')].map(s => s.getBoundingClientRect().height)"
    assert min(chrome.run(boxes)) > 20
    assert chrome.run("return document.querySelectorAll('figure.block > figcaption .provenance').length") >= 8


@pytest.mark.parametrize("size", [PHONE, (320, 640), (768, 1024), DESKTOP])
def test_nothing_overflows(chrome: chromium.Browser, report: str, size: tuple[int, int]) -> None:
    show(chrome, report, size)
    chrome.run("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    width, inner = chrome.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == size[0] and width <= inner
    assert chrome.run(OVERFLOWING) == []


def test_on_a_phone_the_main_table_is_cards_and_nothing_of_it_is_cut(chrome: chromium.Browser, report: str) -> None:
    show(chrome, report, PHONE)
    chrome.run("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    cut = """return [...document.querySelectorAll('.table .scroll:has(.stack)')]
      .filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.ariaLabel)"""
    assert chrome.run(cut) == []
    unlabelled = "return [...document.querySelectorAll('.stack tbody td:not([data-label]):not(.none)')].length"
    assert chrome.run(unlabelled) == 0


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_legends_show_all_their_entries(chrome: chromium.Browser, folder: Path, size: tuple[int, int]) -> None:
    show(chrome, (folder / "index.html").as_uri(), size)
    script = """return [...document.querySelectorAll('#figure-alignment .legend li')].map(e => {
      const box = e.getBoundingClientRect();
      return [e.textContent.trim(), box.right <= innerWidth && box.width > 30]; })"""
    shown = dict(chrome.run(script))
    assert {"base", "no-progressive", "guidance=6", "guessing", "judge on real pictures"} <= set(shown)
    assert all(shown.values())


def test_numbers_keep_their_units_and_names_stay_whole(chrome: chromium.Browser, folder: Path) -> None:
    show(chrome, (folder / "index.html").as_uri(), PHONE)
    chrome.run("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    broken = "return [...document.querySelectorAll('.whole')].filter(e => e.getClientRects().length > 1).length"
    assert chrome.run(broken) == 0 and chrome.run("return document.querySelectorAll('.whole').length") > 20
    assert chrome.run(r"return / \d+ (s|min|px)\b/.test(document.querySelector('.facts').textContent)") is False


def test_a_wide_table_scrolls_in_its_own_box(chrome: chromium.Browser, folder: Path) -> None:
    show(chrome, (folder / "index.html").as_uri(), PHONE)
    script = """const box = document.querySelector('#table-provenance .scroll'); box.scrollLeft = 50;
      return [box.scrollWidth > box.clientWidth, box.scrollLeft];"""
    assert chrome.run(script) == [True, 50]


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_follows_the_system_and_the_button(chrome: chromium.Browser, report: str, dark: bool) -> None:
    show(chrome, report, dark=dark)
    chrome.run("localStorage.clear()")
    chrome.reload()
    assert (chrome.run(BRIGHTNESS) < 60) == dark
    chrome.run("document.getElementById('theme').click()")
    assert (chrome.run(BRIGHTNESS) < 60) != dark
    chrome.reload()
    assert (chrome.run(BRIGHTNESS) < 60) != dark, "the choice is remembered"
    chrome.run("localStorage.clear()")


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(chrome: chromium.Browser, report: str, dark: bool) -> None:
    show(chrome, report, dark=dark)
    chrome.run("document.querySelectorAll('main details').forEach(d => { d.open = true; })")
    assert chrome.run(UNREADABLE) == []


def test_figures_follow_the_theme(chrome: chromium.Browser, folder: Path) -> None:
    ink = "return getComputedStyle(document.querySelector('.drawing svg text')).fill"
    show(chrome, (folder / "index.html").as_uri())
    light = chrome.run(ink)
    show(chrome, (folder / "index.html").as_uri(), dark=True)
    assert chrome.run(ink) != light


def test_hostile_captions_do_nothing(chrome: chromium.Browser, folder: Path) -> None:
    show(chrome, (folder / "index.html").as_uri())
    assert chrome.run("return window.hacked === undefined")
    assert "<script>window.hacked" in chrome.run("return document.querySelector('.prompts p').textContent")


def test_links_open_what_they_point_into(chrome: chromium.Browser, folder: Path) -> None:
    show(chrome, (folder / "index.html").as_uri() + "#samples-two-levels")
    assert chrome.run("return document.getElementById('samples-two-levels').open")
    dead = """return [...document.querySelectorAll('a[href^="#"]')]
      .filter(a => !document.getElementById(decodeURIComponent(a.hash.slice(1)))).map(a => a.hash)"""
    assert chrome.run(dead) == []


def test_it_prints(chrome: chromium.Browser, report: str) -> None:
    show(chrome, report, dark=True)
    assert chrome.pdf().startswith(b"%PDF")
    assert chrome.console() == []


def test_the_page_of_an_ablation(chrome: chromium.Browser, folder: Path) -> None:
    show(chrome, (folder / "ablations" / "no-progressive.html").as_uri(), PHONE)
    width, inner = chrome.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner and chrome.console() == [] and chrome.run(OVERFLOWING) == []
    assert chrome.run("return document.querySelectorAll('.side img').length") == 16


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_the_explanation_of_copying_fits(chrome: chromium.Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    study, results = fixture.make_study(), tmp_path / "results"
    data = evaluate_artifacts.scenes(results, 12, 8)
    recipe = evaluate_artifacts.put(
        results, "theory", "some", data=evaluate_artifacts.ref(data), num_images=12, sets=(12,), seed=0, resolution=8
    )
    draw_theory(recipe)
    study.theory = evaluate_artifacts.ref(recipe)
    html.write_report(study, fixture.write_tree(study, tmp_path), tmp_path / "index.html")
    show(chrome, (tmp_path / "index.html").as_uri(), size)
    assert chrome.run(OVERFLOWING) == [] and chrome.run(UNREADABLE) == [] and chrome.console() == []
    broken = "return [...document.querySelectorAll('#theory img')].filter(i => !i.naturalWidth).length"
    assert chrome.run(broken) == 0
