"""What a study will produce, known before anything ran and without importing anything heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mdm.study import group_members


def home(folder: str | Path, study: Any) -> Path:
    """Where `results` or `reports` keep what belongs to one study only; artifacts are shared by all."""
    return Path(folder, "studies", study.name)


def sampled_runs(study: Any) -> list[str]:
    """Runs with pictures to show, in the study's order."""
    return list(dict.fromkeys(run.name for run in study.runs if run.evaluations))


def table_names(study: Any) -> list[str]:
    """Every table; each is written as .csv, .md and .tex."""
    return [
        "main",
        "alignment",
        "metrics",
        "cost",
        "literature",
        *(f"ablation-{g}" for g in group_members(study)),
    ]


def figure_names(study: Any) -> list[str]:
    """Every figure: .svg and .png, except `samples-RUN`, which is a .png."""
    drawn = ["training-curves", "guidance", "alignment", *(f"ablation-{g}" for g in group_members(study))]
    return drawn + [f"samples-{run}" for run in sampled_runs(study)]


def figure_files(study: Any) -> list[str]:
    """File names of every figure."""
    return [
        f"{name}.{extension}"
        for name in figure_names(study)
        for extension in (("png",) if name.startswith("samples-") else ("svg", "png"))
    ]


def foreign_pages(study: Any, reports: str | Path) -> list[Path]:
    """Published pages of ablations that another study has and this one has not."""
    return sorted(page for page in Path(reports, "ablations").glob("*.html") if page.stem not in study.ablations)


def figure_module(figure: str) -> str:
    """The file that draws a figure: editing it redraws that figure and no other."""
    kind = figure.partition("-")[0]
    special = {"ablation": "figure_ablation.py", "samples": "gallery.py"}
    return special.get(kind) or f"figure_{figure.replace('-', '_')}.py"
