"""Data sets as artifacts of a study, and what their use in a run needs of them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mdm.config import RunConfig, StudyConfig, StudyError, nearest
from mdm.config import recipe as made
from mdm.config.sizes import Clip, Size
from mdm.files.artifact import digest

VARIED = " with "  # between the name of a data set and what a run changes in it


@dataclass(frozen=True)
class Artifact:
    """One folder under results/: {kind}/{name}-{digest of the recipe}."""

    name: str
    recipe: made.Recipe
    # How a data set is made where that does not change what it is: see mdm/data/sources.
    handling: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.recipe.kind

    @cached_property
    def ref(self) -> str:
        """Name its folder, as other recipes do."""
        return f"{self.kind}/{self.name}-{digest(self.recipe.plain())}"


class DataSets:
    """The artifacts of a study, each made once however many runs need it; of their kinds this knows data sets."""

    def __init__(self, config: StudyConfig, where: str) -> None:
        # What runs make of a data set joins those of the file.
        self._config, self._where = config.model_copy(update={"data": dict(config.data)}), where
        self.artifacts: dict[str, Artifact] = {}
        self._data: dict[str, str] = {}  # many runs ask for the same data set

    def put(self, name: str, recipe: made.Recipe, handling: dict[str, Any] | None = None) -> str:
        """Add an artifact and return its name."""
        artifact = Artifact(name, recipe, handling or {})
        self.artifacts[artifact.ref] = artifact
        return artifact.ref

    @property
    def where(self) -> str:
        """The study's file, as messages name it."""
        return self._where

    def entry(self, section: str, name: str, asked_by: str) -> Any:
        """Return what the study says under a section about a name; an unknown one is an error."""
        return self._pick(section, name, asked_by)

    def _pick(self, section: str, name: str, asked_by: str) -> Any:
        entries = getattr(self._config, section)
        if name not in entries:
            valid = nearest(name, (entry for entry in entries if VARIED not in entry))
            raise StudyError(f"{self._where}: {asked_by}: no '{name}' under `{section}`; {valid}")
        return entries[name]

    def data(self, name: str, asked_by: str) -> str:
        """Add a data set; its source validates its own settings and adds its version."""
        if name in self._data:
            return self._data[name]
        from mdm.data.sources import registry as sources  # loaded with the first data set; light and free of torch

        entry = self._pick("data", name, asked_by)
        place = f"{self._where}: data.{name}"
        settings = sources.resolve(entry.source, entry.settings, place)
        handling = sources.handling(entry.source, entry.settings, place)
        recipe = made.DataRecipe(source=entry.source, settings=settings, shard_images=entry.shard_images)
        self._data[name] = self.put(name.partition(VARIED)[0], recipe, handling)
        return self._data[name]

    def vary(self, name: str, changes: dict[str, Any], asked_by: str) -> str:
        """Return the name of the data set with some settings changed; without changes it is the set itself."""
        if not changes:
            return name
        entry = self._pick("data", name, asked_by)
        varied = f"{name}{VARIED}{', '.join(f'{key}: {value!r}' for key, value in changes.items())}"
        self._config.data.setdefault(varied, entry.model_copy(update={"settings": {**entry.settings, **changes}}))
        return varied

    def label_count(self, data: str, place: str, take: int | None = None) -> int | None:
        """Return how many classes the pictures of a set, or its first, have; 0: none; None: nobody knows yet."""
        from mdm.data.sources import registry as sources

        artifact = self.artifacts[self.data(data, place)]
        return sources.label_count(artifact.recipe, artifact.handling, f"{self._where}: data.{data}", take)

    def _check_classes(self, run: RunConfig, data: str, place: str, take: int | None = None) -> None:
        """Refuse labels that the network does not know, before hours of training do."""
        if not run.model.classes or run.class_label != RunConfig.model_fields["class_label"].default:
            return
        needed = self.label_count(data, place, take)
        if needed == 0:
            raise StudyError(
                f"{self._where}: {place}: model.classes {run.model.classes}, but data.{data} has no label `class`; "
                "write label: class, random or unique in its settings, or another class_label"
            )
        if needed is not None and needed > run.model.classes:
            raise StudyError(
                f"{self._where}: {place}: model.classes {run.model.classes}, but the labels of data.{data} go from 0 "
                f"to {needed - 1}; write model.classes: {needed}"
            )

    def check_frames(self, data: str, size: Size, place: str) -> None:
        """Refuse pictures, or clips of other lengths, for a level of clips."""
        if not isinstance(size, Clip):
            return
        there = self._pick("data", data, place).settings.get("frames")
        if there is None or there % size.frames:
            has = f"has clips of {there} frames" if there else "has pictures"
            raise StudyError(
                f"{self._where}: {place}: the level {size} needs clips of {size.frames} frames, or of a multiple, and "
                f"data.{data} {has}; name a data set of a source of clips, with frames: {size.frames}"
            )

    def check_resolution(self, data: str, resolution: int, place: str) -> None:
        """Refuse a data set that is not stored at a multiple of the resolution it is used at."""
        stored = self._pick("data", data, place).settings.get("resolution")
        if stored is not None and (stored < resolution or stored % resolution):
            raise StudyError(
                f"{self._where}: {place}: works at {resolution} px, but data.{data} is stored at {stored} px; "
                f"write a multiple of {resolution} there"
            )

    def check_pictures(self, data: str, place: str) -> None:
        """Refuse clips where only pictures can be used."""
        if "frames" in self._pick("data", data, place).settings:
            raise StudyError(f"{self._where}: {place}: data.{data} has clips; name a data set of pictures")

    def too_many(self, data: str, wanted: int, place: str) -> list[str]:
        """Return the problem, if a protocol wants more pictures than a data set has."""
        there = made.pictures_of(self._pick("data", data, place).settings)
        if not there or wanted <= there:
            return []
        return [f"{self._where}: {place}: {wanted} pictures of data.{data}, which has {there}; write {there} or less"]
