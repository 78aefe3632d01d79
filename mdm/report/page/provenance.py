"""Where every number comes from: artifacts, commit, data, device and time, and the commands that make it again."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mdm.config.recipe import StageRecipe
from mdm.config.units import duration, large
from mdm.report.collect import Artifacts
from mdm.study.runs import Run, Stage
from mdm.study.study import Study


@dataclass(frozen=True)
class StageRecord:
    run: str
    seed: int
    stage: str
    artifact: str
    resolutions: str
    images: int
    done: bool
    seconds: float | None
    device: str
    commit: str
    data: str
    parent: str

    @property
    def time(self) -> str:
        return duration(self.seconds) if self.seconds is not None else "—"


def records(study: Study, artifacts: Artifacts) -> list[StageRecord]:
    """One record per run, seed and stage; stages that are not trained yet keep dashes."""
    return [_record(run, stage, artifacts) for run in study.runs for stage in run.stages]


def _record(run: Run, stage: Stage, artifacts: Artifacts) -> StageRecord:
    manifest = artifacts.json(stage.artifact, "manifest.json")
    made = manifest or {}
    recipe = artifacts.recipe(stage.artifact, StageRecipe)
    return StageRecord(
        run.name, run.seed, stage.name, stage.artifact, _levels(stage),
        stage.num_images, manifest is not None, made.get("seconds"), str(made.get("device", "—")),
        commit_text(made.get("git") or {}), _data(recipe), (recipe and recipe.parent) or "—",
    )  # fmt: skip


def _levels(stage: Stage) -> str:
    """The levels, innermost first; an upsampler's one level, and the side of the pictures that it enlarges."""
    enlarges = f" from {stage.base.resolutions[-1]}" if stage.base else ""
    return " → ".join(map(str, stage.resolutions)) + enlarges


def _data(recipe: StageRecipe | None) -> str:
    """What a stage was trained on: pictures, or their codes by an autoencoder."""
    if recipe is None:
        return "—"
    return f"{recipe.data} by {recipe.latents.autoencoder}" if recipe.latents else recipe.data


def trainings(made: list[StageRecord]) -> list[tuple[StageRecord, list[str]]]:
    """Each training once, with the runs that use it."""
    runs: dict[str, list[str]] = {}
    for record in made:
        runs.setdefault(record.artifact, []).append(record.run)
    first = {record.artifact: record for record in reversed(made)}
    return [(first[artifact], list(dict.fromkeys(names))) for artifact, names in runs.items()]


def commit_text(git: dict[str, Any]) -> str:
    """A short commit, marked when the source had been changed."""
    commit = git.get("commit")
    if not commit:
        return "unknown"
    return commit[:10] + (" + uncommitted changes" if git.get("dirty") else "")


def distinct(values: Iterable[str]) -> str:
    """The different values in order of appearance, dashes left out."""
    return ", ".join(dict.fromkeys(v for v in values if v not in ("—", ""))) or "—"


def full_commits(study: Study, artifacts: Artifacts) -> list[str]:
    """Whole commit hashes of the training stages, for the commands that repeat the study."""
    manifests = (artifacts.json(s.artifact, "manifest.json") or {} for run in study.runs for s in run.stages)
    return list(dict.fromkeys(c for m in manifests if (c := (m.get("git") or {}).get("commit"))))


def line(study: Study, made: list[StageRecord], runs: Iterable[str] | None = None, protocol: str | None = None) -> str:
    """The provenance line under a table or figure."""
    chosen = set(runs) if runs is not None else None
    mine = [r for r in made if (chosen is None or r.run in chosen) and r.done]
    if not mine:
        return f"study {study.name} · recipe digest {study.digest} · nothing of this has been trained yet"
    seconds = sum({r.artifact: r.seconds or 0.0 for r in mine}.values())
    seeds = distinct(str(seed) for seed in sorted({r.seed for r in mine}))
    parts = [f"study {study.name}", f"recipe digest {study.digest}", f"commit {distinct(r.commit for r in mine)}"]
    parts += [distinct(r.data for r in mine), f"seeds {seeds}"]
    if protocol:
        parts.append(f"protocol {protocol} ({study.protocols[protocol].num_images} pictures)")
    return " · ".join([*parts, f"device {distinct(r.device for r in mine)}", f"training time {duration(seconds)}"])


def facts(study: Study, made: list[StageRecord], rows: int) -> list[tuple[str, str]]:
    stages = {r.artifact: r for r in made}
    done = [r for r in stages.values() if r.done]
    return [
        ("Runs", f"{len(dict.fromkeys(r.name for r in study.runs))}"),
        ("Trainings done", f"{len(done)} of {len(stages)}"),
        ("Pictures trained on", large(sum(r.images for r in done)) if done else "—"),
        ("Training time", duration(sum(r.seconds or 0.0 for r in done)) if done else "—"),
        ("Numbers measured", f"{rows:,}"),
        ("Device", distinct(r.device for r in done)),
    ]


def commands(study: Study, commits: list[str], target: str = "all") -> list[tuple[str, str]]:
    """The commands that repeat the study or one ablation of it exactly, each after what it does."""
    config = shlex.join(study.call.snakemake)
    source = [("the source these numbers were made with", f"git checkout {commits[0]}")] if len(commits) == 1 else []
    return [
        *source,
        ("install the locked packages", "pip install -r requirements.lock -e ."),
        ("on this machine", f"snakemake --cores all {target} --config {config}"),
        ("on a SLURM cluster", f"snakemake --profile slurm {target} --config {config}"),
        ("what would run, and what it would cost", f"python -m mdm plan {study.call.mdm}"),
    ]
