"""Two sources in one data set: the first pictures of one, then the first of the other, by share.

It is for studies of how alike training pictures are, such as dogs of CIFAR-10 mixed with dogs of ImageNet. The count of
the first part is int(N (1 - share)), in floating point and rounded down as in the tools released with arXiv 2310.02664:
a share of 0.8 of 1000 gives 199 and 801.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from mdm.config import Positive, Probability, Strict
from mdm.data.rows import Outcomes, Row
from mdm.data.sources import registry
from mdm.data.sources.factors import Labelled, Planted, labelled, planted
from mdm.data.sources.factors import label_count as count_of
from mdm.files.artifact import canonical

VERSION = 1
DUPLICATES_IN_MANIFEST = True
LICENCE = "each picture keeps the licence of its source"
WHERE = "mixture.parts"
WHOLE_ONLY = {"copies": None, "duplicates": "none"}  # what sources leave to whoever makes the data set


class Part(Strict):
    """A source and its settings; they get the resolution, and the count of the part unless they say another."""

    source: str = Field(description="any source of pictures but a mixture")
    settings: dict[str, Any] = Field(default={}, description="settings of that source")


class Settings(Labelled, Planted):
    later: ClassVar = (*Labelled.later, *Planted.later)
    no_true_class: ClassVar = "classes of two sources have different meanings"

    num_images: Positive = Field(description="pictures of both parts together")
    share: Probability = Field(description="of the second part")
    resolution: Positive = Field(description="of both parts")
    parts: Annotated[tuple[Part, Part], Field(description="[{source, settings}, {source, settings}]")]
    # What the sources leave out of recipes (paths, folders of packages) stays out of this one.
    handled: tuple[dict[str, Any], dict[str, Any]] = Field(default=({}, {}), exclude=True, description="made by itself")

    @model_validator(mode="before")
    @classmethod
    def _with_settings_of_parts(cls, given: Any) -> Any:
        """Check the settings of both sources, write every default out, and part those that are no content."""
        if not isinstance(given, dict) or not isinstance(parts := given.get("parts"), list | tuple) or len(parts) != 2:
            return given
        needed = ("num_images", "share", "resolution")
        if not all(isinstance(given.get(key), int | float) for key in needed):
            return given  # the fields say what is wrong
        handled, found = given.get("handled") or ({}, {}), []
        for part, how, count in zip(parts, handled, counts(given["num_images"], given["share"]), strict=True):
            if not isinstance(part, dict) or part.get("source") == "mixture":
                raise ValueError(f"{WHERE}: write {{source, settings}}, with a source of pictures of its own")
            shared = {"num_images": max(count, 1), "resolution": given["resolution"]}
            found.append(_resolved(str(part.get("source")), {**shared, **part.get("settings", {}), **how}))
        parts = [{"source": source, "settings": settings} for source, settings, _ in found]
        return {**given, "parts": parts, "handled": [how for *_, how in found]}


def _resolved(name: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    version = settings.pop("version", None)
    source = registry.find(name, WHERE)
    for key, without in WHOLE_ONLY.items() if getattr(source, "DUPLICATES_IN_MANIFEST", False) else ():
        if settings.get(key, without) not in (without, None):
            raise ValueError(
                f"{WHERE}: {key} of a part has no effect; write it beside parts, for both, or leave it out"
            )
    if version not in (None, source.VERSION):
        raise ValueError(f"{WHERE}: written for version {version} of '{name}', this code has {source.VERSION}")
    return name, registry.resolve(name, settings, WHERE), registry.handling(name, settings, WHERE)


def counts(num_images: int, share: float) -> tuple[int, int]:
    """Return how many pictures each part has."""
    first = int(num_images * (1 - share))
    return first, num_images - first


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each picture; what its source needs to make it stands in the column `row`."""
    return planted(labelled(_rows(settings), settings), settings)


def label_count(settings: Settings) -> int | None:
    """Return what `model.classes` must be at least; 0 where there is no label `class`."""
    return count_of(settings, settings.num_images)


def outside(settings: Settings) -> Iterator[tuple[Path, str | None]]:
    """Yield the files of the user that either source needs."""
    for part in (0, 1):
        source, own = _opened(settings, part)
        yield from source.outside(own) if hasattr(source, "outside") else ()


def _rows(settings: Settings) -> Iterator[Row]:
    place = 0
    for part, count in enumerate(counts(settings.num_images, settings.share)):
        source, own = _opened(settings, part)
        for row in islice(source.index(own) if count else (), count):
            licence = row.columns.get("licence", source.LICENCE)
            kept = canonical({"key": row.key, "columns": row.columns}).decode()
            columns = {"part": str(part), "row": kept, "licence": licence}
            labels = {key: value for key, value in row.labels.items() if key != "class"}
            yield Row(f"{place:08d}", row.caption, labels, columns)
            place += 1


def _opened(settings: Settings, part: int) -> tuple[registry.Source, Any]:
    entry = settings.parts[part]
    source, known = registry.find(entry.source, WHERE), {**entry.settings, **settings.handled[part]}
    return source, registry.parse(source.Settings, {k: v for k, v in known.items() if k != "version"}, WHERE)


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    for part in (0, 1):
        keys: dict[str, list[str]] = {}  # of the rows that show a picture of the part: several where it is planted
        wanted: dict[str, Row] = {}
        for row in rows:
            if row.columns["part"] == str(part):
                own = json.loads(row.columns["row"])
                keys.setdefault(own["key"], []).append(row.key)
                wanted[own["key"]] = Row(own["key"], row.caption, row.labels, own["columns"])
        if wanted:
            source, known = _opened(settings, part)
            for key, outcome in source.pictures(list(wanted.values()), known):
                yield from ((own, outcome) for own in keys[key])
