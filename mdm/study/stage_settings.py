"""What a stage trains and draws with: the settings of its run, its own merged in, and what cannot work refused."""

from mdm.config import (
    DiffusionConfig,
    ModelConfig,
    NetworkConfig,
    RunConfig,
    SampleConfig,
    SongConfig,
    StageConfig,
    TrainConfig,
)
from mdm.config.base import StudyError, nearest, parse
from mdm.config.recipe import DataRecipe, StageRecipe
from mdm.config.sizes import Clip, as_clip, listed, parse_size
from mdm.study.cascades import check_low, network_of

Settings = tuple[TrainConfig, DiffusionConfig]


def stage_model(
    network: NetworkConfig, stage: StageConfig, text_channels: int | None, where: str
) -> ModelConfig | SongConfig:
    """Return the part of the network that a stage trains: its levels only."""
    network = network_of(network, stage, where)
    if network.levels is None:
        return _song(network, stage, text_channels, where)
    levels, known = [], {parse_size(name): settings for name, settings in network.levels.items()}
    for position, size in enumerate(stage.sizes):
        if size not in known:
            raise StudyError(f"{where}: no level {size} in model.levels; {nearest(str(size), map(str, known))}")
        settings = known[size]
        if isinstance(size, Clip):
            settings = {**settings, "video": {**settings.get("video", {}), "frames": size.frames}}
        elif "video" in settings:
            raise StudyError(f"{where}: model.levels.{size}.video: name the level FRAMESx{size}, for example 16x{size}")
        levels.append({"resolution": as_clip(size).resolution, "middle": position == 0, **settings})
    shared = network.model_dump(exclude={"levels", "song"})
    if stage.upsamples:
        shared["upsamples"] = {"size": stage.upsamples.size}
    return parse(ModelConfig, {**shared, "levels": levels, "text_channels": text_channels}, f"{where}: model")


def _song(network: NetworkConfig, stage: StageConfig, text_channels: int | None, where: str) -> SongConfig:
    """Return DDPM++ or NCSN++, which are of one resolution and read no text."""
    if stage.upsamples:
        raise StudyError(f"{where}: upsamples: model.song cannot upsample; write a nested network (levels)")
    if network.song is None:
        raise StudyError(f"{where}: model has neither levels nor song; write one of them")
    own = network.song.resolution
    if stage.sizes != (own,):
        raise StudyError(
            f"{where}: resolutions {listed(stage.sizes)}, but model.song is a network of {own} px alone; write "
            f"resolutions: [{own}], or another model.song.resolution"
        )
    if text_channels:
        raise StudyError(f"{where}: model.song reads no text; leave base.text out, or train a nested network (levels)")
    if stage.resources.recompute not in ((), (own,)):
        raise StudyError(f"{where}: resources.recompute {list(stage.resources.recompute)}: write [{own}] or nothing")
    return parse(SongConfig, network.song.written_out(network.classes), f"{where}: model.song")


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
    conditional = run.text or run.model.classes  # else there is nothing that could be dropped
    if run.model.song and conditional and train.condition_dropout:
        raise StudyError(
            f"{where}: train.condition_dropout {train.condition_dropout}: model.song learns no answer without a class; "
            "write condition_dropout: 0"
        )
    changes = {} if conditional else {"condition_dropout": 0.0}
    changes |= {} if inherited else {"inner_rate": TrainConfig.model_fields["inner_rate"].default}
    return train.model_copy(update=changes)


def stage_settings(run: RunConfig, stage: StageConfig, inherited: int, where: str) -> Settings:
    """Merge the stage's own differences into the settings of its run, those of training and those of diffusion."""
    train = train_settings(run, stage, inherited, where)
    diffusion = parse(DiffusionConfig, {**run.diffusion.model_dump(), **stage.diffusion}, f"{where}: diffusion")
    for key in ("level_weights", "mixed_ratio"):
        value = getattr(diffusion, key)
        if value is not None and len(value) != len(stage.resolutions):
            has = f"has {len(value)} entries, the stage has {len(stage.resolutions)} levels"
            raise StudyError(f"{where}: diffusion.{key} {has}")
    if diffusion.mixed_ratio and diffusion.mixed_ratio[0] * train.batch_images < sum(diffusion.mixed_ratio):
        raise StudyError(
            f"{where}: diffusion.mixed_ratio {list(diffusion.mixed_ratio)} leaves no picture of a batch of "
            f"{train.batch_images} for the highest level; write a larger train.batch_images"
        )
    counts = [("num_images", stage.num_images), ("slice_images", stage.slice_images or 0)]
    for key, images in counts + [("snapshots", images) for images in stage.snapshots]:
        if images % train.batch_images:
            batch, near = train.batch_images, max(1, round(images / train.batch_images)) * train.batch_images
            raise StudyError(f"{where}: {key} {images} is not a multiple of batch_images {batch}; write {near}")
    diffusion = diffusion.effective(stage.sizes)
    try:
        train.require_parts(stage.resources.parts, diffusion)
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    return train, diffusion


def check_sample(sample: SampleConfig, stage: StageRecipe, where: str) -> None:
    """Refuse sampling settings that the network of a run's last stage cannot follow."""
    diffusion = stage.diffusion
    check_low(sample, stage, where)
    if diffusion.parameterisation == "gamma" and sample.steps > diffusion.steps:
        raise StudyError(
            f"{where}: sample.steps {sample.steps} is more than the {diffusion.steps} diffusion.steps of the last "
            f"stage; write at most {diffusion.steps}"
        )
    if stage.latents and sample.threshold != "none":
        raise StudyError(
            f"{where}: sample.threshold {sample.threshold}: latent codes have no range to be kept within; write "
            "threshold: none"
        )
    if sample.sampler == "karras":
        _check_karras(stage, where)
    if sample.guidance != 1 and not stage.conditional:
        raise StudyError(
            f"{where}: sample.guidance {sample.guidance} needs a condition to guide towards; "
            "write guidance: 1, or train with text or model.classes"
        )
    if sample.guidance != 1 and isinstance(stage.model, SongConfig):
        raise StudyError(
            f"{where}: sample.guidance {sample.guidance}: model.song knows no 'no class' that could be led away from; "
            "write guidance: 1"
        )
    unseen = "'no class'" if stage.model.classes else "" if sample.negative_prompt else "the empty caption"
    if sample.guidance != 1 and unseen and not stage.train.condition_dropout:
        raise StudyError(
            f"{where}: sample.guidance {sample.guidance} leads away from {unseen}, which training with "
            "condition_dropout 0 never shows; write guidance: 1, or a condition_dropout such as 0.1"
        )


def _check_karras(stage: StageRecipe, where: str) -> None:
    """Refuse the released code's sampler where it has no meaning."""
    if not stage.diffusion.sigmas:
        raise StudyError(
            f"{where}: sample.sampler karras needs continuous noise levels, not parameterisation: "
            f"{stage.diffusion.parameterisation}; write edm, vp or ve there, or sampler: heun"
        )
    if stage.latents:
        raise StudyError(f"{where}: sample.sampler karras draws pictures, not codes; write sampler: heun")
    if len(stage.sizes) > 1 or isinstance(stage.sizes[0], Clip):
        raise StudyError(
            f"{where}: sample.sampler karras draws pictures of a single level, and the last stage has "
            f"{listed(stage.sizes)}; write sampler: heun, which draws all levels at once"
        )


def check_autoguidance(sample: SampleConfig, where: str) -> None:
    """Refuse a weight without a worse network to lead away from, and such a network without a weight."""
    if (sample.guide is None) != (sample.autoguidance == 1):
        raise StudyError(
            f"{where}: autoguidance {sample.autoguidance:g} with guide {sample.guide or 'none'}; write both, a weight "
            "above 1 and the name of a run, or neither"
        )


def check_guide(own: StageRecipe, guide: StageRecipe, where: str) -> None:
    """Refuse a guide that cannot answer the same question: other levels, another noise process, another condition."""
    for what, mine, others in (
        ("levels", listed(own.sizes), listed(guide.sizes)),
        ("diffusion settings", own.diffusion, guide.diffusion),
        ("text", own.text, guide.text),
        ("classes", own.model.classes, guide.model.classes),
        ("small pictures", own.low_size, guide.low_size),
        ("latents", own.latents and own.latents.autoencoder, guide.latents and guide.latents.autoencoder),
    ):
        if mine != others:
            shown = f" ({mine} and {others})" if what == "levels" else ""
            raise StudyError(f"{where}: the guide has other {what} than the run it guides{shown}; name another run")


def check_stills(stage: StageConfig, train: TrainConfig, diffusion: DiffusionConfig, where: str) -> None:
    """Refuse stills without a place: they are the rows of a batch that no level of clips sees."""
    clips = [size for size in stage.sizes if isinstance(size, Clip)]
    mixed_ratio, batch = diffusion.mixed_ratio, train.batch_images
    if not clips:
        raise StudyError(f"{where}: stills {stage.stills} have no effect without a level of clips")
    if not mixed_ratio or not sum(mixed_ratio[len(clips) :]):
        raise StudyError(
            f"{where}: stills {stage.stills} have no place: every row of the batch goes through a "
            "level of clips; write a diffusion.mixed_ratio whose last entries, those of pictures, are not zero"
        )
    rows = int(sum(mixed_ratio[: len(clips)]) / sum(mixed_ratio) * batch + 1e-9)
    if rows % (processes := stage.resources.nodes * max(1, stage.resources.gpus)):
        raise StudyError(
            f"{where}: {rows} of the {batch} rows of a batch are clips, which {processes} processes "
            "cannot share evenly; use another number of gpus, or change diffusion.mixed_ratio"
        )


def check_optimum(stage: StageRecipe, data: DataRecipe, wanted: int, where: str) -> None:
    """Refuse excess loss where the best denoiser of the training pictures is not known in closed form."""
    if stage.low_size:
        raise StudyError(f"{where}: its optimum sees no small picture, and a run ends with an upsampler; leave it out")
    if any(isinstance(size, Clip) for size in stage.sizes):
        raise StudyError(f"{where}: it is measured on pictures, and a run ends with clips; leave it out")
    if isinstance(stage.model, SongConfig) and stage.model.classes:
        raise StudyError(f"{where}: it asks networks without a class, which model.song with classes never learns")
    if stage.latents:
        raise StudyError(f"{where}: it is measured on pictures, and a run trains on latent codes; leave it out")
    if stage.diffusion.shared_noise:
        raise StudyError(
            f"{where}: its optimum takes each level's noise for independent; leave out shared_noise, or it"
        )
    if data.settings.get("crop") == "none":
        raise StudyError(f"{where}: squares cut anew each time are no finite set of pictures; write crop: centre")
    if wanted > (there := stage.take or data.num_images):
        raise StudyError(f"{where}.num_images {wanted}: the training set has {there}; write that or less")


def check_explained(stage: StageRecipe, there: int, where: str) -> None:
    """Refuse an explanation without pictures to draw it from."""
    if stage.latents:
        raise StudyError(f"{where}: it is drawn from pictures, and base trains on latent codes; leave it out")
    if any(isinstance(size, Clip) for size in stage.sizes):
        raise StudyError(f"{where}: it is drawn from pictures, and base trains on clips; leave it out")
    if there < 2:
        raise StudyError(f"{where}: it compares training pictures, and base trains on {there}; leave it out")


def taken(take: int | None, data: DataRecipe, name: str, where: str) -> int | None:
    """Return how many pictures a stage takes, None for all; refuse sets whose first pictures stand for no smaller one.

    All are None, so that the run that takes as many as there are is the run that says nothing.
    """
    if take is None or take == data.num_images:
        return None
    if take > data.num_images:
        raise StudyError(f"{where}: take {take}: data.{name} has {data.num_images} pictures; write that or less")
    for wrong, why, remedy in (
        (data.settings.get("copies"), "plants copies behind all others", "a data set for each size"),
        (data.settings.get("order") == "class", "begins with the first classes alone", "order: turns there"),
        (_by_number(data), "is balanced as a whole, and its first pictures are not", "order: turns there"),
        (data.source == "mixture", "begins with its first part alone", "a data set for each size"),
    ):
        if wrong:
            raise StudyError(f"{where}: take {take}: data.{name} {why}; write {remedy}")
    return take


def _by_number(data: DataRecipe) -> bool:
    """Whether several classes, as many pictures of each, stand in the order of their numbers."""
    several = len(data.settings.get("classes") or ()) > 1
    return several and bool(data.settings.get("balanced")) and data.settings.get("order", "number") == "number"


def check_carried(train: TrainConfig, parent: StageRecipe | None, where: str) -> None:
    """Refuse to carry moments where there are none, or none of weights that still learn by the same optimisers."""
    if parent is None or train.inner_rate == 0:
        why = "a first stage has none" if parent is None else "train.inner_rate 0 freezes the weights they belong to"
        raise StudyError(f"{where}: moments: carried has no effect, {why}; leave it out")
    before = parent.train.matrix_rate
    if (before is None) != (train.matrix_rate is None):
        raise StudyError(
            f"{where}: moments: carried needs the optimiser of the stage before, but its train.matrix_rate is "
            f"{before} and here {train.matrix_rate}; write moments: fresh"
        )
