"""What an emoji shows, whoever drew it: one name of the concept for all sets, so that a split can go by concept.

Sets name things differently: `direct-hit` and `bullseye`, `aubergine` and `eggplant`. Noto's names are the words of
Unicode's CLDR; with its older names and the names of the characters they make a dictionary. What it does not know is
left out. A concept depends on the drawing's own name only, so all data sets agree about it.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdm.data.sources.filters import belongs
from mdm.files.atomic import ArtifactError

TONE_AT_END = re.compile(r"-(light|medium-light|medium|medium-dark|dark)(-skin-tone)?$")
TONED_CODE = re.compile(r"1f3f[b-f]")


def squash(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def is_wanted(concept: str, has_tone: bool, settings: Any) -> bool:
    """Return whether settings ask for a drawing; its side of the split follows from the concept's name alone."""
    if has_tone and not settings.skin_tones:
        return False
    return belongs(concept, settings.part, settings.validation_every)


@dataclass(frozen=True)
class Concept:
    """The thing an emoji shows, and the skin tones of this drawing of it."""

    name: str
    tones: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Write the concept as in a caption: `man farmer, medium-dark skin tone`."""
        shown = self.name.replace("-", " ")
        return f"{shown}, {' and '.join(self.tones)} skin tone" if self.tones else shown


class Dictionary:
    """All names that emoji sets use for a concept."""

    def __init__(self, icons: Mapping[str, Any], characters: Mapping[str, str]) -> None:
        """Read the reference set's icons.json and chars.json (code points -> name)."""
        plain = {code: name for code, name in characters.items() if not TONED_CODE.search(code) or "-" not in code}
        if not plain:
            raise ArtifactError("the set of drawings that names all concepts lists no characters")
        self._names = {squash(name): name for name in plain.values()}
        self._codes = {_without_selectors(code): name for code, name in characters.items()}
        older = [(name, alias["parent"]) for name, alias in icons.get("aliases", {}).items()]
        # Unicode's own names of single characters never change.
        older += [(unicodedata.name(chr(int(code, 16)), ""), name) for code, name in plain.items() if "-" not in code]
        for name, current in older:
            if name and squash(current) in self._names:
                self._names.setdefault(squash(name), self._names[squash(current)])

    def concept(self, name: str) -> Concept | None:
        """Return what a drawing of this name shows; None if no dictionary entry says so."""
        tones: list[str] = []
        while squash(name) not in self._names:
            found = TONE_AT_END.search(name)
            if found is None:
                return None
            tones.insert(0, found[1])
            name = name[: found.start()]
        return Concept(self._names[squash(name)], tuple(tones))

    def of_code(self, code: str) -> Concept | None:
        """Return what the emoji of these code points (1f469-200d-1f33e) shows; None if no entry says so."""
        name = self._codes.get(_without_selectors(code))
        return self.concept(name) if name else None

    def of_title(self, title: str, is_flag: bool = False) -> str:
        """Return the concept of a drawing that is no emoji: an emoji's of the same name, else the title itself."""
        plain = squash(re.sub(r"\(.*?\)", "", title)) or squash(title)  # variants: `crawfish (b and w)`
        return self._names.get(f"flag{plain}" if is_flag else plain, plain)


def _without_selectors(code: str) -> str:
    """Drop U+FE0F, which asks for a picture of an emoji and which some sets leave out."""
    return "-".join(part for part in code.split("-") if part != "fe0f")
