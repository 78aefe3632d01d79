"""Cascades: which stage draws what an upsampler enlarges, how it draws it, and what cannot work refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mdm.config import AugmentationConfig, NetworkConfig, RunConfig, SampleConfig, StageConfig, StudyError
from mdm.config.base import parse
from mdm.config.diffusion import CASCADE_SETTINGS, DiffusionConfig
from mdm.config.recipe import StageRecipe
from mdm.config.sizes import Size, listed
from mdm.study.runs import Stage

NOT_OF_THE_BASE = (*CASCADE_SETTINGS, "guide", "autoguidance")


def base_of(entry: StageConfig, before: Sequence[Stage], where: str) -> Stage | None:
    """Return the last stage before an upsampler whose highest level it enlarges; None for any other stage."""
    if entry.upsamples is None:
        if before and before[-1].base:
            raise StudyError(
                f"{where}: it would continue the upsampler '{before[-1].name}', and networks grow around pictures that "
                "they draw alone; write upsamples here too, or put this stage before the upsampler"
            )
        return None
    size = entry.upsamples.size
    if found := next((stage for stage in reversed(before) if stage.resolutions[-1] == size), None):
        return found
    drawn: list[Size] = list(dict.fromkeys(stage.resolutions[-1] for stage in before))
    seen = f"the stages before it draw {listed(drawn)}" if drawn else "there is no stage before it"
    raise StudyError(
        f"{where}: upsamples.size {size}, but {seen}; put a stage before it that ends with {size} px, or write another "
        "size"
    )


def network_of(network: NetworkConfig, stage: StageConfig, where: str) -> NetworkConfig:
    """Return the settings of the network, and what an upsampler has otherwise; a level named there is written whole."""
    if not stage.model:
        return network
    if network.song or "song" in stage.model:
        raise StudyError(f"{where}: model.song cannot upsample; write a nested network (levels) in base.model")
    own = stage.model.get("levels") or {}
    if not isinstance(own, dict):
        raise StudyError(f"{where}: model.levels {own}: write a mapping, as in base.model")
    if unused := [name for name in own if str(name) not in map(str, stage.sizes)]:
        raise StudyError(
            f"{where}: model.levels.{unused[0]} has no effect, the stage draws {listed(stage.sizes)}; leave it out"
        )
    merged = {**network.model_dump(), **stage.model, "levels": {**(network.levels or {}), **own}}
    if (classes := merged["classes"]) not in (None, network.classes):
        raise StudyError(
            f"{where}: model.classes {classes}, and its base knows {network.classes or 'none'}: both draw a picture of "
            "one class; leave it out here, or write null"
        )
    return parse(NetworkConfig, merged, f"{where}: model")


def augmentation_of(stage: StageConfig, base: StageRecipe | None) -> AugmentationConfig | None:
    """Return the noise of an upsampler's training: that of the stage that draws for it, at its own resolution.

    Where there is none, the base's schedule changes nothing, and so not the digest.
    """
    if stage.upsamples is None or base is None:
        return None
    diffusion = base.diffusion if stage.upsamples.noise != "none" else DiffusionConfig()
    return AugmentationConfig(
        levels=stage.upsamples.noise, schedule=diffusion.schedule, steps=diffusion.steps, most=stage.upsamples.most
    )


def at(run: RunConfig, last: Stage, stage: Stage, where: str) -> RunConfig:
    """Return the run as it draws with one of its stages, on the way to its last."""
    while last.base and last.name != stage.name:
        run, last = as_base(run, last.base, where), last.base
    return run


def as_base(run: RunConfig, base: Stage, where: str) -> RunConfig:
    """Return the run as the base of its upsampler draws: `sample.base` over the run's own settings."""
    place = f"{where}: sample.base"
    own = run.sample.base
    if base.base is None and (wrong := [key for key in CASCADE_SETTINGS if key in own]):
        raise StudyError(f"{place}: {', '.join(wrong)}: stage '{base.name}' is no upsampler; leave it out")
    if wrong := [key for key in ("guide", "autoguidance") if key in own]:
        raise StudyError(f"{place}: {', '.join(wrong)}: autoguidance leads the last network alone; leave it out")
    kept = set(NOT_OF_THE_BASE) - ({"low_noise"} if base.base else set())  # upsamplers in a row share their noise
    inherited = {key: value for key, value in run.sample.model_dump().items() if key not in kept}
    return run.model_copy(update={"sample": parse(SampleConfig, {**inherited, **own}, place)})


def hashed(sample: SampleConfig, stage: StageRecipe) -> SampleConfig:
    """Return the settings as a recipe of pictures holds them: it names what is enlarged by its artifact."""
    gone = [key for key in CASCADE_SETTINGS if key != "low_noise" or stage.low_size is None]
    return sample.model_copy(update={key: SampleConfig.model_fields[key].default for key in gone})


def check_low(sample: SampleConfig, stage: StageRecipe, where: str) -> None:
    """Refuse settings of small pictures that an upsampler cannot follow."""
    if stage.augmentation is None:
        return
    if sample.low_noise and stage.augmentation.levels == "none":
        raise StudyError(
            f"{where}: sample.low_noise {sample.low_noise}: the upsampler was trained with upsamples.noise: none and "
            "never saw noise; write low_noise: 0, or noise: uniform"
        )
    if sample.low_noise > stage.augmentation.most:
        raise StudyError(
            f"{where}: sample.low_noise {sample.low_noise}: the upsampler was trained with noise up to upsamples.most "
            f"{stage.augmentation.most} alone; write that or less"
        )
    if sample.low == "real" and sample.base:
        raise StudyError(f"{where}: sample.base {sample.base} has no effect with low: real; leave it out")


def check_guide_low(sample: SampleConfig, own: StageRecipe, guide: StageRecipe, where: str) -> None:
    """Refuse a guide that would be told of noise as its training never told it; without noise it may be any."""
    if own.augmentation is None or not sample.low_noise or own.augmentation == guide.augmentation:
        return
    noises = [f"{a.levels} of {a.schedule}, {a.steps} steps" for a in (own.augmentation, guide.augmentation) if a]
    raise StudyError(
        f"{where}: the guide got used to other noise on its small pictures than the run it guides "
        f"({' and '.join(noises)}); write low_noise: 0, or name another run"
    )


def check_asked(metrics: Collection[str], stage: StageRecipe, where: str, name: str) -> None:
    """Refuse metrics that ask networks about noise alone of one that answers with a small picture at hand."""
    asking = [metric for metric in ("loss_gap", "text_signal") if metric in metrics]
    if asking and stage.low_size:
        raise StudyError(
            f"{where}: {', '.join(asking)} asks networks about noise alone, and the upsampler of stage '{name}' "
            "answers with a small picture at hand; leave it out of metrics"
        )
