"""What the sources of a user's own folders share: captions beside files or in a table, and files that must stay."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from mdm.config import Positive, Probability
from mdm.data.pictures.duplicates import as_keys, repeated
from mdm.data.rows import Row
from mdm.data.sources.filters import Filtered
from mdm.data.sources.part import Part, belongs
from mdm.files.atomic import ArtifactError


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
    def _path_is_whole(self) -> Self:
        if (path := str(getattr(self, "path", ""))).startswith("~"):
            raise ValueError(f"path {path}: a study has no home; write {Path(path).expanduser()}")
        return self

    @model_validator(mode="after")
    def _every_has_an_effect(self) -> Self:
        if self.part == "all" and self.validation_every != type(self).model_fields["validation_every"].default:
            raise ValueError("validation_every has no effect with part: all; write part: train or part: validation")
        return self

    def admits(self, name: str) -> bool:
        """Whether a file belongs to the part: told by its name alone, so more files keep the split."""
        return belongs(name, self.part, self.validation_every)


class OwnFolder(OwnSettings):
    """A folder whose files have captions in a table, or in a text file beside each."""

    captions: str | None = Field(
        default=None, description="CSV or TSV in that folder; default: a file {name}.txt beside each of its files"
    )
    caption_column: str = Field(default="caption", description="column of the captions; WebVid: name")
    clean_captions: bool = Field(
        default=False, description="resolve HTML entities, drop control characters, compose Unicode (NFC)"
    )

    @model_validator(mode="after")
    def _filters_need_a_table(self) -> Self:
        if self.filters and self.captions is None:
            raise ValueError("filters look at columns of a table; name it in captions, or leave the filters out")
        return self


def existing_folder(path: str, source: str) -> Path:
    """The folder, if there is one."""
    if not Path(path).is_dir():
        raise ArtifactError(f"there is no folder {path}; correct `path` of the {source} source")
    return Path(path)


def captions_beside(folder: Path, extensions: Collection[str]) -> Iterator[tuple[str, str]]:
    """Name and caption of each file of these kinds, from the text file of the same name; hidden files are none."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in extensions and not file.name.startswith("."):
            text = file.with_suffix(".txt")
            if not text.is_file():
                raise ArtifactError(
                    f"{file} has no caption {text.name} beside it; add it, or name a table in `captions`"
                )
            try:
                yield file.name, text.read_text(encoding="utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise ArtifactError(f"{text} is not UTF-8 ({error.reason}); save it as UTF-8") from None


def without_equal_files(hashes: dict[str, str]) -> list[str]:
    """The files to keep; of several with the same bytes, the first."""
    return [file for file, again in zip(hashes, repeated(as_keys(hashes.values())), strict=True) if not again]


def refuse_strange_names(path: Path, line: int, name: str, seen: Collection[str]) -> None:
    """A table names each file once, and none outside its folder."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ArtifactError(f"{path}, line {line}: {name} leads out of the folder; write paths inside it")
    if name in seen:
        raise ArtifactError(f"{path}, line {line} names {name} again; a file has one line, with one caption")


def check_found(found: dict[str, Any], folder: Path, table: str | None, extensions: Collection[str]) -> None:
    """There are files, and all of them are there."""
    if not found:
        place = folder / table if table else folder
        raise ArtifactError(f"there is no picture ({', '.join(extensions)}) in {place}; correct the data set")
    for file in found:
        if not (folder / file).is_file():
            raise ArtifactError(
                f"{folder / str(table)} names {file}, which is not in {folder} (are accents written alike?)"
            )


def as_indexed(folder: str | Path, row: Row) -> bytes:
    """The bytes of a row's file, if they still are those of which the index holds the hash."""
    path = Path(folder) / row.columns["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} was there when the index was written: {error.strerror}; put it back") from None
    if hashlib.sha256(data).hexdigest() != row.columns["sha256"]:
        raise ArtifactError(
            f"{path} was changed since the index was written; put the old file back, or write a new `revision` in the "
            "settings of the data set to make it anew"
        )
    return data
