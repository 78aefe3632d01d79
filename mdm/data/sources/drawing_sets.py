"""Sets of captioned vector drawings that are published as packages: which, by whom, and how to read them."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mdm.data.fetch.packages import Package, archive, member, members
from mdm.data.pictures.preprocess import clean_caption
from mdm.data.sources.drawing_concepts import Dictionary
from mdm.files.atomic import ArtifactError

REFERENCE = "noto"  # its names are the concepts
CLIP_ART = "openclipart"
CLIP_ART_ROOT = "usr/share/openclipart/svg/"
# Themes of program icons under one title, geometric series of stars, trade marks.
CLIP_ART_LEFT_OUT = ("computer", "logos", "buttons", "shapes/stars")
CLIP_ART_MAX_BYTES = 600_000
COMMON_TITLE = 35  # a title that more drawings share ("Various Cliparts") says nothing about one of them
MOST_KEYWORDS = 3
OTHER_MEDIA = re.compile(r"<(\w+:)?(text|image)\b")  # fonts differ between machines, pictures have a size of their own
EMPTY_KEYWORDS = {"hash", "", "unsorted", "signs_and_symbols", "clipart", "clip art"}


@dataclass(frozen=True)
class DrawingSet:
    """A package of drawings and the words that its captions begin with."""

    package: Package
    style: str


# Version, licence, the words that captions begin with, and the hash of each package of emoji.
EMOJI = {
    "noto": ("1.2.9", "Apache-2.0", "a Noto emoji of",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw=="),
    "noto-v1": ("1.2.5", "Apache-2.0", "a blob emoji of",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA=="),
    "fluent-emoji": ("1.2.7", "MIT", "a glossy emoji of",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA=="),
    "fluent-emoji-flat": ("1.2.6", "MIT", "a flat emoji of",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw=="),
    "fxemoji": ("1.2.2", "Apache-2.0", "a Firefox emoji of",
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ=="),
}  # fmt: skip
SETS = {
    name: DrawingSet(Package("npm", f"@iconify-json/{name}", version, f"sha512-{published}", licence), style)
    for name, (version, licence, style, published) in EMOJI.items()
}
SETS[CLIP_ART] = DrawingSet(
    Package(
        "apt-get", "openclipart-svg", "1:0.18+dfsg-19",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5", "public domain dedication",
    ), "a clip art drawing of",
)  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """One vector drawing: its set, its name in the set, what it says and shows, and its SVG."""

    set: str
    name: str
    caption: str
    concept: str
    svg: str
    has_tone: bool = False


def dictionary(folder: Path) -> Dictionary:
    """Read the names of concepts from the reference set's package."""
    path = archive(SETS[REFERENCE].package, folder)
    icons, characters = (json.loads(member(path, f"package/{name}.json")) for name in ("icons", "chars"))
    return Dictionary(icons, characters)


def drawings(name: str, names: Dictionary, folder: Path) -> Iterator[Drawing]:
    """Yield every drawing of a set that has a concept and can be drawn at any size, by ascending name."""
    path = archive(SETS[name].package, folder)
    found = _clip_art(path, names) if name == CLIP_ART else _emoji(name, path, names)
    return (drawing for drawing in found if not OTHER_MEDIA.search(drawing.svg))


def _emoji(set_name: str, path: Path, names: Dictionary) -> Iterator[Drawing]:
    content = json.loads(member(path, "package/icons.json"))
    for name, icon in sorted(content["icons"].items()):
        concept = None if icon.get("hidden") else names.concept(name)
        if concept is not None:
            caption = f"{SETS[set_name].style} {concept.words}"
            yield Drawing(set_name, name, caption, concept.name, _svg(icon, content), bool(concept.tones))


def _svg(icon: dict[str, Any], content: dict[str, Any]) -> str:
    left, top = (icon.get(key, content.get(key, 0)) for key in ("left", "top"))
    width, height = (icon.get(key, content.get(key, 16)) for key in ("width", "height"))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def _clip_art(path: Path, names: Dictionary) -> Iterator[Drawing]:
    """Yield drawings with a telling title; of equal files the first by name."""
    files = sorted((_inside(name), content) for name, content in members(path, _is_wanted))
    if not files:
        raise ArtifactError(f"{path} holds no drawings under {CLIP_ART_ROOT}; it is another package than expected")
    texts = {name: content.decode("utf-8", "replace") for name, content in _without_equals(files)}
    titles = {name: _title(text) for name, text in texts.items()}
    common = Counter(titles.values())
    for name, text in texts.items():
        if (title := titles[name]) and common[title] <= COMMON_TITLE:
            caption = ", ".join([f"{SETS[CLIP_ART].style} {title}", *_keywords(text, title)])
            concept = names.of_title(title, is_flag="/flags/" in name)
            yield Drawing(CLIP_ART, name, caption, concept, _with_namespace(text))


def _inside(name: str) -> str:
    return str(PurePosixPath(name)).removeprefix(CLIP_ART_ROOT)


def _is_wanted(name: str) -> bool:
    inside = _inside(name)
    return name.endswith(".svg") and not any(inside.startswith(f"{folder}/") for folder in CLIP_ART_LEFT_OUT)


def _without_equals(files: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    seen: set[bytes] = set()
    for name, content in files:
        known = hashlib.sha256(content).digest()
        if known not in seen and len(content) <= CLIP_ART_MAX_BYTES:
            seen.add(known)
            yield name, content


def _title(svg: str) -> str:
    """Return the title in the metadata, without its author's series and number: `Pear 02` -> `pear`."""
    found = re.search(r"<dc:title[^>]*>([^<]*)</dc:title>", svg)
    title = clean_caption(found[1]).lower().replace("_", " ") if found else ""
    title = re.sub(r"^clipart by [\w ]+ - ", "", title)
    return re.sub(r"[\s\-#]*\d*$", "", title).strip()


def _keywords(svg: str, title: str) -> list[str]:
    found = re.findall(r"<rdf:li[^>]*>([^<]*)</rdf:li>", svg)
    words = (clean_caption(word).lower().replace("_", " ") for word in found)
    telling = [word for word in words if word not in EMPTY_KEYWORDS and word not in title]
    return list(dict.fromkeys(telling))[:MOST_KEYWORDS]


def _with_namespace(svg: str) -> str:
    """Add the declaration that makes a drawing SVG, which those of 2004 often leave out."""
    if re.search(r'\bxmlns\s*=\s*["\']', svg):
        return svg
    return re.sub(r"<svg\b", '<svg xmlns="http://www.w3.org/2000/svg"', svg, count=1)
