"""What is measured of a run: its end, under every protocol, and its way there, under the protocol of `along`."""

from collections.abc import Collection, Iterable

from mdm.config import ProtocolConfig, ResourceConfig, RunConfig, StudyConfig, StudyError, nearest
from mdm.config.sizes import Clip
from mdm.evaluate.metric_names import AUTOENCODER, FRECHET_DISTANCES, KERNEL_DISTANCES, detail
from mdm.study.audits import Audits, check_audited
from mdm.study.claims import ExpressionError, Reference
from mdm.study.recipes import Artifacts
from mdm.study.runs import Evaluation, Point, Run, Stage, Variant

INCEPTION_WIDTH = 2048  # of its features


class Evaluations:
    """Adds pictures, features and scores of runs to the artifacts of a study, and what their jobs ask for."""

    def __init__(self, made: Artifacts, config: StudyConfig, resources: dict[str, ResourceConfig], where: str) -> None:
        self._made, self._protocols, self._resources, self._where = made, config.protocols, resources, where
        self._along, self._snapshots, self._excess = config.along, False, config.excess
        if self._along and self._along.protocol not in self._protocols:
            unknown, valid = self._along.protocol, nearest(self._along.protocol, self._protocols)
            raise StudyError(f"{where}: along.protocol: there is no '{unknown}'; {valid}")
        self.audits = Audits(made, config, resources, where)

    @property
    def usual(self) -> list[str]:
        """The protocols that measure the end of every run: all but one that is there for curves alone."""
        names = list(self._protocols)
        return [name for name in names if name == names[0] or not self._along or name != self._along.protocol]

    def at_end(self, run: RunConfig, last: Stage, name: str, guide: str | None) -> Evaluation:
        """Measure what the last stage trained."""
        return self._evaluation(run, last.artifact, name, self._side(last, name), guide)

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
                evaluation = self._evaluation(run, weights, name, side, guide)
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
        if isinstance(last.resolutions[-1], Clip):
            raise StudyError(
                f"{self._where}: protocols.{name}: stage '{last.name}' ends with clips of {last.resolutions[-1]}, "
                "and protocols measure pictures; write protocols: [] for that ablation"
            )
        side = self._protocols[name].resolution or max(last.resolutions)
        if max(last.resolutions) % side:
            raise StudyError(
                f"{self._where}: protocols.{name}.resolution {side} cannot be made from pictures of "
                f"{max(last.resolutions)} px; write a divisor, or give the run another protocol"
            )
        return side

    def _check_side(self, stage: Stage, name: str, side: int) -> None:
        """Refuse snapshots of a stage whose pictures are too small for the curve that they would be points of."""
        if (own := max(stage.resolutions)) % side:
            raise StudyError(
                f"{self._where}: stages.{stage.name}.snapshots: protocol '{name}' measures at {side} px, which cannot "
                f"be made from pictures of {own} px; write resolution: {own} there, or snapshots of later stages only"
            )

    def _evaluation(self, run: RunConfig, weights: str, name: str, side: int, guide: str | None) -> Evaluation:
        """Measure what these weights draw under a protocol."""
        protocol, label = self._protocols[name], f"{name}-{self._made.artifacts[weights].name}"
        samples = self._made.samples(run, weights, name, guide)
        if protocol.drawn_only:
            self._resources.setdefault(samples, protocol.resources)
            return Evaluation(name, samples)
        features = self._made.features(label, samples, protocol.num_images, side, protocol)
        place = f"protocols.{name}"
        self._made.check_pictures(protocol.reference, f"{place}.reference")
        self._made.check_resolution(protocol.reference, side, f"{place}.reference")
        real = self._made.data(protocol.reference, f"{place}.reference")
        reference = self._made.features(f"{name}-real", real, protocol.num_reference, side, protocol)
        floor = self._made.floor(f"{name}-floor", real, side, protocol)
        scores = self._made.scores(label, features, reference, floor, protocol)
        for ref in filter(None, (samples, features, reference, floor)):
            self._resources.setdefault(ref, protocol.resources)
        return Evaluation(name, samples, features, reference, scores)


def check_measured(reference: Reference, name: str, protocol: ProtocolConfig, run: Run) -> None:
    """Refuse what protocol `name` will never measure of a run: it would stay "not measured yet" for ever."""
    check_audited(reference, run)
    if reference.metric in AUTOENCODER and not run.stages[-1].latents:
        raise ExpressionError(f"{reference}: '{run.name}' has no autoencoder; name a run that is trained on codes")
    if protocol.drawn_only:
        compared = reference.metric.startswith((*FRECHET_DISTANCES, *KERNEL_DISTANCES, "clip_score", "alignment"))
        if compared or reference.metric.startswith("detail"):
            raise ExpressionError(
                f"{reference}: protocol '{name}' draws pictures and compares them with nothing; give it a "
                "reference and what to measure with, or name another protocol"
            )
        return
    if reference.metric.startswith("detail"):
        if not protocol.spectrum:
            raise ExpressionError(f"{reference}: protocol '{name}' measures no detail; write spectrum: true in it")
        if reference.metric not in (drawn := [detail(side) for side in run.stages[-1].resolutions]):
            raise ExpressionError(f"{reference}: '{run.name}' draws no such level; write {' or '.join(drawn)}")
    fewest = min(protocol.num_images, protocol.num_reference)
    if reference.metric.startswith("fid_unbiased") and fewest <= INCEPTION_WIDTH:
        raise ExpressionError(
            f"{reference} needs more than {INCEPTION_WIDTH} pictures on each side, the width of Inception's features, "
            f"and its protocol has {fewest}; use kid_inception, or more pictures"
        )
