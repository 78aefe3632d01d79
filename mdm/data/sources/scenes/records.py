"""What a scene is: one or two groups of alike objects, perhaps a relation, and a background."""

from dataclasses import dataclass

FILLS = ("solid", "striped", "dotted", "outlined")
SIZES = ("small", "medium", "large")
RELATIONS = ("left", "right", "above", "below", "inside")
BACKGROUNDS = ("plain", "gradient", "grid", "speckle")


@dataclass(frozen=True)
class Group:
    """Objects that share size, fill, colour and shape. Centres, radius: units of the frame, y down."""

    size: str
    fill: str
    colour: str
    shape: str
    radius: float
    centres: tuple[tuple[float, float], ...]
    tilts: tuple[float, ...]  # radians, one per object

    @property
    def count(self) -> int:
        return len(self.centres)


@dataclass(frozen=True)
class Background:
    """A tone and a pattern; `angle` turns the gradient, `noise` seeds the speckles."""

    kind: str
    tone: str
    angle: float
    noise: int


@dataclass(frozen=True)
class Scene:
    """The whole picture as facts. `relation` says where groups[0] is, seen from groups[1]."""

    id: int
    groups: tuple[Group, ...]
    relation: str | None
    background: Background
    phrase: int  # chooses the caption of the index
