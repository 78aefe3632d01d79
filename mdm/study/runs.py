"""The parts of a study: its runs and their stages, its ablations and claims, and how it was asked for."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Any

from mdm.config.sizes import Size


@dataclass(frozen=True)
class Stage:
    name: str
    artifact: str
    resolutions: tuple[Size, ...]  # of what it draws
    num_images: int
    base: Stage | None = None  # of an upsampler: the stage that draws what it enlarges
    latents: tuple[str, ...] = ()  # the autoencoder whose codes it is trained on, and these codes

    @property
    def chain(self) -> list[Stage]:
        """The stages that draw one after the other until this one has drawn; most are alone."""
        return [*(self.base.chain if self.base else []), self]


@dataclass(frozen=True)
class Evaluation:
    """The artifacts of one run under one protocol; only samples where it compares its pictures with nothing."""

    protocol: str
    samples: str
    features: str | None = None
    reference: str | None = None
    scores: str | None = None
    lows: tuple[str, ...] = ()  # of a cascade: what its bases drew, smallest first

    @property
    def last(self) -> str:
        """The artifact with which everything of this evaluation is there."""
        return self.scores or self.samples


@dataclass(frozen=True)
class Point:
    """A moment of a run's training, and what measures it there."""

    stage: str
    images: int  # of this stage
    weights: str  # the artifact that holds them: a snapshot, or the stage itself at its end
    evaluation: Evaluation


@dataclass(frozen=True)
class Audit:
    """The artifact that says which pictures, drawn at a moment of a run's training, are copies."""

    artifact: str
    stage: str
    images: int  # of this stage
    protocol: str
    twin: str | None = None  # what another run drew from the same noises


@dataclass(frozen=True)
class Run:
    """One recipe with one seed: the base, an ablation, or one case or value of it."""

    name: str
    seed: int
    label: str
    ablation: str | None
    value: Any
    settings_diff: dict[str, tuple[Any, Any]]
    stages: list[Stage]
    evaluations: list[Evaluation]
    points: list[Point] = field(default_factory=list)
    excess: str | None = None  # the artifact that says how far its last stage is from the optimum
    audits: list[Audit] = field(default_factory=list)

    @property
    def audit(self) -> Audit | None:
        """That of its end; none where the protocol of the audit draws nothing of it."""
        end = (self.stages[-1].name, self.stages[-1].num_images)
        return next((audit for audit in self.audits if (audit.stage, audit.images) == end), None)

    @property
    def numbers(self) -> list[str]:
        """The artifacts that hold what is measured of it, beside its stages."""
        measured = [evaluation.last for evaluation in self.measurements]
        return [*measured, *filter(None, [self.excess]), *(audit.artifact for audit in self.audits)]

    @property
    def measurements(self) -> list[Evaluation]:
        """What is measured of it, in the end and along its training; each once."""
        return list(dict.fromkeys([*self.evaluations, *(point.evaluation for point in self.points)]))


@dataclass(frozen=True)
class Emm:
    """Runs by their number of training pictures, and the share of copies whose crossing is looked for."""

    name: str
    title: str
    sizes: dict[str, int]  # of each run, rising
    metric: str
    level: float
    targets: list[tuple[int, float]]
    source: str


@dataclass(frozen=True)
class Ablation:
    """One question, and the names of the runs that answer it."""

    name: str
    title: str
    question: str
    group: str
    against: str
    set: dict[str, Any]
    sweep: dict[str, list[Any]]
    seeds: list[int]
    runs: list[str]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as an expression over metrics."""

    name: str
    statement: str
    source: str
    expect: str
    protocol: str
    number_from: str | None = None


@dataclass(frozen=True)
class Variant:
    """A recipe before it meets a seed."""

    name: str
    label: str
    ablation: str | None
    value: Any
    changes: dict[str, Any]
    seeds: list[int]
    protocols: list[str]


@dataclass(frozen=True)
class Call:
    """How the study was asked for, so that jobs ask for the same."""

    name: str
    overrides: dict[str, Any]

    @property
    def mdm(self) -> str:
        extra = f" --set {shlex.quote(json.dumps(self.overrides))}" if self.overrides else ""
        return f"--study {shlex.quote(self.name)}{extra}"

    @property
    def snakemake(self) -> list[str]:
        return [f"study={self.name}"] + ([f"set={json.dumps(self.overrides)}"] if self.overrides else [])
