"""Captioned clips from packages: about two thousand animated emoji (Microsoft's Fluent, 256 px, three seconds each).

Their code points name concepts of the drawings' dictionary, so `part` splits both alike. What does not move is out.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field

from mdm.config import Positive, Probability
from mdm.data.fetch.packages import Package, archive, members
from mdm.data.pictures.clips import ClipSettings, prepare_clip
from mdm.data.rows import Outcomes, Row
from mdm.data.sources.drawing_concepts import is_wanted
from mdm.data.sources.drawing_sets import dictionary
from mdm.data.sources.filters import Part

VERSION = 1
LICENCE = "MIT"
PUBLISHED = (
    "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
    "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
    "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
    "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
)
PACKAGES = tuple(
    Package("npm", f"@lobehub/fluent-emoji-anim-{number}", "1.0.0", f"sha512-{published}", LICENCE)
    for number, published in enumerate(PUBLISHED, start=1)
)
FOLDER = "package/assets/"
WEBP = re.compile(rf"{FOLDER}.*\.webp", re.DOTALL)


class Settings(ClipSettings):
    skin_tones: bool = Field(default=True, description="also the variants of people and hands by skin tone")
    part: Part = Field(default="all", description="a concept is never in both")
    validation_every: Positive = Field(default=20, description="one concept in so many belongs to validation")
    num_images: Positive = Field(description="clips taken, in a fixed order that mixes the packages")
    # Where they come from and how many may fail is no part of the recipe: the hashes of the packages are fixed.
    packages: str = Field(default="data/packages", exclude=True, description="folder of the packages' archives")
    min_success: Probability = Field(default=0.95, exclude=True, description="share of a shard that must be usable")


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each clip that moves and has a name, in an order that does not depend on the settings."""
    names, found = dictionary(Path(settings.packages)), []
    for number, package in enumerate(PACKAGES):
        for name, content in members(archive(package, settings.packages), WEBP.fullmatch):
            concept, file = names.of_code(PurePosixPath(name).stem), name.removeprefix(FOLDER)
            # The header of an extended WebP announces an animation.
            moves = content[12:16] == b"VP8X" and bool(content[20] & 2)
            if concept is not None and moves and is_wanted(concept.name, bool(concept.tones), settings):
                columns = {"package": str(number), "file": file, "concept": concept.name}
                found.append((hashlib.sha256(file.encode()).digest(), concept.words, columns))
    found.sort(key=lambda entry: entry[0])
    for number, (_, words, columns) in enumerate(found[: settings.num_images]):
        yield Row(f"{number:06d}", f"an animated emoji of {words}", {}, columns)


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    for number, package in enumerate(PACKAGES):
        keys = {FOLDER + row.columns["file"]: row.key for row in rows if row.columns["package"] == str(number)}
        if keys:
            for name, content in members(archive(package, settings.packages), keys.__contains__):
                yield keys[name], prepare_clip(content, settings)
