"""The section that explains why the optimum copies: pictures and numbers gathered, its words are in the template."""

from dataclasses import dataclass

import numpy as np

from mdm.report import theory
from mdm.report.collect import Artifacts
from mdm.report.figures.gallery import data_uri
from mdm.study.study import Study

TITLE = "Weights and losses of the best denoiser"
CAPTION = (
    "Left: how much each training picture counts in the best answer to one noisy picture. Right: what the best "
    "denoiser of the first so many training pictures cannot know, per pixel and channel; where its line ends it knows "
    "all. Dotted: what the best linear denoiser loses."
)


@dataclass(frozen=True)
class Step:
    """One noisy picture and the answers to it; `effective`: of how many pictures the best one is a mixture."""

    sigma: str
    effective: str
    noisy: str
    answer: str
    linear: str


@dataclass(frozen=True)
class Drawn:
    """A drawn picture beside the nearest training picture; `difference`: the largest of any value, in grey levels."""

    picture: str
    nearest: str
    number: int
    difference: int
    copied: bool


@dataclass(frozen=True)
class View:
    """What the template lays out; every picture is a data URI."""

    known: list[str]
    resolution: int
    steps: list[Step]
    drawn: list[Drawn]
    mixed: list[Drawn]

    @property
    def equal(self) -> int:
        """How many of the drawn pictures are a training picture to the last grey level."""
        return sum(one.difference == 0 for one in self.drawn)

    @property
    def copied(self) -> int:
        return sum(one.copied for one in self.drawn)

    @property
    def copied_by_linear(self) -> int:
        return sum(one.copied for one in self.mixed)


def explainer(study: Study, artifacts: Artifacts) -> View | None:
    """Return what the section shows; None where the study does not ask for it, or it is not drawn yet."""
    found = theory.read(study, artifacts)
    if found is None:
        return None
    pictures = found.pictures
    steps = [
        Step(f"{answer['sigma']:g}", f"{answer['effective']:.1f}", *(data_uri(pictures[name][place]) for name in
             ("noisy", "answers", "linear")))
        for place, answer in enumerate(found.answers)
    ]  # fmt: skip
    known = [data_uri(picture) for picture in pictures["pictures"]]
    drawn, mixed = (_drawn(found, name, pictures[name], known) for name in ("drawn", "mixed"))
    return View(known, pictures["pictures"].shape[1], steps, drawn, mixed)


def _drawn(found: theory.Theory, name: str, pictures: np.ndarray, known: list[str]) -> list[Drawn]:
    lines = [line for line in found.copies if line["of"] == name]
    return [
        Drawn(data_uri(picture), known[line["nearest"]], line["nearest"] + 1, line["largest_difference"],
              3 * line["distance"] < line["second"])
        for picture, line in zip(pictures, lines, strict=True)
    ]  # fmt: skip
