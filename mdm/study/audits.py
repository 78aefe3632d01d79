"""What the audit of a study asks for: drawn pictures of every run beside those that it was trained on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mdm.config import AuditConfig, ResourceConfig, SongConfig, StudyConfig, StudyError, nearest
from mdm.config import recipe as made
from mdm.config.sizes import Clip, Size, as_clip
from mdm.evaluate.metric_names import (
    AGREEMENT,
    COPIES,
    COPYING_ONSET,
    LARGEST,
    OF_LEVELS,
    SIMILARITIES,
    TEXT_SIGNAL,
    at_level,
    similarity,
)
from mdm.study.cascades import check_asked
from mdm.study.claims import ExpressionError, Reference
from mdm.study.recipes import Artifacts
from mdm.study.runs import Audit, Evaluation, Point, Run, Stage

FEWEST = 4  # pictures of an interval
# The metrics of each group, by level.
NAMES = {
    "copied": tuple(name for name in COPIES if name.startswith("copied") and name != "copied_released"),
    "released": ("copied_released",), "calibrated": ("calibrated",), "authentic": ("authentic",),
    "copying_score": ("copying_score",), "loss_gap": ("loss_gap",),
}  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """The pictures of some weights, and where they were drawn in training (no stage: at its end)."""

    evaluation: Evaluation
    weights: str
    stage: str
    images: int
    twin: str | None = None  # what another run drew from the same noises


class Audits:
    """Adds the audits of runs to the artifacts of a study, and what their jobs ask for."""

    def __init__(self, made: Artifacts, config: StudyConfig, resources: dict[str, ResourceConfig], where: str) -> None:
        self._made, self._protocols, self._resources, self._where = made, config.protocols, resources, where
        self._asked, self._along = config.audit, config.along
        if self._asked is None:
            return
        if not self._protocols:
            raise StudyError(f"{where}: audit: the study has no protocol, so nothing is drawn; write one")
        self._name = self._asked.protocol or next(iter(self._protocols))
        if self._name not in self._protocols:
            valid = nearest(self._name, self._protocols)
            raise StudyError(f"{where}: audit.protocol: there is no '{self._name}'; {valid}")
        self._check_counts(self._asked)

    def _check_counts(self, asked: AuditConfig) -> None:
        drawn = self._protocols[self._name].num_images or 0
        if (wanted := asked.num_images or drawn) > drawn:
            raise StudyError(
                f"{self._where}: audit.num_images {wanted}: protocol '{self._name}' draws {drawn}; write that or less"
            )
        if wanted < FEWEST:
            raise StudyError(
                f"{self._where}: audit: {wanted} pictures have no interval; draw {FEWEST} or more in protocol "
                f"'{self._name}'"
            )

    @property
    def twins(self) -> dict[str, str]:
        """Runs, and the others that they are compared with."""
        return self._asked.twins if self._asked else {}

    @property
    def protocol(self) -> str:
        """Whose pictures are looked at."""
        return self._name

    @property
    def metrics(self) -> tuple[str, ...]:
        """The groups of metrics that are asked for; none without an audit."""
        return self._asked.metrics if self._asked else ()

    def names(self, sides: Iterable[Size]) -> set[str]:
        """Every metric that claims may name."""
        sides = [side for side in sides if not isinstance(side, Clip)]
        found = {at_level(name, side) for group in self.metrics for name in NAMES.get(group, ()) for side in sides}
        if "copied" in self.metrics and self._along and self._along.protocol == self._name:
            found |= {at_level(name, side) for side in sides for name in (LARGEST, COPYING_ONSET)}
        found |= {TEXT_SIGNAL} & set(self.metrics)
        found |= {at_level(AGREEMENT, side) for side in sides} if self.twins else set()
        if "similarity" in self.metrics:
            sscd = ["sscd"] if self._asked and self._asked.sscd else []
            found |= {similarity(name, kind) for name in (*self._reading(), *sscd) for kind in SIMILARITIES}
        return found

    def _reading(self) -> list[str]:
        """Networks whose features the protocol reads."""
        protocol = self._protocols[self._name]
        return [name for name in ("judge", "clip", "inception", "dino") if getattr(protocol, name)]

    def of(
        self, stages: list[Stage], evaluations: list[Evaluation], points: list[Point], twin: str | None = None
    ) -> list[Audit]:
        """The audits of a run: of its end, and of each snapshot where the protocol is that of `along`.

        `twin`: what another run drew in the end, from the same noises.
        """
        if self._asked is None:
            return []
        last = stages[-1]
        moments = [_Asked(p.evaluation, p.weights, p.stage, p.images) for p in points]
        ends = [_Asked(evaluation, last.artifact, last.name, last.num_images, twin) for evaluation in evaluations]
        chosen = [one for one in (*moments, *ends) if one.evaluation.protocol == self._name]
        unique = {(one.stage, one.images): one for one in chosen}
        return [
            Audit(self._artifact(self._asked, one), one.stage, one.images, self._name, one.twin)
            for one in unique.values()
        ]

    def _artifact(self, asked: AuditConfig, one: _Asked) -> str:
        stage = self._made.artifacts[self._made.trained(one.weights)].recipe
        if any(isinstance(size, Clip) for size in stage.sizes):
            raise StudyError(f"{self._where}: audit: stage '{one.stage}' draws clips, and copies are those of pictures")
        self._check_gap(asked, stage, one.stage)
        if stage.latents and (network := {"loss_gap", "text_signal"} & set(asked.metrics)):
            raise StudyError(
                f"{self._where}: audit.metrics {', '.join(sorted(network))}: they ask networks about pictures, and "
                f"stage '{one.stage}' trains on latent codes; leave them out"
            )
        side = max(as_clip(size).resolution for size in stage.drawn)
        data, take = self._known(asked, stage, side)
        recipe = made.AuditRecipe(
            samples=one.evaluation.samples, data=data, take=take, decode=stage.train.decode,
            num_images=asked.num_images or self._protocols[self._name].num_images, neighbours=asked.neighbours,
            metrics=asked.metrics, **self._held_out(asked, side, stage),
            **self._features(asked, one.evaluation, data, take),
            **self._text(asked, stage), twin=one.twin,
        )  # fmt: skip
        ref = self._made.put(self._made.artifacts[one.evaluation.samples].name, recipe)
        self._resources.setdefault(ref, asked.resources)
        return ref

    def _text(self, asked: AuditConfig, stage: made.StageRecipe) -> dict[str, Any]:
        """Embedded captions, where the network itself is asked: the empty one, or those of both sets."""
        if TEXT_SIGNAL not in asked.metrics:
            return {"text": stage.text if "loss_gap" in asked.metrics else None}
        if stage.text is None:
            raise StudyError(
                f"{self._where}: audit: text_signal is of captions, and a run reads none; leave it out of metrics"
            )
        encoder = self._made.encoders[stage.text]
        return {"text": stage.text, "held_out_text": self._made.text(encoder, str(asked.held_out), "audit.held_out")}

    def _check_gap(self, asked: AuditConfig, stage: made.StageRecipe, name: str) -> None:
        """Refuse to ask a network what it never learned an answer to: without a class, or without a small picture."""
        check_asked(asked.metrics, stage, f"{self._where}: audit", name)
        if "loss_gap" in asked.metrics and isinstance(stage.model, SongConfig) and stage.model.classes:
            raise StudyError(
                f"{self._where}: audit: loss_gap asks networks without a class, which model.song with classes never "
                f"learns (stage '{name}'); leave it out of metrics"
            )

    def _known(self, asked: AuditConfig, stage: made.StageRecipe, side: int) -> tuple[str, int | None]:
        """The data set to look among, and how many of its first pictures (none: all)."""
        if asked.data:
            self._made.check_pictures(asked.data, "audit.data")
            self._made.check_resolution(asked.data, side, "audit.data")
            return self._made.data(asked.data, "audit.data"), None
        recipe, take = self._made.artifacts[stage.data].recipe, stage.take
        if recipe.settings.get("crop") == "none":
            raise StudyError(
                f"{self._where}: audit: squares cut anew each time are no finite set of pictures; write crop: centre "
                "in the training data, or name another data set in audit.data"
            )
        if (take or recipe.num_images) < 2:
            raise StudyError(
                f"{self._where}: audit: copies are told by the two nearest training pictures, and a run has one; train "
                "on two or more"
            )
        return stage.data, take

    def _held_out(self, asked: AuditConfig, side: int, stage: made.StageRecipe) -> dict[str, Any]:
        if asked.held_out is None:
            return {}
        self._made.check_pictures(asked.held_out, "audit.held_out")
        self._made.check_resolution(asked.held_out, side, "audit.held_out")
        held_out = self._made.data(asked.held_out, "audit.held_out")
        if held_out == stage.data:
            raise StudyError(
                f"{self._where}: audit.held_out: runs are trained on data.{asked.held_out}, all or some of it; name a "
                "set of other pictures"
            )
        return {"held_out": held_out}

    def _features(self, asked: AuditConfig, evaluation: Evaluation, data: str, take: int | None) -> dict[str, Any]:
        """Features of what was drawn, which its protocol has read, and of the pictures to look among."""
        if "similarity" not in asked.metrics:
            return {}
        count = take or self._known_count(data)
        found: dict[str, Any] = {}
        if asked.sscd:
            found = self._sscd(asked, evaluation, data, count)
        elif evaluation.features is None or not self._reading():
            raise StudyError(
                f"{self._where}: audit: similarity compares features, and protocol '{self._name}' reads none; give it "
                "a judge, a clip or inception weights, name weights in audit.sscd, or leave similarity out"
            )
        if evaluation.features is None or not self._reading():
            return found
        protocol = self._protocols[self._name].model_copy(update={"spectrum": False})
        side = self._made.artifacts[evaluation.features].recipe.resolution
        known = self._made.features(f"{self._name}-known", data, count, side, protocol)
        self._resources.setdefault(known, protocol.resources)
        return {**found, "features": evaluation.features, "known_features": known}

    def _known_count(self, data: str) -> int:
        """How many pictures a data set has; refused where that is known only once it is made."""
        from mdm.data.sources import registry as sources

        recipe = self._made.artifacts[data].recipe
        later = getattr(sources.find(recipe.source, data), "DUPLICATES_IN_MANIFEST", False)
        if later and recipe.settings.get("duplicates", "none") != "none":
            raise StudyError(
                f"{self._where}: audit: similarity reads features of all training pictures, and how many are left of "
                f"{data} without duplicates is not known before it is made; write take, or leave similarity out"
            )
        return recipe.num_images

    def _sscd(self, asked: AuditConfig, evaluation: Evaluation, data: str, count: int) -> dict[str, Any]:
        """Features of both sides by SSCD alone, at the highest level."""
        samples = self._made.artifacts[evaluation.samples]
        stage = self._made.artifacts[self._made.trained(samples.recipe.train)].recipe
        side = max(as_clip(size).resolution for size in stage.drawn)
        found = {}
        for key, images, total in ("sscd", evaluation.samples, samples.recipe.num_images), ("known_sscd", data, count):
            recipe = made.FeaturesRecipe(
                images=images, num_images=total, resolution=side, extractors={"sscd": asked.sscd}
            )  # fmt: skip
            found[key] = self._made.put(f"sscd-{self._made.artifacts[images].name}"[:40].rstrip("-."), recipe)
            self._resources.setdefault(found[key], asked.resources)
        return found


def check_audited(reference: Reference, run: Run) -> None:
    """Refuse a number of the audit that a run will never have."""
    family = next((n for n in sorted(OF_LEVELS, key=len, reverse=True) if reference.metric.startswith(f"{n}_")), None)
    if family is None and not reference.metric.startswith("similarity_"):
        return
    if run.audit is None:
        raise ExpressionError(f"{reference}: '{run.name}' draws nothing under the protocol of the audit; name another")
    drawn = [at_level(family, side) for side in run.stages[-1].resolutions] if family else [reference.metric]
    if family == AGREEMENT and run.audit.twin is None:
        raise ExpressionError(f"{reference}: '{run.name}' has no twin; name one in audit.twins")
    if reference.metric not in drawn:
        raise ExpressionError(f"{reference}: '{run.name}' draws no such level; write {' or '.join(drawn)}")
    if family in (LARGEST, COPYING_ONSET) and not run.points:
        raise ExpressionError(f"{reference}: '{run.name}' has no snapshots that would tell; write copied instead")
