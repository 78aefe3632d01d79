"""What a study will produce, known before anything ran and without importing anything heavy."""

from pathlib import Path

from mdm.study.study import Study, group_members
from mdm.study.study_file import ROOT

CODE = ROOT / "mdm" / "report"
LINES = 6  # of one figure that are told apart at a glance: as many as there are colours
# What makes each part of the results, as patterns in that folder.
MADE_BY = {
    "numbers": (
        "audited.py",
        "autoencoders.py",
        "collect.py",
        "crossing.py",
        "curves.py",
        "emm.py",
        "evidence.py",
        "excess.py",
        "metrics.py",
        "quantity.py",
        "reaches.py",
    ),
    "tables": ("tables/*.py",),
    "figures": ("figures/style.py", "theory.py"),
    "pictures": ("figures/gallery.py",),
    "claims": ("verdicts.py", "comparisons.py", "../study/claims.py"),
    "page": ("page/*.py", "page/templates/*", "theory.py"),
}


def home(folder: str | Path, study: Study) -> Path:
    """Return where `results` or `reports` keep what belongs to one study only; artifacts are shared by all."""
    return Path(folder, "studies", study.name)


def sampled_runs(study: Study) -> list[str]:
    """Return the runs with pictures to show, in the study's order."""
    return list(dict.fromkeys(run.name for run in study.runs if run.evaluations))


def instruments(study: Study) -> set[str]:
    """Return the measuring networks of the first protocol, which the report shows: judge, clip, inception."""
    first = next(iter(study.protocols.values()), None)
    return {name for name in ("judge", "clip", "inception") if getattr(first, name, None)}


def has_distance(study: Study) -> bool:
    """Return whether a Fréchet distance is measured; a CLIP model alone gives none."""
    return bool(instruments(study) & {"judge", "inception"})


def has_agreement(study: Study) -> bool:
    """Return whether it is measured that pictures show what was asked for."""
    return bool(instruments(study) & {"judge", "clip"})


def has_curves(study: Study) -> bool:
    """Return whether runs are measured along their training."""
    return any(run.points for run in study.runs)


def curve_groups(study: Study) -> list[str]:
    """Return the groups of ablations whose curves have a figure of their own: one figure holds few lines."""
    followed = {run.name for run in study.runs if run.points}
    if len(followed) <= LINES:
        return []
    return [group for group, names in group_members(study).items() if followed & _curves_of(study, names)]


def _curves_of(study: Study, ablations: list[str]) -> set[str]:
    return {run for name in ablations for run in study.ablations[name].runs}


def runs_of_group(study: Study, group: str) -> list[str]:
    """Return the runs of a group's ablations and what they are compared with, in the study's order."""
    members = group_members(study)[group]
    wanted = _curves_of(study, members) | {study.ablations[name].against for name in members}
    return list(dict.fromkeys(run.name for run in study.runs if run.name in wanted))


def has_reaches(study: Study) -> bool:
    """Return whether claims ask how early runs are as good as others."""
    return bool(study.reaches)


def has_excess(study: Study) -> bool:
    """Return whether the loss beyond the optimum is measured."""
    return any(run.excess for run in study.runs)


def has_audit(study: Study) -> bool:
    """Return whether copies of training pictures are looked for."""
    return any(run.audits for run in study.runs)


def has_emm(study: Study) -> bool:
    """Return whether it is asked up to how many training pictures runs copy them."""
    return bool(study.emm)


def has_theory(study: Study) -> bool:
    """Return whether the report explains why the optimum copies."""
    return study.theory is not None


def number_names(study: Study) -> list[str]:
    """Return the files that numbers are collected in, before tables and figures are made of them."""
    files = (("curves.csv", has_curves), ("excess.csv", has_excess), ("emm.csv", has_emm), ("reaches.csv", has_reaches))
    more = [name for name, asked in files if asked(study)]
    return ["metrics.csv", "groups.csv", "missing.json", *more]


def table_names(study: Study) -> list[str]:
    """Return every table that the study's measurements can fill; each is written as .csv, .md and .tex."""
    alignment = ["alignment"] if "judge" in instruments(study) else []
    literature = ["literature"] if has_distance(study) else []
    audit = [name for name, asked in (("audit", has_audit), ("emm", has_emm)) if asked(study)]
    return [
        "main",
        *alignment,
        "metrics",
        *audit,
        *(["reaches"] if has_reaches(study) else []),
        "cost",
        *literature,
        *(f"ablation-{g}" for g in group_members(study)),
    ]


def figure_names(study: Study) -> list[str]:
    """Return every figure that the measurements can fill: .svg and .png, but `samples-RUN` is a .png only."""
    guidance = ["guidance"] if instruments(study) else []
    alignment = ["alignment"] if "judge" in instruments(study) else []
    optional = (("along-training", has_curves), ("excess-loss", has_excess), ("theory", has_theory), ("emm", has_emm))
    more = [name for name, asked in optional if asked(study)]
    curves = [f"curves-{group}" for group in curve_groups(study)]
    drawn = [
        "training-curves",
        *more[:1],
        *curves,
        *more[1:],
        *guidance,
        *alignment,
        *(f"ablation-{g}" for g in group_members(study)),
    ]
    return drawn + [f"samples-{run}" for run in sampled_runs(study)]


def figure_files(study: Study) -> list[str]:
    return [
        f"{name}.{extension}"
        for name in figure_names(study)
        for extension in (("png",) if name.startswith("samples-") else ("svg", "png"))
    ]


def foreign_pages(study: Study, reports: str | Path) -> list[Path]:
    """Return published pages of ablations that another study has and this one has not."""
    return sorted(page for page in Path(reports, "ablations").glob("*.html") if page.stem not in study.ablations)


def figure_module(figure: str) -> Path:
    """Return the file that draws a figure: editing it redraws that figure and no other."""
    kind = figure.partition("-")[0]
    module = {"ablation": "ablation", "samples": "gallery", "curves": "along_training"}.get(
        kind, figure.replace("-", "_")
    )
    return CODE / "figures" / f"{module}.py"


def code(*parts: str) -> list[Path]:
    """Return the files of mdm/report that make these parts of it: editing one makes the parts again."""
    return sorted({path for part in parts for pattern in MADE_BY[part] for path in CODE.glob(pattern)})
