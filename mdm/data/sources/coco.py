"""COCO, the editions of 2014 and 2017: photographs with about five captions each, from the user's copy of its files.

A rule over the ids in COCO's annotations, never over the order of files, chooses captions and pictures; index.tsv
records the ids. Archives are proved by hash when the index is written, then every picture by its noted checksum.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mdm.config import SHA256, Count, Positive
from mdm.data.fetch.packages import member
from mdm.data.pictures.preprocess import PictureSettings, prepare
from mdm.data.rows import Outcomes, Row
from mdm.data.sources.own_files import existing
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

VERSION = 1
LICENCE = "captions CC-BY-4.0; each picture keeps the licence that COCO lists for it"
Files = tuple[Callable[[str], bytes], Callable[[str], str]]  # what a file name stands for: content, and CRC-32
HOST = "http://images.cocodataset.org"
# As published by the TensorFlow data sets (url_checksums/coco.txt).
SHA256_OF = {
    "train2014.zip": "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    "val2014.zip": "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    "train2017.zip": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    "val2017.zip": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    "annotations_trainval2014.zip": "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    "annotations_trainval2017.zip": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
}


class Settings(PictureSettings):
    enlarges: ClassVar[bool] = True  # a few pictures are small, and an evaluation set must not lose them

    edition: Literal[2014, 2017]
    part: Literal["train", "val"]
    num_images: Positive = Field(description="pairs of a picture and a caption")
    captions: Literal["first", "one", "drawn"] = Field(
        description="first: each picture once, its caption of lowest id; one: each picture once, one of its captions "
        "drawn; drawn: captions drawn among all, so that pictures may come again"
    )
    seed: Count | None = Field(
        default=None, description="of what is drawn, and of the order of the pictures (none: ascending ids)"
    )
    captions_sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        default=None,
        description="of a captions_{part}{edition}.json; not needed for COCO's own zip, whose hash is known",
    )
    images: str = Field(exclude=True, description="COCO's zip of the part, or the folder of its pictures")
    annotations: str = Field(exclude=True, description="annotations_trainval{edition}.zip, or its captions JSON")

    @model_validator(mode="after")
    def _drawing_needs_a_seed(self) -> Self:
        if self.captions != "first" and self.seed is None:
            raise ValueError(f"captions: {self.captions} needs a seed")
        return self

    @property
    def name(self) -> str:
        return f"{self.part}{self.edition}"


def describe(settings: Settings) -> str:
    order = "ascending ids" if settings.seed is None else f"seed {settings.seed}"
    what = {
        "first": f"{settings.num_images} pictures with the first caption of each",
        "one": f"{settings.num_images} pictures with one drawn caption of each",
        "drawn": f"{settings.num_images} captions drawn among all",
    }[settings.captions]
    cut = "centre-cropped" if settings.crop == "centre" else "uncropped"
    return f"{what}, of COCO {settings.name} ({order}), {cut}, {settings.resize} to {settings.resolution} px"


def outside(settings: Settings) -> Iterator[tuple[Path, str | None]]:
    """Yield the files that must be there, with their hashes."""
    annotations = Path(settings.annotations)
    published = SHA256_OF[f"annotations_trainval{settings.edition}.zip"] if annotations.suffix == ".zip" else None
    yield annotations, settings.captions_sha256 or published
    if not Path(settings.images).is_dir():
        yield Path(settings.images), SHA256_OF[f"{settings.name}.zip"]


def index(settings: Settings) -> Iterator[Row]:
    """Yield the captions of the rule, with the ids of caption and picture, and the picture's licence and checksum."""
    for path, sha256 in outside(settings):
        _prove(path, sha256, settings)
    known = _annotated(settings)
    licences = {entry["id"]: entry["name"] for entry in known.get("licenses", [])}
    images = {entry["id"]: entry for entry in known["images"]}
    with _opened(settings) as (_, checksum):
        for number, pair in enumerate(islice(_pairs(known["annotations"], settings), settings.num_images)):
            image = images[pair.image]
            columns = {
                "image_id": str(pair.image), "caption_id": str(pair.id), "file": image["file_name"],
                "licence": licences.get(image.get("license"), LICENCE), "crc32": checksum(image["file_name"]),
            }  # fmt: skip
            yield Row(f"{number:08d}", pair.caption, {}, columns)


@dataclass(frozen=True)
class Pair:
    id: int
    image: int
    caption: str


def _pairs(annotations: list[dict[str, Any]], settings: Settings) -> Iterator[Pair]:
    """Yield every pair that the rule admits, in its order."""
    pairs = sorted((Pair(a["id"], a["image_id"], a["caption"]) for a in annotations), key=lambda pair: pair.id)
    if settings.captions == "drawn":
        yield from sorted(pairs, key=lambda pair: _drawn(settings, "caption", pair.id))
        return
    by_image: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_image.setdefault(pair.image, []).append(pair)
    for image in sorted(by_image, key=lambda id: (b"" if settings.seed is None else _drawn(settings, "image", id), id)):
        if settings.captions == "first":
            yield by_image[image][0]
        else:
            yield min(by_image[image], key=lambda pair: _drawn(settings, "caption", pair.id))


def _drawn(settings: Settings, what: str, id: int) -> bytes:
    """Return a random key that depends on seed and id alone: the same in every language and version of a library."""
    return hashlib.sha256(f"{settings.seed}:{what}:{id}".encode()).digest()


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    with _opened(settings) as (read, _):
        for row in rows:
            data = read(row.columns["file"])
            if f"{zlib.crc32(data):08x}" != row.columns["crc32"]:
                raise ArtifactError(
                    f"{row.columns['file']} in {settings.images} was changed since the index was written; delete the "
                    "data set's folder and start over"
                )
            yield row.key, prepare(data, settings)


@contextmanager
def _opened(settings: Settings) -> Iterator[Files]:
    """Open the pictures of the part, in a zip or in a folder."""
    path = Path(settings.images)
    if path.is_dir():
        yield lambda name: _read_file(path / name), lambda name: f"{zlib.crc32(_read_file(path / name)):08x}"
        return
    try:
        with zipfile.ZipFile(existing(path, "images", "coco")) as opened:
            places = {entry.filename.removeprefix(f"{settings.name}/"): entry for entry in opened.infolist()}
            found = partial(_entry, places, path)
            yield lambda name: opened.read(found(name)), lambda name: f"{found(name).CRC:08x}"
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArtifactError(f"{path} was damaged since it was proved ({error}); fetch it again") from None


def _entry(places: dict[str, zipfile.ZipInfo], path: Path, name: str) -> zipfile.ZipInfo:
    if name not in places:
        raise ArtifactError(f"{path} holds no picture {name}; its captions belong to another part or edition")
    return places[name]


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise ArtifactError(f"there is no picture {path}; name the folder that holds COCO's own files in `images`")
    return path.read_bytes()


def _annotated(settings: Settings) -> dict[str, Any]:
    path, name = Path(settings.annotations), f"captions_{settings.name}.json"
    content = member(path, f"annotations/{name}") if path.suffix == ".zip" else path.read_bytes()
    try:
        found = json.loads(content)
        known = {image["id"] for image in found["images"]}
        whole = all(a["image_id"] in known and isinstance(a["caption"], str) for a in found["annotations"])
        if whole and found["annotations"]:
            return found
    except (ValueError, KeyError, TypeError, RecursionError):  # another file of COCO's, or none
        pass
    remedy = f"name COCO's {name}, or the zip it comes in"
    raise ArtifactError(f"{path} holds no captions of pictures that it lists; {remedy}")


def _prove(path: Path, sha256: str | None, settings: Settings) -> None:
    if not path.is_file():
        folder = "annotations" if path == Path(settings.annotations) else "zips"
        name = f"annotations_trainval{settings.edition}.zip" if folder == "annotations" else f"{settings.name}.zip"
        command = f"curl -o {path} {HOST}/{folder}/{name}"
        raise ArtifactError(f"there is no {path}; get it with `{command}`, or correct its path")
    seen = sha256_file(path)
    if sha256 is None:
        raise ArtifactError(f"{path} is not COCO's own zip; if you trust this copy write captions_sha256: {seen}")
    if seen != sha256:
        raise ArtifactError(f"{path} has sha256 {seen}, it should be {sha256}; it is another file, or damaged")
