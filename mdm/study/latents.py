"""Latent diffusion in a study: its autoencoders and codes as artifacts, and what a stage on codes needs of them."""

from typing import Any

from mdm.config import NetworkConfig, ResourceConfig, RunConfig, SampleConfig, StageConfig, StudyError
from mdm.config import recipe as made
from mdm.config.base import parse
from mdm.config.diffusion import DiffusionConfig
from mdm.config.latent import AutoencoderConfig, AutoencoderFit
from mdm.config.recipe_latent import AutoencoderRecipe, LatentsRecipe, LatentStage
from mdm.config.sizes import Clip, Size, listed
from mdm.config.training import TrainConfig
from mdm.study.data_sets import DataSets


def entry_of(sets: DataSets, name: str, asked_by: str) -> AutoencoderConfig:
    """Return the entry of `autoencoders` with this name; an unknown name is an error."""
    entry: AutoencoderConfig = sets.entry("autoencoders", name, asked_by)
    return entry


def autoencoder(sets: DataSets, name: str, asked_by: str) -> str:
    """Add an autoencoder: trained on its data set, or given by its weights."""
    entry, place = entry_of(sets, name, asked_by), f"autoencoders.{name}"
    for data in (entry.data, entry.test):
        sets.check_pictures(data, place)
        sets.check_resolution(data, entry.network.resolution, place)
    fit = None if entry.weights else parse(AutoencoderFit, entry.settings, f"{sets.where}: {place}.settings")
    recipe = AutoencoderRecipe(
        data=sets.data(entry.data, place), test=sets.data(entry.test, place), network=entry.network, fit=fit,
        weights=entry.weights,
    )  # fmt: skip
    return sets.put(name, recipe)


def codes(sets: DataSets, name: str, data: str, asked_by: str) -> str:
    """Add the codes of a data set by an autoencoder."""
    coder, pictures = autoencoder(sets, name, asked_by), sets.data(data, asked_by)
    return sets.put(f"{name}-{sets.artifacts[pictures].name}", LatentsRecipe(autoencoder=coder, data=pictures))


def drawn_sizes(sets: DataSets, run: RunConfig, stage: StageConfig, place: str) -> tuple[Size, ...]:
    """Return what a stage draws, lowest first: its levels, or the pictures that its codes are decoded to."""
    if run.autoencoder is None:
        return stage.sizes
    return (entry_of(sets, run.autoencoder, f"{place}.autoencoder").network.resolution,)


def of_stage(sets: DataSets, train: str) -> tuple[str, ...]:
    """Return the autoencoder and the codes that a training reads, in the order in which they are made."""
    latents: LatentStage | None = sets.artifacts[train].recipe.latents
    if latents is None:
        return ()
    return tuple(filter(None, (latents.autoencoder, latents.codes, latents.validation)))


def check_latent_stage(sets: DataSets, run: RunConfig, stage: StageConfig, asked_by: str, place: str) -> None:
    """Refuse what cannot be trained on codes."""
    if run.autoencoder is None:
        return
    network, where = entry_of(sets, run.autoencoder, f"{asked_by}.autoencoder").network, f"{sets.where}: {place}"
    if run.model.song:
        raise StudyError(f"{where}: autoencoder '{run.autoencoder}': model.song shows colours, not codes; write levels")
    if any(isinstance(size, Clip) for size in stage.sizes) or stage.stills:
        raise StudyError(
            f"{where}: autoencoder '{run.autoencoder}' encodes pictures, and resolutions {listed(stage.sizes)} with "
            f"stills {stage.stills} are of clips; leave autoencoder out"
        )
    if stage.upsamples:
        raise StudyError(
            f"{where}: upsamples enlarges pictures, and autoencoder '{run.autoencoder}' trains on codes; leave out one"
        )
    if len(stage.sizes) > 1:
        raise StudyError(
            f"{where}: resolutions {listed(stage.sizes)}: codes have one level, for means of codes are codes of "
            f"nothing; write resolutions: [{network.grid}]"
        )
    if stage.sizes != (network.grid,):
        raise StudyError(
            f"{where}: resolutions {listed(stage.sizes)} are sides of the grid of codes, and autoencoder "
            f"'{run.autoencoder}' makes {network.resolution} px / factor {network.factor} = {network.grid} of a "
            f"picture; write resolutions: [{network.grid}], or another autoencoders.{run.autoencoder}.network"
        )


def with_codes(sets: DataSets, run: RunConfig, where: str) -> NetworkConfig:
    """Return the network's settings with the channels of the codes in the stage's level."""
    levels: dict[Any, dict[str, Any]] = dict(run.model.levels or {})
    for name, level in levels.items():
        if "codes" in level:
            raise StudyError(f"{where}: model.levels.{name}.codes follows from the autoencoder; leave it out")
    if run.autoencoder is None:
        return run.model
    network = entry_of(sets, run.autoencoder, where).network
    side = next((name for name in levels if str(name) == str(network.grid)), None)
    if side is not None:
        levels[side] = {**levels[side], "codes": network.codes}
    return run.model.model_copy(update={"levels": levels})


def latent_stage(
    sets: DataSets, run: RunConfig, train: TrainConfig, data: str, validation: str | None, place: str
) -> LatentStage | None:
    """Return what a stage on codes reads beside its data set; None for one on pictures."""
    if run.autoencoder is None:
        return None
    for name in filter(None, (data, validation)):
        if sets.entry("data", name, place).settings.get("crop") == "none":
            raise StudyError(
                f"{sets.where}: {place}: squares of data.{name} are cut anew each time and so have no codes that could "
                "be kept; write crop: centre there"
            )
    if train.decode != "exact":
        raise StudyError(
            f"{sets.where}: {place}: train.decode {train.decode} has no effect on codes, which are made "
            "once; leave it out"
        )
    return LatentStage(
        autoencoder=autoencoder(sets, run.autoencoder, place), codes=codes(sets, run.autoencoder, data, place),
        validation=codes(sets, run.autoencoder, validation, place) if validation else None,
        pictures=entry_of(sets, run.autoencoder, place).network.resolution,
    )  # fmt: skip


def unshifted(diffusion: DiffusionConfig, latents: LatentStage | None) -> DiffusionConfig:
    """Return the noise process of codes: no schedule is shifted by the side of a grid."""
    if latents is None:
        return diffusion
    power = DiffusionConfig.model_fields["shift_power"].default
    return diffusion.model_copy(update={"base_resolution": None, "shift_power": power})


def latent_sample(sample: SampleConfig, asked: SampleConfig, latents: LatentStage | None, where: str) -> SampleConfig:
    """Return how codes are drawn: without a threshold, and not at all where the real ones are decoded.

    `asked` is what the study says, from which defaults are told apart.
    """
    if latents is None:
        if sample.latents != "drawn":
            raise StudyError(f"{where}: sample.latents {sample.latents} needs a run with an autoencoder; leave it out")
        return sample
    if sample.latents == "real":
        return SampleConfig(latents="real", threshold="none")
    if "threshold" not in asked.model_fields_set:
        return sample.model_copy(update={"threshold": "none"})
    return sample


def check_real_prompts(
    sets: DataSets, sample: SampleConfig, stage: made.StageRecipe, prompts: str | None, place: str
) -> None:
    """Refuse to decode real pictures where there are none, or none of the right size."""
    if sample.latents != "real" or not stage.latents:
        return
    if prompts is None:
        raise StudyError(
            f"{sets.where}: {place}: sample.latents: real decodes the pictures of the prompts, and "
            "the protocol has none; name a data set in prompts"
        )
    sets.check_pictures(prompts, place)
    sets.check_resolution(prompts, stage.latents.pictures, place)


def resources(sets: DataSets, ref: str) -> ResourceConfig | None:
    """Return what a job of an autoencoder or of codes asks for; None for other artifacts."""
    entry = _entry(sets, ref)
    return entry.resources if entry else None


def shard_count(sets: DataSets, ref: str) -> tuple[int, int] | None:
    """Return how many shards of codes there are at most, and how many one job makes; None for other artifacts."""
    from mdm.data.sources import registry as sources

    recipe, entry = sets.artifacts[ref].recipe, _entry(sets, ref)
    if not entry or not isinstance(recipe, LatentsRecipe):
        return None
    return len(sources.shard_names(sets.artifacts[recipe.data].recipe)), entry.shards_per_job


def _entry(sets: DataSets, ref: str) -> AutoencoderConfig | None:
    """Return the entry of `autoencoders` that an autoencoder, or codes made by one, follow from."""
    if ref not in sets.artifacts:
        return None
    recipe = sets.artifacts[ref].recipe
    named = recipe.autoencoder if isinstance(recipe, LatentsRecipe) else ref
    is_one = isinstance(sets.artifacts[named].recipe, AutoencoderRecipe)
    return entry_of(sets, sets.artifacts[named].name, "autoencoders") if is_one else None
