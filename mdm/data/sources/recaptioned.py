"""CC12M with captions that a model wrote of its pictures: a short and a long one of each address.

The public list is one file of JSON lines, `train.jsonl.gz` of CaptionEmporium's conceptual-captions-cc12m-llavanext
(11 million addresses; url, caption, caption_llava, caption_llava_short, ...). A .tsv or .csv with such columns is read
as well. Pictures are fetched as those of any list of addresses.
"""

import gzip
import hashlib
import itertools
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from mdm.config import Probability, nearest
from mdm.data.pictures.preprocess import clean_caption
from mdm.data.rows import Row
from mdm.data.sources import addresses
from mdm.data.sources.addresses import DUPLICATES_IN_MANIFEST, list_file, pictures
from mdm.data.sources.filters import belongs, wanted
from mdm.data.sources.tables import table
from mdm.files.atomic import ArtifactError

__all__ = ["DUPLICATES_IN_MANIFEST", "LICENCE", "VERSION", "Settings", "describe", "index", "pictures"]

VERSION = 1
LICENCE = "each picture keeps its owner's licence; the captions have that of their list"
JSON_LINES = (".jsonl", ".jsonl.gz")
LONGEST_LINE = 2**20  # characters; the longest captions have some thousands


class Settings(addresses.Settings):
    index: str = Field(exclude=True, description="path or URL of the list: .jsonl, .jsonl.gz, .tsv or .csv")
    captions: Literal["short", "long", "mixed"] = Field(
        default="short", description="which caption a picture has: mixed takes the long one of `long_share` of them"
    )
    long_share: Probability | None = Field(
        default=None, description="of mixed: share of the pictures whose caption is the long one; told by the address"
    )
    short_column: str = Field(default="caption_llava_short", description="column of the short captions")
    long_column: str = Field(default="caption_llava", description="column of the long captions")

    @model_validator(mode="after")
    def _says_which_captions(self) -> Self:
        if (self.captions == "mixed") != (self.long_share is not None):
            raise ValueError(
                "captions mixed needs long_share, as in long_share: 0.5"
                if self.captions == "mixed"
                else f"long_share {self.long_share} has no effect on {self.captions} captions; write captions: mixed"
            )
        if self.caption_column != type(self).model_fields["caption_column"].default:
            raise ValueError("caption_column has no effect here; write short_column or long_column")
        if self.short_column == self.long_column:
            raise ValueError(f"short_column and long_column are both {self.short_column}; write two columns")
        if self.columns and urlsplit(self.index).path.endswith(JSON_LINES):
            raise ValueError("columns has no effect on JSON lines, each of which names its own; leave it out")
        return self


def describe(settings: Settings) -> str:
    """Say which caption a picture has."""
    rules = {
        "short": "the short caption of each picture",
        "long": "the long caption of each picture",
        "mixed": f"the long caption of {settings.long_share} of the pictures, by a hash of the address, else the short",
    }
    return rules[settings.captions]


def index(settings: Settings) -> Iterator[Row]:
    """Yield the first num_images addresses of the part, each with the caption asked for."""
    with tempfile.TemporaryDirectory() as folder:
        path = list_file(settings, Path(folder))
        rows = (row for row in _rows(path, settings) if wanted(row, settings.filters, str(path)))
        url = settings.url_column
        chosen = (row for row in rows if belongs(row[url], settings.part, settings.validation_every))
        for number, row in enumerate(itertools.islice(chosen, settings.num_images)):
            caption = row[settings.long_column if reads_long(row[url], settings) else settings.short_column]
            text = clean_caption(caption) if settings.clean_captions else " ".join(caption.split())
            yield Row(f"{number:09d}", text, {}, {"url": row[url]})


def reads_long(url: str, settings: Settings) -> bool:
    """Return whether a picture has its long caption: told by its address, so a larger share keeps all that had it."""
    if settings.captions != "mixed":
        return settings.captions == "long"
    drawn = int.from_bytes(hashlib.sha256(b"caption " + url.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return drawn < (settings.long_share or 0.0) * 2.0**64


def _rows(path: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    """Read the rows of the list, each with an address and both captions."""
    needed = (settings.url_column, settings.short_column, settings.long_column)
    if path.name.endswith(JSON_LINES):
        yield from _json_lines(path, needed)
        return
    for _, row in table(path, needed, settings.columns, published=True):
        yield row


def _json_lines(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Read one JSON object a line; an overlong line is refused before it fills the memory."""
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            for number in itertools.count(1):
                if not (line := stream.readline(LONGEST_LINE)):
                    return
                if len(line) == LONGEST_LINE:
                    raise ArtifactError(
                        f"{path}, line {number} has more than {LONGEST_LINE:,} characters; it is no list"
                    )
                yield _checked(json.loads(line), needed, f"{path}, line {number}")
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged after line {number} ({error}); fetch it again") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}, line {number} is no JSON ({error}); fetch it again") from None


def _checked(row: Any, needed: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ArtifactError(f"{where} is no JSON object with columns {', '.join(needed)}")
    for name in needed:
        if name not in row:
            raise ArtifactError(f"{where} has no column '{name}'; {nearest(name, row)}")
        if not isinstance(row[name], str):
            raise ArtifactError(f"{where}: {name} is no text but {type(row[name]).__name__}; correct the list")
        # A lone half of a pair of surrogates, which JSON can write, is no text.
        row[name] = row[name].encode("utf-8", "replace").decode()
    return row
