"""What the sources of a user's own folders share: captions beside files or in a table, and files that must stay."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePath
from typing import ClassVar, Self

from pydantic import Field, model_validator

from mdm.config import Positive, Probability
from mdm.data.pictures.duplicates import as_keys, repeated
from mdm.data.pictures.preprocess import CleanCaptions, clean_caption
from mdm.data.rows import Row
from mdm.data.sources.filters import Filtered, Part, belongs, wanted
from mdm.data.sources.tables import table
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

LICENCE = "as the folder's owner says"
CHANGED = (
    "was changed since the index was written; put the old file back, or write a new `revision` in the settings of the "
    "data set to make it anew"
)
Test = Callable[[Path], bool]
Labels = dict[str, int]
Captioned = dict[str, tuple[str, Labels]]  # caption and labels by file name


class OwnSettings(Filtered):
    """What holds for every data set of the user's own files."""

    later: ClassVar = (*Filtered.later, "part", "validation_every", "revision")

    part: Part = Field(default="all", description="a file is never in both")
    validation_every: Positive = Field(default=20, description="one file in so many belongs to validation")
    revision: Positive = Field(
        default=1, description="raise it when the files have changed: the data set is made anew, beside the old one"
    )
    licence: str | None = Field(default=None, exclude=True, description="of the files; stands in the manifest")
    min_success: Probability = Field(
        default=1.0, exclude=True, description="share of a shard's files that must be usable; the others are counted"
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if (path := str(getattr(self, "path", ""))).startswith("~"):
            raise ValueError(f"path {path}: a study has no home; write {Path(path).expanduser()}")
        if self.part == "all" and self.validation_every != type(self).model_fields["validation_every"].default:
            raise ValueError("validation_every has no effect with part: all; write part: train or part: validation")
        return self

    def admits(self, name: str) -> bool:
        """Return whether a file belongs to the part: told by its name alone, so more files keep the split."""
        return belongs(name, self.part, self.validation_every)


class OwnFolder(OwnSettings):
    """A folder whose files have captions in a table, or in a text file beside each."""

    captions: str | None = Field(
        default=None, description="CSV or TSV in that folder; default: a file {name}.txt beside each of its files"
    )
    caption_column: str = Field(default="caption", description="column of the captions; WebVid: name")
    clean_captions: CleanCaptions = False

    source: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.caption_column,)

    def file_of(self, row: dict[str, str], where: str) -> str:
        """Return the path inside the folder that a row of the table is about."""
        raise NotImplementedError

    def labels_of(self, row: dict[str, str], file: str, path: Path) -> Labels:
        return {}

    @model_validator(mode="after")
    def _filters_need_a_table(self) -> Self:
        if self.filters and self.captions is None:
            raise ValueError("filters look at columns of a table; name it in captions, or leave the filters out")
        return self


def rows(settings: OwnFolder, alike: Callable[[list[str]], Collection[str]] = lambda _: ()) -> Iterator[Row]:
    """Yield a row for each captioned file, by name, with its hash; without duplicates, and those that `alike` names."""
    folder = existing(settings.path, "path", settings.source, "folder ", Path.is_dir)
    found = captioned(settings)
    _check(found, folder, settings)
    hashes = {file: sha256_file(folder / file) for file in sorted(found)}
    files = list(hashes)
    if settings.duplicates != "none":
        files = [file for file, again in zip(files, repeated(as_keys(hashes.values())), strict=True) if not again]
    gone = alike(files)
    for number, file in enumerate(file for file in files if file not in gone):
        yield Row(f"{number:08d}", *found[file], {"file": file, "sha256": hashes[file]})


def existing(path: str | Path, key: str, source: str, what: str = "", is_there: Test = Path.is_file) -> Path:
    """Return the path that the setting `key` of a source names, if there is one."""
    if not is_there(Path(path)):
        raise ArtifactError(f"there is no {what}{path}; correct `{key}` of the {source} source")
    return Path(path)


def captioned(settings: OwnFolder) -> Captioned:
    """Map each file that is wanted to its caption and labels."""
    found = _from_table(settings) if settings.captions else _from_texts(Path(settings.path), settings.extensions)
    clean = clean_caption if settings.clean_captions else str
    return {file: (clean(caption), labels) for file, (caption, labels) in found.items() if settings.admits(file)}


def _from_texts(folder: Path, extensions: Collection[str]) -> Captioned:
    """Read captions from the text files beside the files of these kinds; hidden files are left out."""
    found: Captioned = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in extensions and not file.name.startswith("."):
            text = file.with_suffix(".txt")
            if not text.is_file():
                remedy = "add it, or name a table in `captions`"
                raise ArtifactError(f"{file} has no caption {text.name} beside it; {remedy}")
            try:
                found[file.name] = text.read_text(encoding="utf-8-sig").strip(), {}
            except UnicodeDecodeError as error:
                raise ArtifactError(f"{text} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    return found


def _from_table(settings: OwnFolder) -> Captioned:
    """Read captions from the table, which names each file once, and none outside its folder."""
    path = existing(Path(settings.path, str(settings.captions)), "captions", settings.source, "caption table ")
    found: Captioned = {}
    for line, row in table(path, settings.columns):
        file = settings.file_of(row, f"{path}, line {line}")
        if PurePath(file).is_absolute() or ".." in PurePath(file).parts:
            raise ArtifactError(f"{path}, line {line}: {file} leads out of the folder; write paths inside it")
        if file in found:
            raise ArtifactError(f"{path}, line {line} names {file} again; a file has one line, with one caption")
        if wanted(row, settings.filters, str(path)):
            found[file] = (row[settings.caption_column], settings.labels_of(row, file, path))
    return found


def _check(found: Captioned, folder: Path, settings: OwnFolder) -> None:
    """Refuse a folder without files, and captions without files."""
    table = folder / settings.captions if settings.captions else folder
    if not found:
        kinds = ", ".join(settings.extensions)
        raise ArtifactError(f"there is no picture ({kinds}) in {table}; correct the data set")
    for file in found:
        if not (folder / file).is_file():
            raise ArtifactError(f"{table} names {file}, which is not in {folder} (are accents written alike?)")


def as_indexed(folder: str | Path, row: Row) -> bytes:
    """Return the bytes of a row's file, if they still are those of which the index holds the hash."""
    path = Path(folder) / row.columns["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} was there when the index was written: {error.strerror}; put it back") from None
    if hashlib.sha256(data).hexdigest() != row.columns["sha256"]:
        raise ArtifactError(f"{path} {CHANGED}")
    return data
