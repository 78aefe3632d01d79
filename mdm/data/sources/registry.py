"""Where pictures come from. A new source is one module and one line in SOURCES.

A source module has
    VERSION: int                          raised when the same settings give other pictures or captions
    LICENCE: str                          goes into the manifest
    Settings                              a Strict model with at least num_images and resolution
    index(settings) -> Iterator[Row]      what there is, exactly num_images rows, without fetching pictures
    pictures(rows, settings) -> Iterator[(key, Picture | str)]    of one shard: the pictures, or why not
and may have
    describe(settings) -> str             the rule in words, for the protocols that use the data set
    label_count(settings) -> int | None   the largest label `class` and one; 0: there are none; None: nobody knows yet
    listed(settings) -> {file: (caption, labels)} the wanted files of a user's own folder, which are counted, and
                                                  compared with what was made from them, before every run
    outside(settings) -> Iterator[(Path, sha256 | None)]          files of the user that must be there

A source that cannot know before its pictures are there which of them are the same says
    DUPLICATES_IN_MANIFEST = True         and has the setting `duplicates`: none, files or looks

Fields of Settings with `exclude=True` do not determine the content (timeouts, where a list of known hash lies, how
many failures are acceptable). They stay out of the recipe, hence out of its digest, and reach jobs by handling.json.
"""

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mdm.config import StudyError, nearest
from mdm.config.base import parse
from mdm.config.recipe import DataRecipe
from mdm.files.artifact import read_recipe
from mdm.files.atomic import ArtifactError, read_json

SOURCES = {
    "scenes": "mdm.data.sources.scenes.source",
    "folder": "mdm.data.sources.folder",
    "cc12m": "mdm.data.sources.addresses",
    "captioned-urls": "mdm.data.sources.addresses",
    "cc12m-recaptioned": "mdm.data.sources.recaptioned",
    "drawings": "mdm.data.sources.drawings",
    "cifar10": "mdm.data.sources.cifar10",
    "coco": "mdm.data.sources.coco",
    "imagenet": "mdm.data.sources.imagenet",
    "ffhq": "mdm.data.sources.ffhq",
    "clip-folder": "mdm.data.sources.clip_folder",
    "captioned-clips": "mdm.data.sources.clip_list",
    "emoji-clips": "mdm.data.sources.emoji_clips",
    "webdataset": "mdm.data.sources.webdataset",
    "mixture": "mdm.data.sources.mixture",
}

Source = ModuleType  # that offers what is said above


def find(name: str, where: str) -> Source:
    if name not in SOURCES:
        raise StudyError(f"{where}.source: there is no source '{name}'; {nearest(name, SOURCES)}")
    return importlib.import_module(SOURCES[name])


def resolve(name: str, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Return validated settings with every default written out, and the source's version: what a recipe stores."""
    source = find(name, where)
    checked = parse(source.Settings, settings, f"{where}.settings")
    return {**checked.model_dump(mode="json"), "version": source.VERSION}


def handling(name: str, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the settings that `resolve` leaves out: how a data set is made, not what it is."""
    checked = parse(find(name, where).Settings, settings, f"{where}.settings")
    return {key: getattr(checked, key) for key, entry in type(checked).model_fields.items() if entry.exclude}


@dataclass(frozen=True)
class Job:
    """What making a part of a data set needs."""

    recipe: DataRecipe
    source: Source
    settings: Any
    handling: dict[str, Any]

    @property
    def duplicates(self) -> str:
        """Return which duplicates the manifest leaves out: none, files or looks."""
        return self.settings.duplicates if getattr(self.source, "DUPLICATES_IN_MANIFEST", False) else "none"


def job(recipe_path: str | Path) -> Job:
    """Read the proved recipe, joined with handling.json beside it where the source has such settings."""
    recipe, beside = read_recipe(recipe_path, DataRecipe), Path(recipe_path).with_name("handling.json")
    how = read_json(beside) if beside.is_file() else {}
    return Job(recipe, *reopen(recipe, str(recipe_path), how), how)


def reopen(recipe: DataRecipe, where: str, how: dict[str, Any] | None = None) -> tuple[Source, Any]:
    """Return the source module and typed settings of a recipe made by `resolve` and the handling that goes with it."""
    source = find(recipe.source, where)
    settings = dict(recipe.settings)
    version = settings.pop("version", None)
    if version != source.VERSION:
        raise ArtifactError(
            f"{where} was written for version {version} of the source '{recipe.source}', this code has "
            f"version {source.VERSION}; make the recipe again from the study, or check out the commit of then"
        )
    return source, parse(source.Settings, {**settings, **(how or {})}, f"{where} with handling.json")


def rule(recipe_path: str | Path) -> str | None:
    """Return what the source of a data set says about the choice of its pictures and captions, if it does."""
    found = job(recipe_path)
    return found.source.describe(found.settings) if hasattr(found.source, "describe") else None


def label_count(recipe: DataRecipe, how: dict[str, Any], where: str, take: int | None = None) -> int | None:
    """Return how many classes a network must know for a data set, or its first `take` pictures.

    0: it has no label `class`; None: nobody knows yet.
    """
    source, settings = reopen(recipe, where, how)
    settings = settings.model_copy(update={"num_images": take or settings.num_images})
    return source.label_count(settings) if hasattr(source, "label_count") else None


def shard_names(recipe: DataRecipe) -> list[str]:
    """Return the names of all shards ("00000", ...), known from the recipe alone."""
    return [f"{number:05d}" for number in range(math.ceil(recipe.num_images / recipe.shard_images))]
