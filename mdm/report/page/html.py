"""The report: one self-contained page that asks nothing of a network, and one page per ablation."""

import base64
import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from mdm.config import StudyError, nearest
from mdm.files.atomic import write_atomic
from mdm.report import collect, reaches
from mdm.report.page import provenance
from mdm.report.page.page import Page, Sources, hero
from mdm.report.quantity import Quantity
from mdm.study.study import Study
from mdm.study.study_file import LITERATURE

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 6_000_000
# Prompts shown of the first run and of the others; the next pair is tried when the page would be too large.
GALLERY_SIZES = ((8, 6), (8, 4), (6, 2), (4, 1), (2, 0))
COMPARED_PROMPTS = 8


UNITS = re.compile(r"(?<=\d) (?=(?:s|min|h|k|M|G|px|%|pictures)\b|%)")
HYPHENED = re.compile(r"(?<![\w/.&-])[a-z0-9]+(?:-[a-z0-9]+)+(?![\w/.-]*[/\w])")


def prose(text: str) -> Markup:
    """Words whose line breaks keep a number with its unit and a hyphenated name whole; everything escaped."""
    tied = UNITS.sub("\u00a0", str(text))
    # Names hold no characters that escaping changes, so they can be found in the escaped text.
    return Markup(HYPHENED.sub(r'<span class="whole">\g<0></span>', str(escape(tied))))


def render(template: str, context: dict[str, Any]) -> str:
    """The page with its style and script inlined; that script is allowed by its hash and no other is."""
    css, script = ((TEMPLATES / name).read_text() for name in ("report.css", "report.js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"css": Markup(css), "script": Markup(script), "script_hash": script_hash}  # our own two files
    # Autoescape is always on: names and captions come from outside.
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"prose": prose, "trainings": provenance.trainings}
    templates.filters["value"] = lambda x: x.text() if isinstance(x, Quantity) else str(x)
    return templates.get_template(template).render(**own, **context)


def write(study: Study, results: Path, out: Path, ablation: str | None = None) -> list[str]:
    """Write the page of a study, or of one ablation, from whatever is finished; return what is missing."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = Sources(results, Path(scratch, "metrics.csv"), Path(scratch, "missing.json"), LITERATURE)
        _, missing = collect.write(study, results, sources.metrics_csv, sources.missing_json)
        if study.reaches:
            reaches.write(study, results, sources.metrics_csv.with_name(reaches.REACHES))
        if ablation:
            ablation_page(study, ablation, sources, out)
        else:
            write_report(study, sources, out)
    return [entry["artifact"] for entry in missing]


def write_report(study: Study, sources: Sources, out: Path) -> None:
    """Write the page of a study with as many pictures as fit the page's budget."""
    page = Page(study, sources)
    context = page.report()
    for first_count, other_count in GALLERY_SIZES:
        galleries = page.galleries(first_count, other_count)
        text = render("report.html.j2", context | {"galleries": galleries, "hero": hero(galleries)})
        if len(text.encode()) <= MAX_BYTES:
            break
    write_atomic(out, text)


def ablation_page(study: Study, name: str, sources: Sources, out: Path) -> None:
    if name not in study.ablations:
        raise StudyError(f"the study '{study.name}' has no ablation '{name}'; {nearest(name, study.ablations)}")
    write_atomic(out, render("ablation.html.j2", Page(study, sources).ablation_report(name, COMPARED_PROMPTS)))
