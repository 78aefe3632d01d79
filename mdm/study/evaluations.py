"""What is measured of a run: its end, under every protocol, and its way there, under the protocol of `along`."""

from collections.abc import Collection, Iterable

from mdm.config import ProtocolConfig, ResourceConfig, RunConfig, StudyConfig, StudyError, nearest
from mdm.config.instruments import VIDEO_NETWORKS
from mdm.config.sizes import Clip, as_clip
from mdm.study.audits import Audits
from mdm.study.cascades import at
from mdm.study.recipes import Artifacts
from mdm.study.runs import Evaluation, Point, Run, Stage, Variant

VIDEO_FRAMES = 16


class Evaluations:
    """Adds pictures, features and scores of runs to the artifacts of a study, and what their jobs ask for."""

    def __init__(self, made: Artifacts, config: StudyConfig, resources: dict[str, ResourceConfig], where: str) -> None:
        self._made, self._protocols, self._resources, self._where = made, config.protocols, resources, where
        self._along, self._snapshots, self._excess = config.along, False, config.excess
        if self._along and self._along.protocol not in self._protocols:
            unknown, valid = self._along.protocol, nearest(self._along.protocol, self._protocols)
            raise StudyError(f"{where}: along.protocol: there is no '{unknown}'; {valid}")
        if (first := next(iter(self._protocols), None)) and self._protocols[first].named_only:
            raise StudyError(
                f"{where}: protocols.{first}.named_only: claims and tables mean the first protocol, which measures "
                "every run; write another one first"
            )
        self.audits = Audits(made, config, resources, where)

    @property
    def usual(self) -> list[str]:
        """The protocols that measure the end of every run: all but those for curves alone, or for named ablations."""
        names = list(self._protocols)
        curves = {self._along.protocol} - {names[0]} if self._along else set()
        return [name for name in names if name not in curves and not self._protocols[name].named_only]

    def at_end(self, run: RunConfig, last: Stage, name: str, guide: str | None) -> Evaluation:
        """Measure what the last stage trained."""
        return self._evaluation(run, last.artifact, name, self._side(last, name), guide, last.base)

    def excess(self, last: Stage) -> str | None:
        """Measure how far the last stage is from the optimum, if the study asks for it."""
        if not self._excess:
            return None
        ref = self._made.excess(last.artifact, self._excess)
        self._resources.setdefault(ref, self._excess.resources)
        return ref

    def along(self, variant: Variant, run: RunConfig, stages: list[Stage], guide: str | None) -> list[Point]:
        """Measure the snapshots of a run and its end; nothing where `along` leaves it out or it has none."""
        self._snapshots |= (found := any(entry.snapshots for entry in run.stages.values()))
        if not found or not self._along or not self._follows(variant):
            return []
        name, last = self._along.protocol, stages[-1]
        side, points = self._side(last, name), []
        for stage in stages:
            ends = (stage.num_images,) if stage is last else ()
            for images in dict.fromkeys((*run.stages[stage.name].snapshots, *ends)):
                self._check_side(stage, name, side)
                weights = self._weights(stage, images)
                own = at(run, last, stage, self._where)  # the base of a cascade draws as it does for the last one
                evaluation = self._evaluation(own, weights, name, side, guide if own is run else None, stage.base)
                points.append(Point(stage.name, images, weights, evaluation))
        return points

    def _follows(self, variant: Variant) -> bool:
        return self._along.runs is None or bool({variant.name, variant.ablation} & set(self._along.runs))

    def check_along(self, names: Collection[str], runs: Iterable[Run]) -> None:
        """Refuse snapshots that nothing measures; `names` are those of runs and ablations."""
        if not self._along and self._snapshots:
            raise StudyError(
                f"{self._where}: snapshots have no effect without `along`, which says how they are measured; "
                f"write along: {{protocol: {next(iter(self._protocols), 'NAME')}}}, or leave them out"
            )
        for name in self._along.runs or () if self._along else ():
            if name not in names:
                raise StudyError(f"{self._where}: along.runs: there is no '{name}'; {nearest(name, names)}")
        if self._snapshots and not any(run.points for run in runs):
            raise StudyError(
                f"{self._where}: along.runs {self._along.runs}: none of them has a stage with snapshots, and others "
                "have; name one of those, or leave along.runs out"
            )

    def _weights(self, stage: Stage, images: int) -> str:
        """The artifact that holds the averaged weights of a stage at an image count."""
        if images == stage.num_images:
            return stage.artifact
        snapshot = self._made.snapshot(f"{stage.name}-{images}", stage.artifact, images)
        # A training that went past it before it was asked for is repeated up to there, by jobs of the same size.
        job = self._resources[stage.artifact].model_copy(update={"preview_images": 0})
        self._resources.setdefault(snapshot, job)
        return snapshot

    def _side(self, last: Stage, name: str) -> int:
        """The side at which a protocol measures the pictures of a run, those of its last stage."""
        own = as_clip(last.resolutions[-1]).resolution
        side = self._protocols[name].resolution or own
        if own % side:
            raise StudyError(
                f"{self._where}: protocols.{name}.resolution {side} cannot be made from pictures of "
                f"{own} px; write a divisor, or give the run another protocol"
            )
        return side

    def _check_side(self, stage: Stage, name: str, side: int) -> None:
        """Refuse snapshots of a stage whose pictures are too small for the curve that they would be points of."""
        if (own := as_clip(stage.resolutions[-1]).resolution) % side:
            raise StudyError(
                f"{self._where}: stages.{stage.name}.snapshots: protocol '{name}' measures at {side} px, which cannot "
                f"be made from pictures of {own} px; write resolution: {own} there, or snapshots of later stages only"
            )

    def _frames(self, weights: str, name: str) -> int | None:
        """Frames of the clips that these weights draw, none where they draw pictures; refuses what is not for clips."""
        size = self._made.artifacts[self._made.trained(weights)].recipe.sizes[0]
        protocol, where = self._protocols[name], f"{self._where}: protocols.{name}"
        if not isinstance(size, Clip):
            if protocol.video:
                raise StudyError(f"{where}.video reads clips, and a run draws pictures of {size} px; leave it out")
            return None
        self._check_video(size, protocol, where)
        if protocol.metrics or protocol.spectrum:
            raise StudyError(
                f"{where}: metrics and spectrum are of pictures, and a run draws clips of {size}; leave them out"
            )
        if protocol.reference:
            self._made.check_frames(protocol.reference, size, f"{where}.reference".removeprefix(f"{self._where}: "))
        return size.frames

    def _check_video(self, size: Clip, protocol: ProtocolConfig, where: str) -> None:
        """Refuse a network of clips that there is no loader for, or that sees more frames than there are."""
        if protocol.video and protocol.video.model not in VIDEO_NETWORKS:
            raise StudyError(
                f"{where}.video.model: there is no loader for '{protocol.video.model}'; "
                f"{nearest(str(protocol.video.model), VIDEO_NETWORKS)}"
            )
        if protocol.video and size.frames % VIDEO_FRAMES:
            raise StudyError(
                f"{where}.video sees {VIDEO_FRAMES} frames, and a run draws clips of {size}; leave it out, or train on "
                f"clips of {VIDEO_FRAMES} or 64 frames"
            )

    def _evaluation(
        self, run: RunConfig, weights: str, name: str, side: int, guide: str | None, base: Stage | None
    ) -> Evaluation:
        """Measure what these weights draw under a protocol; those of an upsampler from what its base draws."""
        protocol, label = self._protocols[name], f"{name}-{self._made.artifacts[weights].name}"
        samples = self._made.samples(run, weights, name, guide, base)
        lows = tuple(self._made.lows(samples))
        for low in lows:
            self._resources.setdefault(low, protocol.resources)
        if protocol.drawn_only:
            self._resources.setdefault(samples, protocol.resources)
            return Evaluation(name, samples, lows=lows)
        place, frames = f"protocols.{name}", self._frames(weights, name)
        features = self._made.features(label, samples, protocol.num_images, side, protocol, frames=frames)
        if not frames:
            self._made.check_pictures(protocol.reference, f"{place}.reference")
        self._made.check_resolution(protocol.reference, side, f"{place}.reference")
        real = self._made.data(protocol.reference, f"{place}.reference")
        reference = self._made.features(
            f"{name}-real", real, protocol.num_reference, side, protocol, frames=frames, keep_rows=protocol.keep_rows
        )
        floor = self._made.floor(f"{name}-floor", real, side, protocol, frames)
        scores = self._made.scores(label, features, reference, floor, protocol)
        for ref in filter(None, (samples, features, reference, floor)):
            self._resources.setdefault(ref, protocol.resources)
        return Evaluation(name, samples, features, reference, scores, lows)
