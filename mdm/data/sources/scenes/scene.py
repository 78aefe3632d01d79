"""Procedural captioned pictures: licence-free, endless, and every caption and label is true by construction.

A scene depends on (seed, split, id) and the knobs only. Raise SCENES_VERSION with any change of what it shows or says.
"""

import hashlib
import itertools
from dataclasses import replace
from functools import cache
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mdm.config import Count, Positive, nearest
from mdm.data.sources.factors import Labelled, Planted
from mdm.data.sources.scenes import layout
from mdm.data.sources.scenes.layout import Draw, Point
from mdm.data.sources.scenes.picture import LARGEST, SMALLEST
from mdm.data.sources.scenes.records import BACKGROUNDS, FILLS, RELATIONS, SIZES, Background, Group, Scene
from mdm.data.sources.scenes.shapes import COLOURS, ROOMS, SHAPES, TONES, is_held_out

SCENES_VERSION = 1
RELATION_LABELS = ("none", "left", "right", "above", "below", "inside", "contains")
TURNED = {"left": "right", "right": "left", "above": "below", "below": "above", "inside": "contains"}
TILT = 0.16  # radians either way: lively, and a square stays a square
TWO_GROUPS_SHARE = 2 / 3  # of scenes with two objects or more
SOLID_WEIGHT = 3  # as likely as three other fills

Pair = tuple[str, str]  # colour, shape


class SceneSettings(Labelled, Planted):
    """Which scenes: the knobs only ever make the world smaller."""

    later: ClassVar = (*Labelled.later, *Planted.later)

    seed: Count = 0
    split: Literal["train", "validation", "held-out", "all"] = Field(
        default="train", description="held-out scenes show colour-shape pairs that train and validation never do"
    )
    num_images: Positive
    resolution: Annotated[int, Field(ge=SMALLEST, le=LARGEST)]
    max_objects: Annotated[int, Field(ge=1, le=4)] = 4
    shapes: tuple[str, ...] | None = Field(default=None, description="default: all")
    colours: tuple[str, ...] | None = Field(default=None, description="default: all")
    sizes: tuple[str, ...] | None = Field(default=None, description="default: all")
    fills: tuple[str, ...] | None = Field(default=None, description="default: all")
    backgrounds: tuple[str, ...] | None = Field(default=None, description="patterns; default: all")
    relations: tuple[str, ...] | None = Field(
        default=None, description="default: all that the other knobs allow; []: one group per scene"
    )
    phrasings: Positive | None = Field(default=None, description="captions use the first so many; default: all")
    framing: Literal["wide", "close"] = Field(
        default="wide", description="close: the objects stand together and fill the picture"
    )

    @field_validator("shapes", "colours", "sizes", "fills", "backgrounds", "relations")
    @classmethod
    def _words_are_known(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        known = KNOBS[info.field_name]
        for word in value or ():
            if word not in known:
                raise ValueError(f"'{word}' is not one of the {info.field_name}; {nearest(word, known)}")
        if value is not None and (len(set(value)) < len(value) or (not value and info.field_name != "relations")):
            raise ValueError(f"{info.field_name} must name at least one value, each once; leave it out for all")
        # The order in which a study lists words must not change the pictures.
        return None if value is None else tuple(word for word in known if word in value)

    @model_validator(mode="after")
    def _world_is_not_empty(self) -> Self:
        if not _pairs(self)[0]:
            where = "holds" if self.split == "held-out" else "leaves"
            raise ValueError(
                f"split '{self.split}' {where} no colour-shape pair of colours {self.knob('colours')} and "
                f"shapes {self.knob('shapes')}; name more of them, or write split: all"
            )
        for relation in self.relations or ():
            if relation not in _possible(self):
                raise ValueError(
                    f"relation '{relation}' can never be shown with max_objects {self.max_objects} and these "
                    "shapes, colours and sizes; take it out or allow more (inside needs two colours, large, "
                    "and small or medium)"
                )
        return self

    def knob(self, name: str) -> tuple[str, ...]:
        """Return the allowed words of a knob, all if it was left out."""
        value = getattr(self, name)
        return tuple(KNOBS[name]) if value is None else value


KNOBS: dict[str, tuple[str, ...]] = {
    "shapes": tuple(SHAPES), "colours": tuple(COLOURS), "sizes": SIZES, "fills": FILLS, "backgrounds": BACKGROUNDS,
    "relations": RELATIONS,
}  # fmt: skip


@cache
def _pairs(settings: SceneSettings) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return the (colour, shape) pairs of the first group and of the second."""
    every = tuple(itertools.product(settings.knob("colours"), settings.knob("shapes")))
    seen = tuple(pair for pair in every if not is_held_out(*pair))
    if settings.split == "all":
        return every, every
    # A held-out scene has one new pair; the other group is familiar, so a failure has one cause.
    return (tuple(pair for pair in every if is_held_out(*pair)), seen) if settings.split == "held-out" else (seen, seen)


@cache
def _partners(settings: SceneSettings, first: Pair, relation: str) -> tuple[Pair, ...]:
    """Return the pairs that the second group may have beside (or around) the first."""
    others = tuple(pair for pair in _pairs(settings)[1] if pair != first)
    if relation != "inside":
        return others
    return tuple(pair for pair in others if pair[0] != first[0] and pair[1] in ROOMS)


@cache
def _side_layouts(settings: SceneSettings, total: int) -> tuple[tuple[tuple[int, int], tuple[str, str]], ...]:
    """Return all (counts, sizes) of two groups that fit side by side."""
    sizes = tuple(itertools.product(settings.knob("sizes"), repeat=2))
    counts = tuple((n, total - n) for n in range(1, total))
    return tuple((n, s) for n, s in itertools.product(counts, sizes) if layout.fits(n, s))


@cache
def _inside_layouts(settings: SceneSettings, count: int, container: str) -> tuple[str, ...]:
    """Return the sizes of `count` objects that fit inside a container of this shape."""
    if "large" not in settings.knob("sizes"):
        return ()
    room = ROOMS[container][1] * layout.CONTAINER_RADII[0]
    inner = [size for size in settings.knob("sizes") if size != "large"]
    return tuple(size for size in inner if layout.room_needed(count, size) <= room)


@cache
def _choices(settings: SceneSettings, first: Pair, total: int) -> tuple[str, ...]:
    """Return the relations that a scene with this first pair and this many objects can show."""
    if total < 2 or total > settings.max_objects:
        return ()
    found = []
    for relation in settings.knob("relations"):
        partners = _partners(settings, first, relation)
        if relation == "inside":
            possible = any(_inside_layouts(settings, total - 1, shape) for _, shape in partners)
        else:
            possible = bool(partners) and bool(_side_layouts(settings, total))
        found += [relation] if possible else []
    return tuple(found)


@cache
def _possible(settings: SceneSettings) -> frozenset[str]:
    totals = range(2, settings.max_objects + 1)
    return frozenset(r for first in _pairs(settings)[0] for n in totals for r in _choices(settings, first, n))


def scene(seed: int, id: int, settings: SceneSettings) -> Scene:
    """Make the scene with this id: a pure function of its arguments. Splits are separate streams."""
    key = hashlib.sha256(f"scenes/{SCENES_VERSION}/{settings.split}/{seed}/{id}".encode()).digest()
    draw = Draw(int.from_bytes(key[:16], "big"))
    total = 1 + draw.index(settings.max_objects)
    first = draw.pick(_pairs(settings)[0])
    choices = _choices(settings, first, total)
    relation = draw.pick(choices) if choices and draw.between(0, 1) < TWO_GROUPS_SHARE else None
    if relation is None:
        groups: tuple[Group, ...] = (_alone(draw, settings, first, total),)
    elif relation == "inside":
        groups = _nested(draw, settings, first, total - 1)
    else:
        groups = _side(draw, settings, first, total, relation)
    if settings.framing == "close":
        groups = _close_up(draw, groups, relation)
    kind, tone = draw.pick(settings.knob("backgrounds")), draw.pick(tuple(TONES))
    background = Background(kind, tone, draw.between(0, 6.283185), int.from_bytes(key[16:24], "big"))
    return Scene(id, groups, relation, background, int.from_bytes(key[24:28], "big"))


def main_class(id: int, settings: SceneSettings) -> int:
    """Return the class of a scene: the place of its first group's colour and shape among all that it might show."""
    first = scene(settings.seed, id, settings).groups[0]
    return _pairs(settings)[0].index((first.colour, first.shape))


def main_classes(settings: SceneSettings) -> int:
    return len(_pairs(settings)[0])


def _group(draw: Draw, settings: SceneSettings, pair: Pair, size: str, radius: float, centres: list[Point]) -> Group:
    fills = [fill for fill in settings.knob("fills") for _ in range(SOLID_WEIGHT if fill == "solid" else 1)]
    tilts = tuple(draw.between(-TILT, TILT) for _ in centres)
    return Group(size, draw.pick(fills), *pair, radius, tuple(centres), tilts)


def _radius(draw: Draw, size: str) -> float:
    return layout.RADII[size] * (1 + draw.between(-1, 1) * layout.RADIUS_SPREAD)


def _alone(draw: Draw, settings: SceneSettings, pair: Pair, count: int) -> Group:
    size = draw.pick([size for size in settings.knob("sizes") if layout.fits((count,), (size,))])
    radius = _radius(draw, size)
    return _group(draw, settings, pair, size, radius, layout.scatter(draw, count, radius, layout.FRAME))


def _side(draw: Draw, settings: SceneSettings, first: Pair, total: int, relation: str) -> tuple[Group, Group]:
    counts, sizes = draw.pick(_side_layouts(settings, total))
    second = draw.pick(_partners(settings, first, relation))
    radii = [_radius(draw, size) for size in sizes]
    places = layout.side_by_side(draw, relation, counts, radii)
    groups = zip((first, second), sizes, radii, places, strict=True)
    return tuple(_group(draw, settings, *group) for group in groups)


def _nested(draw: Draw, settings: SceneSettings, first: Pair, count: int) -> tuple[Group, Group]:
    partners = _partners(settings, first, "inside")
    second = draw.pick([pair for pair in partners if _inside_layouts(settings, count, pair[1])])
    size = draw.pick(_inside_layouts(settings, count, second[1]))
    radius, outer = _radius(draw, size), draw.between(*layout.CONTAINER_RADII)
    edge = layout.MARGIN + outer
    x, y = draw.between(edge, 1 - edge), draw.between(edge, 1 - edge)
    # A container is never textured: what lies inside must be easy to see.
    fills = [fill for fill in settings.knob("fills") if fill in ("solid", "outlined")] or ["solid"]
    container = Group("large", draw.pick(fills), *second, outer, ((x, y),), (0.0,))
    height, room = ROOMS[second[1]]
    places = layout.cluster(draw, count, radius, (x, y - height * outer), room * outer)
    return _group(draw, settings, first, size, radius, places), container


def _close_up(draw: Draw, groups: tuple[Group, ...], relation: str | None) -> tuple[Group, ...]:
    """Move the same objects together and draw them as large as the frame allows, with a little room to wander."""
    discs = [[(centre, group.radius) for centre in group.centres] for group in groups]
    places = layout.close_up(draw, discs, relation)
    return tuple(
        replace(group, radius=place[0][1], centres=tuple(centre for centre, _ in place))
        for group, place in zip(groups, places, strict=True)
    )


def labels(scene: Scene) -> dict[str, object]:
    """Return what a judge should find, as indices; the relation is that of the group with the smaller indices."""
    pairs = [(list(COLOURS).index(g.colour), list(SHAPES).index(g.shape)) for g in scene.groups]
    relation = scene.relation or "none"
    if len(pairs) == 2 and pairs[1] < pairs[0]:
        relation = TURNED[relation]
    return {
        "count": sum(group.count for group in scene.groups),
        "colours": sorted({colour for colour, _ in pairs}),
        "shapes": sorted({shape for _, shape in pairs}),
        "pairs": sorted([list(pair) for pair in pairs]),
        "relation": RELATION_LABELS.index(relation),
    }
