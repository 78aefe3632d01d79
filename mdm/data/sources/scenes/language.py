"""What a scene is called: several true captions of each, and every word that can occur in them."""

import itertools
import re
from collections.abc import Sequence

from mdm.data.sources.scenes.records import BACKGROUNDS, FILLS, RELATIONS, SIZES, Background, Group, Scene
from mdm.data.sources.scenes.shapes import COLOURS, SHAPES, TONES

NUMBERS = ("one", "two", "three", "four")
SIZE_WORDS = {"small": ("small", "tiny"), "medium": ("medium", "medium"), "large": ("large", "big")}
SHAPE_WORDS = {"circle": ("circle", "disc"), "diamond": ("diamond", "rhombus"), "crescent": ("crescent", "moon")}
PLURALS = {"cross": "crosses", "rhombus": "rhombuses"}
RELATION_WORDS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "in"),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
BACKGROUND_WORDS = {
    "plain": "a plain {tone} background",
    "gradient": "a fading {tone} background",
    "grid": "a {tone} background with a grid",
    "speckle": "a speckled {tone} background",
}


def _shape(group: Group, synonym: bool) -> str:
    word = SHAPE_WORDS.get(group.shape, (group.shape,) * 2)[synonym]
    return word if group.count == 1 else PLURALS.get(word, word + "s")


def _phrase(group: Group, size: bool = False, fill: bool = False, synonym: bool = False, digit: bool = False) -> str:
    """Write a noun phrase such as "two small striped red circles"."""
    words = [group.colour, _shape(group, synonym)]
    # "Solid" goes without saying; every other fill is worth a word.
    words[:0] = [group.fill] if fill and group.fill != "solid" else []
    words[:0] = [SIZE_WORDS[group.size][synonym]] if size else []
    if group.count > 1 or digit:
        return " ".join([NUMBERS[group.count - 1], *words])
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _there(group: Group) -> str:
    return "there is" if group.count == 1 else "there are"


def _ground(background: Background) -> str:
    return BACKGROUND_WORDS[background.kind].format(tone=background.tone)


def _one_group(group: Group, background: Background) -> list[str]:
    short, full = _phrase(group), _phrase(group, size=True, fill=True)
    return [
        short,
        full,
        f"a picture of {short}",
        f"{_there(group)} {_phrase(group, size=True)}",
        f"{short} on {_ground(background)}",
        f"{full} on {_ground(background)}",
        _phrase(group, size=True, synonym=True),
        _phrase(group, fill=True, digit=True),
    ]


def _two_groups(first: Group, second: Group, relation: str, background: Background) -> list[str]:
    plain, wordy = RELATION_WORDS[relation]
    a, b = _phrase(first), _phrase(second)
    full_a, full_b = (_phrase(g, size=True, fill=True) for g in (first, second))
    other_a, other_b = (_phrase(g, size=True, synonym=True) for g in (first, second))
    return [
        f"{a} {plain} {b}",
        f"{full_a} {plain} {full_b}",
        f"{a} {wordy} {b}",
        _turned(first, second, relation),
        f"a picture of {a} {plain} {b}",
        f"{_there(first)} {a} {wordy} {b}",
        f"{a} {plain} {b} on {_ground(background)}",
        f"{other_a} {wordy} {other_b}",
    ]


def _turned(first: Group, second: Group, relation: str) -> str:
    """Tell the same fact from the second group."""
    a, b = _phrase(first), _phrase(second)
    if relation == "inside":
        return f"{b} with {a} inside"
    return f"{b} {RELATION_WORDS[OPPOSITE[relation]][0]} {a}"


def captions(scene: Scene) -> list[str]:
    """Return all captions of a scene, the plainest first; every one is true of the picture."""
    if scene.relation is None:
        found = _one_group(scene.groups[0], scene.background)
    else:
        found = _two_groups(*scene.groups, scene.relation, scene.background)
    return list(dict.fromkeys(found))


def caption(scene: Scene, phrasings: int | None = None) -> str:
    """Choose the caption of the index: one of the first `phrasings` (all if None), fixed by (seed, id)."""
    choices = captions(scene)[:phrasings]
    return choices[scene.phrase % len(choices)]


def words(text: str) -> list[str]:
    """Return lower-case words and punctuation marks, in order: the tokens of the embedded encoder."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary() -> list[str]:
    """Return every word that a caption can hold, sorted."""
    fixed = ["a an there is are picture of on with inside", *NUMBERS, *COLOURS, *FILLS[1:]]
    grounds = [BACKGROUND_WORDS[k].format(tone=t) for k, t in itertools.product(BACKGROUNDS, TONES)]
    names: list[Sequence[str]] = [SHAPE_WORDS.get(shape, (shape,)) for shape in SHAPES]
    shapes = [form for name in itertools.chain(*names) for form in (name, PLURALS.get(name, name + "s"))]
    sizes = itertools.chain(*(SIZE_WORDS[size] for size in SIZES))
    relations = itertools.chain(*(RELATION_WORDS[relation] for relation in RELATIONS))
    return sorted({word for text in (*fixed, *grounds, *shapes, *sizes, *relations) for word in words(text)})
