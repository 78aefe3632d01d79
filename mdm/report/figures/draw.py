"""The figures of a study by name, as SVG and PNG: equal numbers give equal bytes. One module each."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from mdm.files.atomic import write_atomic
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence, read_evidence
from mdm.report.figures import ablation as figure_ablation
from mdm.report.figures import alignment as figure_alignment
from mdm.report.figures import along_training as figure_along_training
from mdm.report.figures import emm as figure_emm
from mdm.report.figures import excess_loss as figure_excess_loss
from mdm.report.figures import gallery, style
from mdm.report.figures import guidance as figure_guidance
from mdm.report.figures import theory as figure_theory
from mdm.report.figures import training_curves as figure_training_curves
from mdm.study.products import figure_names
from mdm.study.study import Study

FIGURES: dict[str, Callable[[Evidence, Artifacts], Figure]] = {
    "training-curves": figure_training_curves.draw,
    "along-training": figure_along_training.draw,
    "excess-loss": figure_excess_loss.draw,
    "emm": figure_emm.draw,
    "guidance": figure_guidance.draw,
    "alignment": figure_alignment.draw,
    "theory": figure_theory.draw,
}


def write(study: Study, name: str, metrics_csv: Path, results: Path, out: Path) -> list[Path]:
    """Write one figure into a folder and return its files (`samples-RUN` is a PNG only)."""
    if name not in figure_names(study):
        raise ValueError(f"there is no figure {name!r}; the study has {', '.join(figure_names(study))}")
    evidence, artifacts = read_evidence(study, metrics_csv), Artifacts(results)
    if name.startswith("samples-"):
        path = Path(out) / f"{name}.png"
        write_atomic(path, gallery.sheet(evidence, artifacts, name.removeprefix("samples-")))
        return [path]
    with style.drawing(name):
        drawn = draw(name, evidence, artifacts)
        files = {"svg": style.as_svg(drawn), "png": style.as_png(drawn)}
        for extension, content in files.items():
            write_atomic(Path(out) / f"{name}.{extension}", content)
    return [Path(out) / f"{name}.{extension}" for extension in files]


def draw(name: str, evidence: Evidence, artifacts: Artifacts) -> Figure:
    """The matplotlib figure of a name, inside `style.drawing`."""
    if name.startswith("ablation-"):
        return figure_ablation.draw(evidence, name.removeprefix("ablation-"))
    if name.startswith("curves-"):
        return figure_along_training.draw(evidence, artifacts, name.removeprefix("curves-"))
    return FIGURES[name](evidence, artifacts)
