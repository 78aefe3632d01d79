"""What the pages show, gathered once from a study and its files; the templates only lay it out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from mdm.config.recipe import SamplesRecipe
from mdm.files import artifact
from mdm.files.atomic import read_json
from mdm.report.collect import Artifacts
from mdm.report.evidence import read_evidence
from mdm.report.figures import ablation as figure_ablation  # fmt: skip
from mdm.report.figures import draw as figures
from mdm.report.figures import gallery, legend, style
from mdm.report.figures import guidance as figure_guidance
from mdm.report.page import audits, previews, provenance, theory
from mdm.report.tables import instruments, tables
from mdm.report.verdicts import VERDICTS, judge_all, tally
from mdm.study.products import figure_names, sampled_runs, table_names
from mdm.study.study import Study, group_members

CAPTIONS = {
    "training-curves": (
        "Training curves",
        "Loss of each level against training pictures (left) and wall-clock seconds (right), stages of a run "
        "joined; paler lines are further seeds. Losses of a level compare between runs that give it the same "
        "noise schedule. A validation loss is measured on the same few pictures, times and noises for every run and "
        "hangs on those with much noise: bars at the ends of stages hold 95 % of such measurements with other noises.",
    ),
    "along-training": (
        "Along training",
        "What the averaged weights score on their way, against all pictures, arithmetic and seconds of training up to "
        "there, those of earlier stages among them; the last point is the end. A line is the mean over trainings, its "
        "band Student's 95 % interval over them; a run that was trained once has none. Dotted: real pictures by the "
        "same instrument. Where numbers span a decade, axes are logarithmic. Seconds belong to the machine named.",
    ),
    "excess-loss": (
        "Loss beyond the optimum",
        "Mean squared distance of the networks' clean pictures from those of the best denoiser that the training set "
        "allows, by ln(SNR) of the unshifted schedule: much noise is left. Captions are empty. A line is the mean over "
        "trainings, its band Student's 95 % interval over them; dotted: what even the best denoiser loses.",
    ),
    "emm": (
        "Copies by number of training pictures",
        "Share of drawn pictures that copy a training picture. A line is the mean over trainings, its band Student's "
        "95 % interval over them; dotted, the level up to which a set counts as copied. Hollow points, where "
        "there are any, were published for networks of another size: their shape may be compared, not their place.",
    ),
    "guidance": ("Guidance", ""),
    "alignment": (
        "Alignment by factor",
        "Share of pictures in which the judge network reads what the caption asked for, with 95 % intervals; "
        "solid line: the judge on real pictures, dotted line: guessing.",
    ),
}
WORDS = {"better": ", better", "worse": ", worse", "unclear": ", not distinguishable from no change", "": ""}


@dataclass(frozen=True)
class Sources:
    results: Path
    metrics_csv: Path
    missing_json: Path
    literature_csv: Path


@dataclass(frozen=True)
class FigureView:
    name: str
    title: str
    caption: str
    svg: Markup
    legend: list[legend.Entry]
    provenance: str


@dataclass(frozen=True)
class TableView:
    """A table ready for the page; `labels` are the titles of runs."""

    table: tables.Table
    provenance: str
    labels: dict[str, str]


class Page:
    """Everything here is a function of the study and its files: equal inputs, equal page."""

    def __init__(self, study: Study, sources: Sources) -> None:
        self.study, self.sources = study, sources
        self.artifacts = Artifacts(sources.results)
        self.evidence = read_evidence(study, sources.metrics_csv)
        self.made = provenance.records(study, self.artifacts)
        self.labels = {name: self.evidence.label(name) for name in self.evidence.run_names}
        self.protocol = self.evidence.protocol()

    def line(self, runs: list[str] | None = None, protocol: str | None = None) -> str:
        """The provenance line of something made from these runs (None: all)."""
        return provenance.line(self.study, self.made, runs, protocol or self.protocol)

    def table(self, name: str) -> TableView:
        sources = self.sources
        built = tables.build(self.study, name, self.evidence, sources.results, sources.literature_csv)
        return TableView(built, self.line(), self.labels)

    def figure(self, name: str, words: tuple[str, str], draw: Callable[[], Figure], line: str) -> FigureView:
        """A figure drawn anew, so that it can follow the page's theme."""
        with style.drawing(name):
            drawn = draw()
            entries = legend.taken(drawn)
            svg = style.themed(style.as_svg(drawn), name, ". ".join(words))
        return FigureView(name, *words, Markup(svg), entries, line)  # our own SVG: matplotlib escapes its words

    def figures(self) -> list[FigureView]:
        """The figures that concern all runs."""
        made = []
        for name in figure_names(self.study):
            title, caption = self._words(name)
            if not title:
                continue
            if name == "guidance":  # depends on what the study measures
                said = [figure_guidance.caption(self.study), figure_guidance.summary(self.evidence, self.artifacts)]
                said += instruments.clip_notes(self.evidence, self.artifacts)
                caption = " ".join(filter(None, said))
            words = (title, caption)
            draw = lambda name=name: figures.draw(name, self.evidence, self.artifacts)  # noqa: E731
            made.append(self.figure(name, words, draw, self.line()))
        return made

    def _words(self, name: str) -> tuple[str, str]:
        """Title and caption of a figure that concerns all runs, or a group's curves; empty of others."""
        if name.startswith("curves-"):
            title = f"Along training: {self.study.groups[name.removeprefix('curves-')]}"
            return title, "The same for the runs of these ablations and those that they are compared with."
        return CAPTIONS.get(name, ("", ""))

    def galleries(self, first_count: int, other_count: int) -> list[dict[str, Any]]:
        """Pictures of each run; the study's first run shows the most prompts."""
        found = []
        for place, name in enumerate(sampled_runs(self.study)):
            run, count = self.evidence.runs[name], other_count if place else first_count
            samples = gallery.samples_of(run, self.protocol)
            recipe = self.artifacts.recipe(samples, SamplesRecipe)
            found.append({
                "run": name, "label": self.labels[name], "first": not place, "samples": samples,
                "prompts": gallery.prompts(self.artifacts, run, self.protocol, count),
                "sampler": sampler_text(recipe), "provenance": self.line([name]),
            })  # fmt: skip
        return found

    def ablation(self, name: str, compare: int = 0) -> dict[str, Any]:
        """Everything about one ablation; `compare` prompts are shown side by side for all its runs."""
        entry, own = self.study.ablations[name], self.evidence.runs_of(name)
        runs = [entry.against, *own]
        table = tables.ablation_table(self.evidence, entry.group, name)
        line = self.line(runs, self.evidence.protocol_of(own))
        words = (entry.title, f"Each run with its 95 % interval; the band is the run compared with, {entry.against}.")
        figure = self.figure(
            f"ablation-{name}", words, lambda: figure_ablation.draw(self.evidence, entry.group, name), line
        )
        return {
            "name": name, "entry": entry, "runs": own, "figure": figure, "findings": findings(table),
            "table": TableView(table, line, {}), "comparison": self.comparison(runs, compare),
            "changes": {run: tables.changed_settings(self.evidence.runs[run].settings_diff) for run in own},
        }  # fmt: skip

    def comparison(self, runs: list[str], count: int) -> list[dict[str, Any]]:
        """The same prompts drawn by several runs, highest level only; [] unless two have pictures."""
        found = {}
        for run in runs if count else []:
            rows = gallery.prompts(self.artifacts, self.evidence.runs[run], self.protocol, count, top_only=True)
            if rows:
                found[run] = {row.id: row for row in rows}
        if len(found) < 2:
            return []
        first = next(iter(found.values()))
        return [
            {"caption": row.caption, "pictures": [(r, p[row.id].pictures[0]) for r, p in found.items() if row.id in p]}
            for row in first.values()
        ]

    def common(self, runs: list[str] | None = None) -> dict[str, Any]:
        """What both kinds of page show, for these runs (None: all)."""
        missing = read_json(self.sources.missing_json)["missing"]
        made = [r for r in self.made if runs is None or r.run in runs]
        return {
            "study": self.study, "made": made, "protocol": self.protocol,
            "missing": [m for m in missing if runs is None or m["run"] in runs],
            "commits": provenance.distinct([*(r.commit for r in made if r.done), *self._measuring_commits(runs)]),
            "source": provenance.commit_text(artifact.provenance()["git"]),
        }  # fmt: skip

    def _measuring_commits(self, runs: list[str] | None) -> list[str]:
        """The source that drew and measured, which may be another than the one that trained."""
        chosen = [run for run in self.study.runs if runs is None or run.name in runs]
        refs = [ref for run in chosen for e in run.measurements for ref in (e.samples, e.features, e.scores)]
        refs += [ref for run in chosen for ref in run.numbers]  # audits, and the loss beyond the optimum
        found = [(self.artifacts.json(ref, "manifest.json") or {}).get("git") for ref in dict.fromkeys(refs)]
        return [provenance.commit_text(git) for git in found if git]

    def report(self) -> dict[str, Any]:
        verdicts = judge_all(self.study, self.evidence)
        groups = {g: [self.ablation(n) for n in names] for g, names in group_members(self.study).items()}
        shown = set(table_names(self.study))
        tables_of_all = ("main", "metrics", "alignment", "literature", "cost", "audit", "emm", "reaches")
        named = {name: self.table(name) if name in shown else None for name in tables_of_all}
        commits = provenance.full_commits(self.study, self.artifacts)
        return self.common() | named | {
            "verdicts": verdicts, "counts": {v: sum(x.verdict == v for x in verdicts) for v in VERDICTS},
            "tally": tally(verdicts),
            "facts": provenance.facts(self.study, self.made, len(self.evidence.rows)),
            "figures": self.figures(), "groups": groups, "commands": provenance.commands(self.study, commits),
            "instruments": instruments.survey(self.evidence, self.artifacts),
            "measured": instruments.protocols(self.evidence, self.artifacts),
            "previews": previews.grids(self.study, self.artifacts), "theory": self.theory(),
            "worst_pairs": audits.views(self.evidence, self.artifacts),
        }  # fmt: skip

    def theory(self) -> dict[str, Any] | None:
        """Why the optimum copies, for studies that ask."""
        if not self.study.theory:
            return None
        line = f"study {self.study.name} · {self.study.theory}"
        draw = lambda: figures.draw("theory", self.evidence, self.artifacts)  # noqa: E731
        drawn = self.figure("theory", (theory.TITLE, theory.CAPTION), draw, line)
        return {"view": theory.explainer(self.study, self.artifacts), "figure": drawn, "provenance": line}

    def ablation_report(self, name: str, compare: int) -> dict[str, Any]:
        ablation = self.ablation(name, compare)
        commits = provenance.full_commits(self.study, self.artifacts)
        own = {"ablation": ablation, "commands": provenance.commands(self.study, commits, name)}
        return self.common([ablation["entry"].against, *ablation["runs"]]) | own


def hero(galleries: list[dict[str, Any]], count: int = 6) -> list[dict[str, Any]]:
    """A strip of the first run's pictures at the highest level."""
    first = [(p.pictures[-1], p.caption) for p in galleries[0]["prompts"][:count]] if galleries else []
    return [{"uri": top.uri, "resolution": top.resolution, "caption": caption} for top, caption in first]


def findings(table: tables.Table) -> list[str]:
    """What changed, a sentence per run of the ablation."""
    titles = {column.key: column.title.rstrip(" ↓↑\u00a0") for column in table.columns}
    sentences = []
    for row in table.rows:
        changes = {k: row[k] for k in titles if k.endswith("_change") and k in row}
        words = [f"{titles[k.removesuffix('_change')]} {c.shown}{WORDS[c.mark]}" for k, c in changes.items()]
        sentences += [f"{row['run'].text}: {'; '.join(words)}."] if words else []
    return sentences


def sampler_text(recipe: SamplesRecipe | None) -> str:
    """`ddim, 50 steps, guidance 2, seed 0`; "" before the pictures are planned."""
    if recipe is None:
        return ""
    sample = recipe.sample
    return f"{sample.sampler}, {sample.steps} steps, guidance {sample.guidance:g}, seed {recipe.seed}"
