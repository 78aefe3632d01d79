"""From validated settings to recipes: what each artifact is made from, and nothing else.

A recipe holds exactly what determines the artifact's content. Titles, job sizes and paths of this machine
stay out, so changing them makes nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mdm.config import (
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    NetworkConfig,
    ProtocolConfig,
    RunConfig,
    SampleConfig,
    StageConfig,
    Strict,
    StudyConfig,
    StudyError,
    TrainConfig,
    WeightsConfig,
    nearest,
)
from mdm.config.base import parse
from mdm.config.sizes import Clip, Size, as_clip, parse_size
from mdm.data.text.settings import ENCODER_VERSION
from mdm.files.artifact import digest

# Raised in the same commit as any change of code that alters what a recipe computes; refactors leave it.
RECIPE_VERSION = 3


@dataclass(frozen=True)
class Artifact:
    """One folder under results/: {kind}/{name}-{digest of the recipe}."""

    kind: str
    name: str
    recipe: dict[str, Any]
    # How a data set is made where that does not change what it is: see mdm/data/sources.
    handling: dict[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.kind}/{self.name}-{digest(self.recipe)}"


class Shelf:
    """All artifacts of a study, each made once however many runs need it."""

    def __init__(self, config: StudyConfig, where: str) -> None:
        self._config = config
        self._where = where
        self.artifacts: dict[str, Artifact] = {}
        #: which encoder makes each text artifact
        self.encoders: dict[str, str] = {}

    def _put(self, kind: str, name: str, handling: dict[str, Any] | None = None, **recipe: Any) -> str:
        artifact = Artifact(kind, name, {"kind": kind, "version": RECIPE_VERSION, **recipe}, handling or {})
        self.artifacts[artifact.ref] = artifact
        return artifact.ref

    def _pick(self, section: str, name: str, asked_by: str) -> Any:
        entries = getattr(self._config, section)
        if name not in entries:
            raise StudyError(f"{self._where}: {asked_by}: no '{name}' under `{section}`; {nearest(name, entries)}")
        return entries[name]

    def data(self, name: str, asked_by: str) -> str:
        """A data set; its source validates its own settings and adds its version."""
        from mdm.data.sources import (
            registry as sources,  # the registry is a plug-in of this room, light and free of torch
        )

        entry = self._pick("data", name, asked_by)
        place = f"{self._where}: data.{name}"
        settings = sources.resolve(entry.source, entry.settings, place)
        handling = sources.handling(entry.source, entry.settings, place)
        return self._put(
            "data", name, handling, source=entry.source, settings=settings, shard_images=entry.shard_images
        )

    def text(self, encoder: str, data: str, asked_by: str, also: str = "") -> str:
        """The embedded captions of one data set, the empty caption, and one more if asked."""
        entry = self._pick("text", encoder, asked_by)
        described = {
            "name": entry.name, "settings": self._encoder_settings(encoder, entry), "channels": entry.channels,
            "version": ENCODER_VERSION,
        }  # fmt: skip
        extra = {"captions": [also]} if also else {}
        ref = self._put("text", f"{encoder}-{data}", encoder=described, data=[self.data(data, asked_by)], **extra)
        self.encoders[ref] = encoder
        return ref

    def _encoder_settings(self, name: str, entry: EncoderConfig) -> dict[str, Any]:
        """Checked, with every default written out; the width must be what the networks are told."""
        from mdm.data.text.settings import ENCODERS

        where = f"{self._where}: text.{name}"
        if entry.name not in ENCODERS:
            raise StudyError(f"{where}.name: there is no encoder '{entry.name}'; {nearest(entry.name, ENCODERS)}")
        settings = parse(ENCODERS[entry.name], entry.settings, f"{where}.settings").model_dump(mode="json")
        if settings.get("channels", entry.channels) != entry.channels:
            raise StudyError(
                f"{where}: channels {entry.channels}, but its settings say {settings['channels']}; write the same"
            )
        return settings

    def judge(self, name: str, asked_by: str) -> str:
        """The network that reads pictures of scenes."""
        from mdm.evaluate.settings import JudgeSettings

        return self._instrument("judge", "judges", name, JudgeSettings, asked_by)

    def clip(self, name: str, asked_by: str) -> str:
        """The small CLIP."""
        from mdm.evaluate.settings import ClipSettings

        return self._instrument("clip", "clips", name, ClipSettings, asked_by)

    def _instrument(self, kind: str, section: str, name: str, model: type[Strict], asked_by: str) -> str:
        entry = self._pick(section, name, asked_by)
        place = f"{section}.{name}"
        settings = parse(model, entry.settings, f"{self._where}: {place}.settings")
        data, test = self.data(entry.data, place), self.data(entry.test, place)
        return self._put(kind, name, data=data, test=test, settings=settings.model_dump(mode="json"))

    def train(self, run: RunConfig, name: str, seed: int, parent: str | None, asked_by: str) -> str:
        """One training stage: its levels, its settings, its data and the weights it starts from."""
        stage = run.stages[name]
        place = f"{asked_by}.stages.{name}"
        encoder = self._pick("text", run.text, f"{asked_by}.text") if run.text else None
        model = stage_model(run.model, stage, encoder.channels if encoder else None, f"{self._where}: {place}")
        data = stage.data or run.data
        validation = stage.validation or run.validation
        inherited = len(self.artifacts[parent].recipe["model"]["levels"]) if parent else 0
        settings = stage_settings(run, stage, inherited, f"{self._where}: {place}")
        # Masks of dropout were once drawn by batch; recipes without dropout compute what they always did.
        more = {"dropout_masks": "by picture"} if any(level.dropout for level in model.levels) else {}
        if stage.moments == "carried":
            self._check_carried(settings["train"], parent, f"{self._where}: {place}")
            more["moments"] = stage.moments
        for name_of_data in filter(None, (data, validation)):
            self.check_resolution(name_of_data, as_clip(stage.sizes[-1]).resolution, place)
            self._check_frames(name_of_data, stage.sizes[-1], place)
        if stage.stills:
            self._check_stills(stage, settings, place)
        stills = {"stills": self.data(stage.stills, place)} if stage.stills else {}
        if stage.stills and run.text:
            stills["stills_text"] = self.text(run.text, stage.stills, place)
        return self._put(
            "train", name, seed=seed, model=model.model_dump(mode="json"), **settings, **more,
            num_images=stage.num_images, start_from=stage.start_from, parent=parent,
            class_label=run.class_label if model.classes else None,
            data=self.data(data, place),
            text=self.text(run.text, data, place) if run.text else None,
            validation=self.data(validation, place) if validation else None,
            validation_text=self.text(run.text, validation, place) if run.text and validation else None,
            **stills,
        )  # fmt: skip

    def _check_frames(self, data: str, size: Size, place: str) -> None:
        """Levels of clips need clips, of a multiple of their frames."""
        if not isinstance(size, Clip):
            return
        there = self._pick("data", data, place).settings.get("frames")
        if there is None or there % size.frames:
            has = f"has clips of {there} frames" if there else "has pictures"
            raise StudyError(
                f"{self._where}: {place}: the level {size} needs clips of {size.frames} frames, or of a multiple, and "
                f"data.{data} {has}; name a data set of a source of clips, with frames: {size.frames}"
            )

    def _check_stills(self, stage: StageConfig, settings: dict[str, Any], place: str) -> None:
        """Stills are the rows of a batch that no level of clips sees."""
        clips = [size for size in stage.sizes if isinstance(size, Clip)]
        mixed_ratio, batch = settings["diffusion"]["mixed_ratio"], settings["train"]["batch_images"]
        if not clips:
            raise StudyError(f"{self._where}: {place}: stills {stage.stills} have no effect without a level of clips")
        if not mixed_ratio or not sum(mixed_ratio[len(clips) :]):
            raise StudyError(
                f"{self._where}: {place}: stills {stage.stills} have no place: every row of the batch goes through a "
                "level of clips; write a diffusion.mixed_ratio whose last entries, those of pictures, are not zero"
            )
        rows = int(sum(mixed_ratio[: len(clips)]) / sum(mixed_ratio) * batch + 1e-9)
        processes = stage.resources.nodes * max(1, stage.resources.gpus)
        if rows % processes:
            raise StudyError(
                f"{self._where}: {place}: {rows} of the {batch} rows of a batch are clips, which {processes} processes "
                "cannot share evenly; use another number of gpus, or change diffusion.mixed_ratio"
            )
        self.check_pictures(stage.stills, f"{place}.stills")
        largest = max(size for size in stage.sizes if not isinstance(size, Clip))
        self.check_resolution(stage.stills, largest, place)

    def _check_carried(self, train: dict[str, Any], parent: str | None, where: str) -> None:
        """Whether there are moments to carry, of weights that still learn, by the same kinds of optimiser."""
        if parent is None or train["inner_rate"] == 0:
            why = (
                "a first stage has none" if parent is None else "train.inner_rate 0 freezes the weights they belong to"
            )
            raise StudyError(f"{where}: moments: carried has no effect, {why}; leave it out")
        before = self.artifacts[parent].recipe["train"]["matrix_rate"]
        if (before is None) != (train["matrix_rate"] is None):
            raise StudyError(
                f"{where}: moments: carried needs the optimiser of the stage before, but its train.matrix_rate is "
                f"{before} and here {train['matrix_rate']}; write moments: fresh"
            )

    def check_resolution(self, data: str, resolution: int, place: str) -> None:
        """A data set must be stored at a multiple of the resolution it is used at."""
        stored = self._pick("data", data, place).settings.get("resolution")
        if stored is not None and (stored < resolution or stored % resolution):
            raise StudyError(
                f"{self._where}: {place}: works at {resolution} px, but data.{data} is stored at {stored} px; "
                f"write a multiple of {resolution} there"
            )

    def check_pictures(self, data: str, place: str) -> None:
        """Some uses need pictures and cannot take clips."""
        if "frames" in self._pick("data", data, place).settings:
            raise StudyError(f"{self._where}: {place}: data.{data} has clips; name a data set of pictures")

    def too_many(self, data: str, wanted: int, place: str) -> list[str]:
        """The problem, if a protocol wants more pictures than a data set has."""
        there = self._pick("data", data, place).settings.get("num_images")
        if there is None or wanted <= there:
            return []
        return [f"{self._where}: {place}: {wanted} pictures of data.{data}, which has {there}; write {there} or less"]

    def samples(self, run: RunConfig, train: str, protocol: str) -> str:
        entry: ProtocolConfig = self._config.protocols[protocol]
        place = f"protocols.{protocol}"
        name = f"{protocol}-{list(run.stages)[-1]}"
        sample = run.sample.effective()
        check_sample(sample, self.artifacts[train].recipe, f"{self._where}: {place}")
        return self._put(
            "samples", name, train=train, sample=sample.model_dump(mode="json"), seed=entry.seed,
            num_images=entry.num_images, prompts=self.data(entry.prompts, place),
            text=self.text(run.text, entry.prompts, place, sample.negative_prompt) if run.text else None,
        )  # fmt: skip

    def features(self, name: str, images: str, num_images: int, resolution: int, protocol: ProtocolConfig) -> str:
        """Features of generated or real pictures; both sides go through the same extractors."""
        return self._put(
            "features", name, images=images, num_images=num_images, resolution=resolution,
            extractors=self._extractors(protocol),
        )  # fmt: skip

    def _extractors(self, protocol: ProtocolConfig) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if protocol.judge:
            found["judge"] = self.judge(protocol.judge, "protocols")
        if isinstance(protocol.clip, WeightsConfig):
            found["clip"] = protocol.clip.model_dump(mode="json")
        elif protocol.clip:
            found["clip"] = self.clip(protocol.clip, "protocols")
        if protocol.inception:
            found["inception"] = protocol.inception.model_dump(mode="json")
        return found

    def scores(self, name: str, features: str, reference: str, protocol: ProtocolConfig) -> str:
        """Metrics from the features of both sides."""
        from mdm.evaluate.settings import ScoreSettings

        settings = parse(ScoreSettings, protocol.settings, f"{self._where}: protocols: settings")
        return self._put(
            "scores", name, features=features, reference=reference, settings=settings.model_dump(mode="json")
        )


def stage_model(network: NetworkConfig, stage: StageConfig, text_channels: int | None, where: str) -> ModelConfig:
    """The part of the network that a stage trains: its levels only."""
    levels = []
    known = {parse_size(name): settings for name, settings in network.levels.items()}
    for position, size in enumerate(stage.sizes):
        if size not in known:
            raise StudyError(f"{where}: no level {size} in model.levels; {nearest(str(size), map(str, known))}")
        settings = known[size]
        if isinstance(size, Clip):
            settings = {**settings, "video": {**settings.get("video", {}), "frames": size.frames}}
        elif "video" in settings:
            raise StudyError(f"{where}: model.levels.{size}.video: name the level FRAMESx{size}, for example 16x{size}")
        levels.append({"resolution": as_clip(size).resolution, "middle": position == 0, **settings})
    shared = network.model_dump(exclude={"levels"})
    return parse(ModelConfig, {**shared, "levels": levels, "text_channels": text_channels}, f"{where}: model")


def train_settings(run: RunConfig, stage: StageConfig, inherited: int, where: str) -> TrainConfig:
    """Settings of the optimisation; default values where one changes nothing. `inherited` levels have a parent."""
    train = parse(TrainConfig, {**run.train.model_dump(), **stage.train}, f"{where}: train")
    if not inherited and (stage.start_from != "ema" or "inner_rate" in stage.train):
        raise StudyError(f"{where}: start_from and train.inner_rate have no effect in a first stage; leave them out")
    if inherited == len(stage.resolutions) and train.inner_rate == 0:
        raise StudyError(
            f"{where}: train.inner_rate 0 freezes every weight, as the stage adds no level to the one before; "
            "write a larger rate, or another level in resolutions"
        )
    if train.validate_images and not (stage.validation or run.validation):
        raise StudyError(
            f"{where}: train.validate_images {train.validate_images} has no effect without a data set to validate on; "
            "leave it out, or name one in validation"
        )
    changes: dict[str, float] = {}
    if not (run.text or run.model.classes):  # nothing that could be dropped
        changes["condition_dropout"] = 0.0
    if not inherited:
        changes["inner_rate"] = TrainConfig.model_fields["inner_rate"].default
    return train.model_copy(update=changes)


def stage_settings(run: RunConfig, stage: StageConfig, inherited: int, where: str) -> dict[str, Any]:
    """Training and diffusion settings with the stage's own differences merged in."""
    train = train_settings(run, stage, inherited, where)
    diffusion = parse(DiffusionConfig, {**run.diffusion.model_dump(), **stage.diffusion}, f"{where}: diffusion")
    for key in ("level_weights", "mixed_ratio"):
        value = getattr(diffusion, key)
        if value is not None and len(value) != len(stage.resolutions):
            raise StudyError(
                f"{where}: diffusion.{key} has {len(value)} entries, the stage has {len(stage.resolutions)} levels"
            )
    if diffusion.mixed_ratio and diffusion.mixed_ratio[0] * train.batch_images < sum(diffusion.mixed_ratio):
        raise StudyError(
            f"{where}: diffusion.mixed_ratio {list(diffusion.mixed_ratio)} leaves no picture of a batch of "
            f"{train.batch_images} for the highest level; write a larger train.batch_images"
        )
    for key, images in (("num_images", stage.num_images), ("slice_images", stage.slice_images or 0)):
        if images % train.batch_images:
            multiple = max(1, round(images / train.batch_images)) * train.batch_images
            raise StudyError(
                f"{where}: {key} {images} is not a multiple of batch_images {train.batch_images}; write {multiple}"
            )
    diffusion = diffusion.effective(stage.sizes)
    try:
        train.require_parts(stage.resources.parts, diffusion)
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    return {"train": train.model_dump(mode="json"), "diffusion": diffusion.model_dump(mode="json")}


def check_sample(sample: SampleConfig, train: dict[str, Any], where: str) -> None:
    """Whether a network of this training recipe, the run's last stage, can be sampled so."""
    diffusion = train["diffusion"]
    if diffusion["parameterisation"] == "gamma" and sample.steps > diffusion["steps"]:
        raise StudyError(
            f"{where}: sample.steps {sample.steps} is more than the {diffusion['steps']} diffusion.steps of the last "
            f"stage; write at most {diffusion['steps']}"
        )
    if sample.guidance != 1 and not (train["text"] or train["model"]["classes"]):
        raise StudyError(
            f"{where}: sample.guidance {sample.guidance} needs a condition to guide towards; "
            "write guidance: 1, or train with text or model.classes"
        )
    unseen = "'no class'" if train["model"]["classes"] else "" if sample.negative_prompt else "the empty caption"
    if sample.guidance != 1 and unseen and not train["train"]["condition_dropout"]:
        raise StudyError(
            f"{where}: sample.guidance {sample.guidance} leads away from {unseen}, which training with "
            "condition_dropout 0 never shows; write guidance: 1, or a condition_dropout such as 0.1"
        )
