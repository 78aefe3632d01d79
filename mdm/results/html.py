"""The report: one self-contained page that asks nothing of a network, and one page per ablation."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mdm.manifest import read_json, write_atomic
from mdm.results import figures, gallery, provenance, style, tables
from mdm.results.claims import VERDICTS, judge_all
from mdm.results.collect import Artifacts, Evidence, read_metrics
from mdm.results.instruments import survey
from mdm.results.names import sampled_runs, used_groups
from mdm.results.quantity import Quantity
from mdm.results.rerun import commands

TEMPLATES = Path(__file__).parent / "templates"
MAX_BYTES = 6_000_000
# Prompts shown of the base run and of the others; the next pair is tried when the page would be too large.
GALLERY_SIZES = ((8, 6), (8, 4), (6, 2), (4, 1), (2, 0))
CAPTIONS = {
    "training-curves": ("Training curves", "Loss of each level against training pictures (left) and wall-clock seconds "
                        "(right), stages of a run joined; paler lines are further seeds. A level's loss can be compared "
                        "between runs that give it the same noise schedule."),
    "guidance": ("Guidance", "Agreement with the caption against the Fréchet distance; each point is one guidance weight "
                 "(its number), bars are 95 % intervals. Up and to the left is better."),
    "alignment": ("Alignment by factor", "Share of pictures in which the judge network reads what the caption asked for, "
                  "with 95 % intervals; solid line: the judge's accuracy on real pictures, dotted line: guessing."),
}  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """The files a report is made from."""

    results: Path
    metrics_csv: Path
    missing_json: Path
    literature_csv: Path


@dataclass(frozen=True)
class FigureView:
    """A figure ready for the page."""

    name: str
    title: str
    caption: str
    svg: Markup
    provenance: str


@dataclass(frozen=True)
class TableView:
    """A table ready for the page."""

    table: tables.Table
    provenance: str
    labels: dict[str, str]


class Page:
    """Collects what the templates show; everything here is a function of the study and its files."""

    def __init__(self, study: Any, sources: Sources) -> None:
        self.study, self.sources = study, sources
        self.artifacts = Artifacts(sources.results)
        self.evidence = Evidence(study, read_metrics(sources.metrics_csv))
        self.made = provenance.records(study, self.artifacts)
        self.labels = {name: self.evidence.label(name) for name in self.evidence.run_names}
        self.protocol = self.evidence.protocol()

    def line(self, runs: list[str] | None = None) -> str:
        return provenance.line(self.study, self.made, runs, self.protocol)

    def table(self, name: str) -> TableView:
        built = tables.build(
            self.study, name, self.evidence, self.sources.results, self.sources.literature_csv
        )
        return TableView(built, self.line(), self.labels)

    def figure(
        self, name: str, title: str, caption: str, draw: Callable[[], Any], runs: list[str] | None = None
    ) -> FigureView:
        with style.drawing(name):
            svg = style.themed(style.as_svg(draw()), name, f"{title}. {caption}")
        return FigureView(name, title, caption, Markup(svg), self.line(runs))

    def figures(self) -> list[FigureView]:
        return [
            self.figure(
                name, *CAPTIONS[name], lambda name=name: figures.draw(name, self.evidence, self.artifacts)
            )
            for name in CAPTIONS
        ]

    def galleries(self, base_count: int, other_count: int) -> list[dict[str, Any]]:
        """Pictures of each run; the first run of the study opens the row and shows the most prompts."""
        shown = []
        for index, name in enumerate(sampled_runs(self.study)):
            run = self.evidence.runs[name]
            rows = gallery.prompts(
                self.artifacts, run, self.protocol, base_count if index == 0 else other_count
            )
            recipe = self.artifacts.json(gallery.samples_of(run, self.protocol), "recipe.json") or {}
            shown.append({"run": name, "label": self.labels[name], "prompts": rows, "first": index == 0,
                          "sampler": sampler_text(recipe), "samples": gallery.samples_of(run, self.protocol),
                          "provenance": self.line([name])})  # fmt: skip
        return shown

    def ablation(self, name: str, compare: int = 0) -> dict[str, Any]:
        """Everything about one ablation; `compare` prompts are shown side by side for all its runs."""
        entry = self.study.ablations[name]
        runs = [r for r in self.evidence.run_names if self.evidence.runs[r].ablation == name]
        table = tables.ablation_table(self.evidence, entry.group, name)
        figure = self.figure(
            f"ablation-{name}", entry.title, f"Main metrics of each run with 95 % intervals; the band is the run compared with, {entry.against}.",
            lambda: figures.ablation_group(self.evidence, entry.group, name), [entry.against, *runs],
        )  # fmt: skip
        return {"name": name, "entry": entry, "runs": runs, "table": TableView(table, self.line([entry.against, *runs]), self.labels),
                "figure": figure, "changes": {r: self.evidence.runs[r].settings_diff for r in runs},
                "findings": findings(table), "comparison": self.comparison([entry.against, *runs], compare)}  # fmt: skip

    def comparison(self, runs: list[str], count: int) -> list[dict[str, Any]]:
        """The same prompts drawn by several runs, highest level only."""
        found = {
            r: gallery.prompts(self.artifacts, self.evidence.runs[r], self.protocol, count, top_only=True)
            for r in runs
        }
        found = {r: prompts for r, prompts in found.items() if prompts} if count else {}
        if len(found) < 2:
            return []
        first = next(iter(found.values()))
        return [
            {"caption": prompt.caption,
             "pictures": [(run, p[i].pictures[0]) for run, p in found.items() if i < len(p) and p[i].id == prompt.id]}
            for i, prompt in enumerate(first)
        ]  # fmt: skip

    def common(self) -> dict[str, Any]:
        """What both kinds of page show."""
        missing = read_json(self.sources.missing_json)["missing"]
        return {"study": self.study, "made": self.made, "missing": missing, "labels": self.labels, "protocol": self.protocol,
                "facts": provenance.facts(self.study, self.made, len(self.evidence.rows)),
                "commits": provenance.distinct(r.commit for r in self.made if r.done)}  # fmt: skip

    def report(self, base_count: int, other_count: int) -> str:
        """The whole page with so many pictures."""
        verdicts = judge_all(self.study, self.evidence)
        groups = {
            g: [self.ablation(n) for n, a in self.study.ablations.items() if a.group == g]
            for g in used_groups(self.study)
        }
        galleries = self.galleries(base_count, other_count)
        return render("report.html.j2", self.common() | {
            "verdicts": verdicts, "counts": {v: sum(x.verdict == v for x in verdicts) for v in VERDICTS},
            "main": self.table("main"), "figures": self.figures(), "alignment": self.table("alignment"),
            "galleries": galleries, "groups": groups, "literature": self.table("literature"), "cost": self.table("cost"),
            "metrics": self.table("metrics"), "instruments": survey(self.evidence, self.artifacts),
            "hero": hero(galleries), "commands": commands(self.study, provenance.full_commits(self.study, self.artifacts)),
        })  # fmt: skip


def hero(galleries: list[dict[str, Any]]) -> list[dict[str, str]]:
    """A strip of the first run's pictures at the highest level."""
    first = galleries[0]["prompts"][:6] if galleries else []
    return [{"uri": prompt.pictures[-1].uri, "caption": prompt.caption} for prompt in first]


def findings(table: tables.Table) -> list[str]:
    """Each difference of an ablation as a sentence."""
    sentences = []
    for row in table.rows:
        for column in table.columns:
            cell = row.get(column.key)
            if column.key.endswith("_change") and cell is not None and cell.quantity is not None:
                title = next(c.title for c in table.columns if c.key == column.key.removesuffix("_change"))
                verdict = {
                    "better": "better",
                    "worse": "worse",
                    "unclear": "not distinguishable from no change",
                }
                ending = f": {verdict[cell.mark]}" if cell.mark else ""
                sentences.append(f"{row['run'].text}: {title.rstrip(' ↓↑')} {cell.shown}{ending}.")
    return sentences


def sampler_text(recipe: dict[str, Any]) -> str:
    """`ddim, 50 steps, guidance 2, seed 0`."""
    sample = recipe.get("sample")
    if not sample:
        return ""
    return f"{sample['sampler']}, {sample['steps']} steps, guidance {sample['guidance']:g}, seed {recipe['seed']}"


def environment() -> Environment:
    """Templates with autoescape always on: names and captions come from outside."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["trainings"] = provenance.trainings
    made.filters["value"] = lambda x: x.text() if isinstance(x, Quantity) else str(x)
    return made


def render(template: str, context: dict[str, Any]) -> str:
    """The page with its style and script inlined; the script is allowed by its hash and nothing else is."""
    css, script = ((TEMPLATES / name).read_text() for name in ("report.css", "report.js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"css": Markup(css), "script": Markup(script), "script_hash": script_hash}
    return environment().get_template(template).render(**own, **context)


def write_report(study: Any, sources: Sources, out: Path) -> None:
    """Write reports/index.html with as many pictures as fit the page's budget."""
    page = Page(study, sources)
    for base_count, other_count in GALLERY_SIZES:
        text = page.report(base_count, other_count)
        if len(text.encode()) <= MAX_BYTES:
            break
    write_atomic(out, text)


def ablation_page(study: Any, name: str, sources: Sources, out: Path) -> None:
    """Write reports/ablations/NAME.html."""
    if name not in study.ablations:
        raise ValueError(
            f"there is no ablation {name!r}; the study has {', '.join(study.ablations) or 'none'}"
        )
    page = Page(study, sources)
    runs = [study.ablations[name].against, *(r.name for r in study.runs if r.ablation == name)]
    context = page.common() | {
        "ablation": page.ablation(name, compare=8),
        "made": [r for r in page.made if r.run in runs],
    }
    context["missing"] = [m for m in context["missing"] if m["run"] in runs]
    lines = commands(study, provenance.full_commits(study, page.artifacts), name)
    write_atomic(out, render("ablation.html.j2", context | {"commands": lines}))
