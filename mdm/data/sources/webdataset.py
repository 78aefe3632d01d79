"""Pictures with captions in tars as webdataset writes them: the user's own, or a published snapshot such as CC12M's.

A sample is the adjacent files with one name up to the first dot: abc.jpg, abc.txt, abc.json. Nothing is unpacked: the
index notes each picture's offset, size and checksum. Links, devices and whatever else is no plain file are never read.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from pydantic import Field

from mdm.config import Positive, Probability, nearest
from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import CleanCaptions, Duplicates, PictureSettings, Stored, clean_caption, prepare
from mdm.data.rows import Outcomes, Picture, Row
from mdm.data.sources.filters import wanted
from mdm.data.sources.own_files import CHANGED, OwnSettings
from mdm.files.atomic import ArtifactError, printable

VERSION = 1
LICENCE = "as the owner of the tars says"
DUPLICATES_IN_MANIFEST = True  # what is the same is known when everything is there
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")
TEXTS = ("txt", "json", "cls")
MOST_TEXT = 1_000_000
MOST_PICTURE = 200_000_000
CHUNK = 1 << 20
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class Settings(OwnSettings, PictureSettings):
    path: str = Field(description="folder of the tars, or one tar")
    files: str = Field(default="*.tar", description="which tars of the folder, e.g. cc12m-train-*.tar")
    caption: str = Field(
        default="txt", description="where a sample's caption is: txt, or json.KEY; none: the empty caption"
    )
    class_in: str | None = Field(default=None, description="where its class is: cls, or json.KEY (a number from 0)")
    validation_every: Positive = Field(default=1000, description="one sample in so many belongs to validation")
    num_images: Positive = Field(description="samples taken, by name of the tar and place in it")
    stored: Stored = "jpg"
    clean_captions: CleanCaptions = False
    duplicates: Duplicates = "none"
    min_success: Probability = Field(
        default=0.95, exclude=True, description="share of a shard's samples that must be usable; the others are counted"
    )


@dataclass
class Sample:
    """What a tar has under one name: texts by extension, and where the picture lies."""

    name: str
    texts: dict[str, bytes] = field(default_factory=dict)
    picture: tuple[int, int] | None = None
    checksum: str = ""


def index(settings: Settings) -> Iterator[Row]:
    """Yield a row for each sample that is wanted, in the order of the tars' names and of their contents."""
    for number, row in enumerate(islice(_rows(settings), settings.num_images)):
        yield Row(f"{number:09d}", *row)


def _rows(settings: Settings) -> Iterator[tuple[str, dict[str, int], dict[str, str]]]:
    folder, tars = _tars(settings)
    for tar in tars:
        for sample in _samples(folder / tar):
            where = f"{folder / tar}: sample {printable(sample.name)}"
            facts = _facts(sample, where)
            said = dict.fromkeys((entry.column for entry in settings.filters), None) | facts
            if settings.admits(f"{tar}/{sample.name}") and wanted(said, settings.filters, where):
                offset, size = sample.picture or (0, 0)
                columns = {"tar": tar, "file": sample.name, "place": f"{offset}+{size}", "crc32": sample.checksum}
                yield _caption(sample, facts, settings, where), _labels(sample, facts, settings, where), columns


def _tars(settings: Settings) -> tuple[Path, list[str]]:
    """Return the folder, and the names of its tars in order."""
    path = Path(settings.path)
    if path.is_file():
        return path.parent, [path.name]
    found = sorted(str(tar.relative_to(path)) for tar in path.glob(settings.files) if tar.is_file())
    if not found:
        remedy = "correct `path` or `files` of the webdataset source"
        raise ArtifactError(f"there is no tar {settings.files} in {path}; {remedy}")
    return path, found


def _samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar, in its order; each name once."""
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:", tarinfo=_Header) as opened:
            for name, files in groupby(_files(opened), itemgetter(0)):
                if name in seen:
                    raise ArtifactError(
                        f"{path}: the files of {printable(name)} do not stand together, or it is there twice; make "
                        "the tar again, sorted by name"
                    )
                seen.add(name)
                sample = Sample(name)
                for _, extension, entry in files:
                    _read(opened, entry, extension, sample, path)
                yield sample
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(
            f"{path} is damaged or no plain tar ({error}); fetch it again, or unpack it if it is compressed"
        ) from None


class _Header(tarfile.TarInfo):
    """A header whose extensions (long names, pax records) are of bounded size: tarfile reads them at once."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in EXTENSIONS and found.size > MOST_TEXT:
            raise tarfile.ReadError(f"a header of {found.size:,} bytes")
        return found


def _files(opened: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield the plain files that are texts or pictures: the name up to its first dot, the extension, the header."""
    for entry in opened:
        opened.members.clear()  # tarfile remembers every header, of millions of files too
        name = PurePosixPath(entry.name)
        stem, _, extension = name.name.partition(".")
        if entry.isreg() and not entry.issparse() and stem and extension.lower() in (*TEXTS, *PICTURES):
            yield str(name.with_name(stem)), extension.lower(), entry
    _check_end(opened)  # before the last sample is handed on, after which nobody may ask for more


def _read(opened: tarfile.TarFile, entry: tarfile.TarInfo, extension: str, sample: Sample, path: Path) -> None:
    """Note the text of a file, or where the sample's first picture lies and its checksum."""
    content = opened.extractfile(entry)
    assert content is not None  # it is a plain file
    if extension in PICTURES:
        checksum = 0
        while piece := content.read(CHUNK):
            checksum = zlib.crc32(piece, checksum)
        if sample.picture is None:
            sample.picture, sample.checksum = (entry.offset_data, entry.size), f"{checksum:08x}"
        return
    if entry.size > MOST_TEXT:
        shown = f"{path}: {printable(entry.name)}"
        raise ArtifactError(f"{shown} has {entry.size:,} bytes, a text at most {MOST_TEXT:,}; make the tar again")
    sample.texts[extension] = content.read()


def _check_end(opened: tarfile.TarFile) -> None:
    """Refuse a tar that goes on where its files end; tarfile takes a damaged header for the end."""
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"what stands at byte {opened.offset:,} is no header")


def _facts(sample: Sample, where: str) -> dict[str, Any]:
    try:
        found = json.loads(sample.texts.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: its json cannot be read ({error}); make the tar again") from None
    return found if isinstance(found, dict) else {}


def _caption(sample: Sample, facts: Mapping[str, Any], settings: Settings, where: str) -> str:
    if settings.caption == "none" or sample.picture is None:  # without a picture it will be counted as failed
        return ""
    text = _said(sample, facts, settings.caption, "caption", where)
    # A lone half of a pair of surrogates, which JSON can write, is no text.
    text = str(text).encode("utf-8", "replace").decode()
    return clean_caption(text) if settings.clean_captions else text


def _labels(sample: Sample, facts: Mapping[str, Any], settings: Settings, where: str) -> dict[str, int]:
    if settings.class_in is None or sample.picture is None:
        return {}
    found = str(_said(sample, facts, settings.class_in, "class_in", where)).strip()
    if not (found.isascii() and found.isdecimal()):
        raise ArtifactError(f"{where}: class {printable(found)!r} is not a number 0, 1, 2, ...; correct class_in")
    return {"class": int(found)}


def _said(sample: Sample, facts: Mapping[str, Any], place: str, setting: str, where: str) -> Any:
    """Return what the sample says at `txt`, `cls` or `json.KEY`."""
    kind, _, key = place.partition(".")
    there = {f"json.{name}": value for name, value in facts.items()}
    there |= {name: text for name, text in sample.texts.items() if name != "json"}
    found = there.get(place if key else kind)
    if found is None:
        raise ArtifactError(f"{where} has no {place}; correct `{setting}`: {nearest(place, there)}")
    try:
        return found.decode("utf-8-sig") if isinstance(found, bytes) else found
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{where}: its {place} is not UTF-8 ({error.reason}); make the tar again") from None


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    folder, _ = _tars(settings)
    by_tar: dict[Path, list[Row]] = {}
    for row in rows:
        by_tar.setdefault(folder / row.columns["tar"], []).append(row)
    for path, of_tar in by_tar.items():
        try:
            with path.open("rb") as stream:
                for row in of_tar:
                    yield row.key, _picture(stream, row, path, settings)
        except FileNotFoundError:
            raise ArtifactError(f"{path} was there when the index was written; put it back") from None


def _picture(stream: IO[bytes], row: Row, path: Path, settings: Settings) -> Picture | str:
    offset, size = map(int, row.columns["place"].split("+"))
    if not size:
        return Failure.NOT_A_PICTURE
    if size > MOST_PICTURE:
        return Failure.TOO_LARGE
    stream.seek(offset)
    data = stream.read(size)
    if f"{zlib.crc32(data):08x}" != row.columns["crc32"]:
        raise ArtifactError(f"{path} {CHANGED}")
    return prepare(data, settings)
