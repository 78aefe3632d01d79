"""ImageNet-1k (ILSVRC 2012) from the user's own copy: the tars as they are given out, or folders by class.

Nobody may pass ImageNet on, so nothing is fetched. The index notes where every picture begins in the tar (of tars), so
nothing is unpacked. A class is the rank of its WordNet id, as everywhere.
"""

import csv
import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from mdm.config import Positive
from mdm.data.pictures.preprocess import PictureSettings, prepare
from mdm.data.rows import Outcomes, Row, photo_of
from mdm.data.sources.own_files import existing
from mdm.files.atomic import ArtifactError

VERSION = 1
LICENCE = "research and education only, by the terms of image-net.org"
TARS = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
MD5_OF = {"train": "1d675b47d978889d74fa0da5fadfb00e", "val": "29b22e2961454d5413ddabcf34fc5622"}  # as published
SOLUTION, NAMES = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
LAYOUTS = "tar: as it is given out; folders: n01440764 and 999 others. The index tells them apart"
CLASSES = 1000
EXTENSIONS = (".jpeg", ".jpg", ".png")


class Settings(PictureSettings):
    enlarges: ClassVar[bool] = True  # a quarter of the set is smaller than 256 px somewhere; papers enlarge these

    split: Literal["train", "val"] = "train"
    num_images: Positive = Field(description="pictures taken, in an order that mixes the classes")
    layout: Literal["tar", "folders"] = Field(default="tar", description=LAYOUTS)
    path: str = Field(exclude=True, description=f"{TARS['train']} or {TARS['val']}, or the folder of the folders")
    captioned: bool = Field(default=False, description="captions like `a photo of a tench` (needs names); else none")
    names: str | None = Field(
        default=None, exclude=True, description=f"{NAMES}: the words of the classes, for captioned: true"
    )
    val_classes: str | None = Field(
        default=None, exclude=True, description=f"{SOLUTION}: the classes of the pictures of {TARS['val']}"
    )

    @model_validator(mode="after")
    def _captions_need_names(self) -> Self:
        if self.captioned != (self.names is not None):
            raise ValueError(f"captioned: true and `names`, the path of {NAMES}, go together; write both or neither")
        return self


@dataclass(frozen=True)
class Found:
    """A picture: its class's WordNet id, its file name, and where it lies in the tar (none in folders)."""

    synset: str
    file: str
    offset: int = 0
    size: int = 0


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each picture, mixed by the hash of its name; so the first so many are of all classes."""
    found = sorted(_pictures(settings), key=lambda picture: hashlib.sha256(picture.file.encode()).digest())
    synsets = sorted({picture.synset for picture in found})
    if len(synsets) != CLASSES:
        raise ArtifactError(
            f"{settings.path} has {len(synsets)} classes, ImageNet-1k has {CLASSES}; for a part use the source folder"
        )
    numbers = {synset: number for number, synset in enumerate(synsets)}
    words = _words(settings, synsets) if settings.captioned else {}
    for place, picture in enumerate(found[: settings.num_images]):
        columns = {"file": f"{picture.synset}/{picture.file}", "place": f"{picture.offset}+{picture.size}"}
        yield Row(f"{place:07d}", words.get(picture.synset, ""), {"class": numbers[picture.synset]}, columns)


def _words(settings: Settings, synsets: list[str]) -> dict[str, str]:
    """Make a caption for each class, from the first of its names."""
    lines = existing(str(settings.names), "names", "imagenet").read_text(encoding="utf-8").splitlines()
    names = dict(line.split(maxsplit=1) for line in lines if line.strip())
    if missing := [synset for synset in synsets if synset not in names]:
        raise ArtifactError(f"{settings.names} has no line for {missing[0]}; name ImageNet's own {NAMES}")
    return {synset: photo_of(names[synset].split(",")[0]) for synset in synsets}


def _pictures(settings: Settings) -> Iterable[Found]:
    path = Path(settings.path)
    if not path.exists():
        raise ArtifactError(
            f"there is no {path}. ImageNet is given out only to registered users: sign up at image-net.org (or accept "
            f"the terms of a gated copy), fetch {TARS[settings.split]}, and name it in `path`"
        )
    if path.is_dir() != (settings.layout == "folders"):
        raise ArtifactError(f"{path} is {'a folder' if path.is_dir() else 'a file'}, not layout: {settings.layout}")
    if path.is_dir():
        return _in_folders(path)
    with path.open("rb") as stream:
        seen, published = hashlib.file_digest(stream, "md5").hexdigest(), MD5_OF[settings.split]
    if seen != published:
        raise ArtifactError(
            f"{path} has md5 {seen}, {TARS[settings.split]} has {published}; it is another file, or damaged"
        )
    return _in_nested_tar(path) if settings.split == "train" else _in_flat_tar(path, settings)


def _in_folders(path: Path) -> Iterator[Found]:
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if not folders:
        remedy = "name the folder above them in `path`"
        raise ArtifactError(f"{path} holds no folders of classes (n01440764, ...); {remedy}")
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in EXTENSIONS:
                yield Found(folder.name, file.name)


def _in_nested_tar(path: Path) -> Iterator[Found]:
    """Read a tar of tars: n01440764.tar, each with its JPEGs."""
    with tarfile.open(path, "r:") as outer:
        for group in outer:
            with tarfile.open(fileobj=outer.extractfile(group), mode="r:") as inner:
                for entry in inner:
                    if entry.isreg():
                        begin = group.offset_data + entry.offset_data
                        yield Found(Path(group.name).stem, entry.name, begin, entry.size)


def _in_flat_tar(path: Path, settings: Settings) -> Iterator[Found]:
    """Yield the validation pictures; their classes stand in a table of their own."""
    if settings.val_classes is None:
        raise ArtifactError(f"{path} has no classes inside; name {SOLUTION} in `val_classes`, or give folders by class")
    with existing(settings.val_classes, "val_classes", "imagenet").open(newline="", encoding="utf-8") as stream:
        classes = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(stream)}
    with tarfile.open(path, "r:") as opened:
        for entry in opened:
            if entry.isreg():
                name = Path(entry.name)
                if name.stem not in classes:
                    lacks = f"has no line for {name.stem}; it belongs to other pictures"
                    raise ArtifactError(f"{settings.val_classes} {lacks}")
                yield Found(classes[name.stem], name.name, entry.offset_data, entry.size)


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    path = Path(settings.path)
    if path.is_dir():
        for row in rows:
            yield row.key, prepare((path / row.columns["file"]).read_bytes(), settings)
        return
    with path.open("rb") as stream:
        spans = ((*map(int, row.columns["place"].split("+")), row.key) for row in rows)
        for offset, size, key in sorted(spans):  # forward through the file, for disks that turn
            stream.seek(offset)
            yield key, prepare(stream.read(size), settings)
