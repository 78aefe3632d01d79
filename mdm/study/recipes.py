"""From validated settings to recipes: each holds exactly what determines its artifact's content.

Titles, job sizes and paths of this machine stay out, so that changing them makes nothing new.
"""

from typing import Any

from mdm.config import ExcessConfig, ProtocolConfig, RunConfig, StudyConfig, StudyError, WeightsConfig, nearest
from mdm.config import recipe as made
from mdm.config.base import parse
from mdm.config.instruments import ScoreSettings
from mdm.config.sizes import Clip, Size, as_clip
from mdm.config.text import ENCODERS
from mdm.study.cascades import as_base, augmentation_of, check_guide_low, hashed
from mdm.study.data_sets import DataSets
from mdm.study.latents import check_latent_stage, check_real_prompts, latent_sample, latent_stage, unshifted, with_codes
from mdm.study.runs import Stage
from mdm.study.stage_settings import (
    check_autoguidance,
    check_carried,
    check_explained,
    check_guide,
    check_optimum,
    check_sample,
    check_stills,
    stage_model,
    stage_settings,
    taken,
)

THEORY_PIXELS = 32  # larger pictures explain no more
THEORY_SETS = (12, 96, 768)


class Artifacts(DataSets):
    """All artifacts of a study, each made once however many runs need it."""

    def __init__(self, config: StudyConfig, where: str) -> None:
        super().__init__(config, where)
        #: which encoder makes each text artifact
        self.encoders: dict[str, str] = {}

    def text(self, encoder: str, data: str, asked_by: str, also: str = "") -> str:
        """Add the embedded captions of one data set, the empty caption, and one more if asked."""
        described = self._encoder(encoder, asked_by)
        recipe = made.TextRecipe(encoder=described, data=(self.data(data, asked_by),), captions=(also,) if also else ())
        ref = self.put(f"{encoder}-{data}", recipe)
        self.encoders[ref] = encoder
        return ref

    def _encoder(self, name: str, asked_by: str) -> made.EncoderRecipe:
        """Check the encoder's settings; its width must be the one that the networks are built for."""
        entry, where = self._pick("text", name, asked_by), f"{self._where}: text.{name}"
        if entry.name not in ENCODERS:
            raise StudyError(f"{where}.name: there is no encoder '{entry.name}'; {nearest(entry.name, ENCODERS)}")
        settings = parse(ENCODERS[entry.name], entry.settings, f"{where}.settings")
        if (own := getattr(settings, "channels", entry.channels)) != entry.channels:
            raise StudyError(f"{where}: channels {entry.channels}, but its settings say {own}; write the same")
        return made.EncoderRecipe(name=entry.name, settings=settings, channels=entry.channels)

    def _instrument(self, section: str, name: str, model: type[made.JudgeRecipe | made.ClipRecipe]) -> str:
        """Add a network that protocols measure with: a judge of scenes, or a small CLIP."""
        entry = self._pick(section, name, "protocols")
        place = f"{section}.{name}"
        settings = parse(model.model_fields["settings"].annotation, entry.settings, f"{self._where}: {place}.settings")
        data, test = self.data(entry.data, place), self.data(entry.test, place)
        return self.put(name, model(data=data, test=test, settings=settings))

    def train(
        self, run: RunConfig, name: str, seed: int, parent: str | None, asked_by: str, base: Stage | None = None
    ) -> str:
        """Add a training stage: its levels, its settings, its data and the weights it starts from.

        `base`: of an upsampler, the stage that will draw for it, whose noise it gets used to.
        """
        stage, place = run.stages[name], f"{asked_by}.stages.{name}"
        where = f"{self._where}: {place}"
        encoder = self._pick("text", run.text, f"{asked_by}.text") if run.text else None
        check_latent_stage(self, run, stage, asked_by, place)
        model = stage_model(with_codes(self, run, where), stage, encoder.channels if encoder else None, where)
        data, validation = stage.data or run.data, stage.validation or run.validation
        before = self.artifacts[parent].recipe if parent else None
        train, diffusion = stage_settings(run, stage, len(before.model.resolutions) if before else 0, where)
        if stage.moments == "carried":
            check_carried(train, before, where)
        take = taken(run.take, self.artifacts[self.data(data, place)].recipe, data, where)
        latents = latent_stage(self, run, train, data, validation, place)
        shows = latents.pictures if latents else stage.sizes[-1]
        for name_of_data, first in ((data, take), (validation, None)):  # the held-out loss looks at the whole set
            self._check_set(run, name_of_data, shows, place, first)
        if stage.stills:
            check_stills(stage, train, diffusion, where)
            self.check_pictures(stage.stills, f"{place}.stills")
            largest = max(size for size in stage.sizes if not isinstance(size, Clip))
            self.check_resolution(stage.stills, largest, place)
        recipe = made.StageRecipe(
            seed=seed, model=model, train=train, diffusion=unshifted(diffusion, latents), latents=latents,
            dropout_masks="by picture" if model.drops else None,
            moments="carried" if stage.moments == "carried" else None,
            num_images=stage.num_images, start_from=stage.start_from, parent=parent,
            class_label=run.class_label if model.classes else None, take=take,
            **self._set("data", "text", run.text, data, place),
            **self._set("validation", "validation_text", run.text, validation, place),
            **self._set("stills", "stills_text", run.text, stage.stills, place),
            augmentation=augmentation_of(stage, self.artifacts[base.artifact].recipe if base else None),
        )  # fmt: skip
        return self.put(name, recipe)

    def _check_set(self, run: RunConfig, data: str | None, shows: Size, place: str, first: int | None) -> None:
        """Refuse a data set that a stage of pictures or clips of this size cannot be trained or measured on."""
        if data:
            self.check_resolution(data, as_clip(shows).resolution, place)
            self.check_frames(data, shows, place)
            self._check_classes(run, data, place, first)

    def _set(self, data_key: str, text_key: str, encoder: str | None, data: str | None, place: str) -> dict[str, Any]:
        """Add one of a stage's data sets and its embedded captions; return both as fields of the recipe."""
        text = self.text(encoder, data, place) if encoder and data else None
        return {data_key: self.data(data, place) if data else None, text_key: text}

    def snapshot(self, name: str, train: str, images: int) -> str:
        """Add the averaged weights of a stage at an image count on its way."""
        return self.put(name, made.SnapshotRecipe(train=train, images=images))

    def trained(self, ref: str) -> str:
        """Return the training whose weights an artifact holds: the stage itself, or that of a snapshot."""
        recipe = self.artifacts[ref].recipe
        return recipe.train if isinstance(recipe, made.SnapshotRecipe) else ref

    def excess(self, train: str, asked: ExcessConfig) -> str:
        """Add the loss of a stage's network beyond the optimum of its training pictures."""
        stage = self.artifacts[train].recipe
        check_optimum(stage, self.artifacts[stage.data].recipe, asked.num_images, f"{self._where}: excess")
        recipe = made.ExcessRecipe(
            train=train, data=stage.data, text=stage.text, num_images=asked.num_images, seed=asked.seed
        )
        return self.put(self.artifacts[train].name, recipe)

    def theory(self, train: str) -> str:
        """Add pictures of why the best denoiser of a stage's training pictures copies them."""
        stage: made.StageRecipe = self.artifacts[train].recipe
        there = stage.take or self.artifacts[stage.data].recipe.num_images
        check_explained(stage, there, f"{self._where}: theory")
        sides = [side for side in stage.sizes if side <= THEORY_PIXELS] or [min(stage.sizes)]
        sets = sorted({min(count, there) for count in THEORY_SETS})
        recipe = made.TheoryRecipe(data=stage.data, num_images=sets[0], sets=sets, seed=0, resolution=max(sides))
        return self.put(self.artifacts[stage.data].name, recipe)

    def samples(
        self, run: RunConfig, train: str, protocol: str, guide: str | None = None, base: Stage | None = None
    ) -> str:
        """Add the pictures that the network of a stage or snapshot draws, guided by that of another run.

        `base`: of an upsampler, the stage that draws what it enlarges, with the same prompts and seed.
        """
        entry: ProtocolConfig = self._config.protocols[protocol]
        if entry.prompts:
            prompts = entry.num_images // (entry.per_prompt or 1)
            self._check_classes(run, entry.prompts, f"protocols.{protocol}.prompts", prompts)
        place, stage = f"protocols.{protocol}", self.artifacts[self.trained(train)].recipe
        name = f"{protocol}-{self.artifacts[train].name}"
        # The guide stands in the recipe as an artifact; what its run is called changes no picture.
        sample = run.sample.effective().model_copy(update={"guide": None})
        sample = latent_sample(sample, run.sample, stage.latents, f"{self._where}: {place}")
        check_real_prompts(self, sample, stage, entry.prompts, place)
        check_sample(sample, stage, f"{self._where}: {place}")
        if run.text and not entry.prompts:
            raise StudyError(
                f"{self._where}: {place}: no prompts, and runs read text ('{run.text}'); name a data set whose "
                "captions are drawn"
            )
        check_autoguidance(run.sample, f"{self._where}: sample")
        if guide == train:
            raise StudyError(
                f"{self._where}: sample.guide {run.sample.guide} is the network it guides; name another run"
            )
        if guide:
            check_guide(stage, self.artifacts[guide].recipe, f"{self._where}: sample.guide")
            check_guide_low(sample, stage, self.artifacts[guide].recipe, f"{self._where}: sample.guide")
        recipe = made.SamplesRecipe(
            train=train, guide=guide if sample.latents == "drawn" else None, sample=hashed(sample, stage),
            low=self._low(run, stage, protocol, base), seed=entry.seed, num_images=entry.num_images,
            prompts=self.data(entry.prompts, place) if entry.prompts else None,
            text=self.text(run.text, entry.prompts, place, sample.negative_prompt) if run.text else None,
            labels=entry.labels if stage.model.classes else "all", per_prompt=entry.per_prompt or 1,
            autoencoder=stage.latents.autoencoder if stage.latents else None,
        )  # fmt: skip
        return self.put(name, recipe)

    def lows(self, samples: str) -> list[str]:
        """Return what the bases of a cascade drew on the way to these pictures, smallest first."""
        low = self.artifacts[samples].recipe.low
        return [*self.lows(low), low] if low and self.artifacts[low].kind == "samples" else []

    def _low(self, run: RunConfig, stage: made.StageRecipe, protocol: str, base: Stage | None) -> str | None:
        """Add what an upsampler enlarges: pictures that its base draws, or the real ones of its prompts."""
        if base is None:
            return None
        if run.sample.low == "drawn":
            return self.samples(as_base(run, base, self._where), base.artifact, protocol, None, base.base)
        place, prompts = f"protocols.{protocol}", self._config.protocols[protocol].prompts
        if prompts is None:
            raise StudyError(
                f"{self._where}: {place}: sample.low: real enlarges the pictures of its prompts, and it has none; name "
                "a data set in prompts, or write low: drawn"
            )
        self.check_pictures(prompts, f"{place}.prompts")
        self.check_resolution(prompts, stage.low_size, f"{place}.prompts")
        return self.data(prompts, place)

    def features(
        self, name: str, images: str, num_images: int, resolution: int, protocol: ProtocolConfig, first: int = 0,
        frames: int | None = None, destroyed: bool = False, keep_rows: int | None = None,
    ) -> str:  # fmt: skip
        """Add features of generated or real pictures; both sides go through the same extractors."""
        recipe = made.FeaturesRecipe(
            images=images, first=first, num_images=num_images, resolution=resolution, resize=protocol.resize,
            extractors=self._extractors(protocol), spectrum=protocol.spectrum,
            logits="inception_score" in protocol.metrics, frames=frames, destroyed=destroyed, keep_rows=keep_rows,
        )  # fmt: skip
        return self.put(name, recipe)

    def floor(
        self, name: str, images: str, resolution: int, protocol: ProtocolConfig, frames: int | None = None
    ) -> str | None:
        """Add features of as many real pictures as are drawn, none of them of the reference, if there are so many."""
        first, count = protocol.num_reference, protocol.num_images
        there = made.pictures_of(self._pick("data", protocol.reference, "protocols").settings)
        if first + count > there:
            return None
        return self.features(name, images, count, resolution, protocol, first, frames, destroyed=bool(frames))

    def _extractors(self, protocol: ProtocolConfig) -> dict[str, str | WeightsConfig]:
        found: dict[str, str | WeightsConfig] = {}
        if protocol.judge:
            found["judge"] = self._instrument("judges", protocol.judge, made.JudgeRecipe)
        if protocol.clip:
            given = isinstance(protocol.clip, WeightsConfig)
            found["clip"] = protocol.clip if given else self._instrument("clips", protocol.clip, made.ClipRecipe)
        if protocol.inception:
            found["inception"] = protocol.inception
        if protocol.dino:
            found["dino"] = protocol.dino
        if protocol.video:
            found["video"] = protocol.video
        return found

    def scores(self, name: str, features: str, reference: str, floor: str | None, protocol: ProtocolConfig) -> str:
        """Add the metrics from the features of both sides."""
        settings = parse(ScoreSettings, protocol.settings, f"{self._where}: protocols: settings")
        recipe = made.ScoresRecipe(
            features=features,
            reference=reference,
            floor=floor,
            settings=settings,
            metrics=tuple(sorted(protocol.metrics)),  # in whatever order they are asked for
            published=protocol.published,
        )
        return self.put(name, recipe)
