"""Captioned pictures from a list of addresses (CC12M and its like).

Lists rot. So a shard below `min_success` is an error, every failure is counted by a reason of a closed vocabulary, and
hashes say which pictures a run really saw.

The fetcher `own` is the default, for img2dataset 1.47 follows redirects into private networks, reads bodies of any
size, limits the time of a read and not of an answer, never pauses between requests to a host, restarts a killed shard
from nothing, and reports free text. It stays for trusted lists, and to repeat a data set made with its resizing
(OpenCV). `own` ignores the environment's proxies: through a proxy nobody could tell which machine is contacted.
"""

import http.client
import itertools
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mdm.config import SHA256, Count, Positive, Probability
from mdm.data.fetch import img2dataset_shards, many
from mdm.data.fetch.one import Limits
from mdm.data.pictures.failures import Failure
from mdm.data.pictures.preprocess import CleanCaptions, Duplicates, PictureSettings, Stored, clean_caption, prepare
from mdm.data.rows import Outcomes, Picture, Row
from mdm.data.sources.filters import Filtered, Part, belongs, wanted
from mdm.data.sources.tables import table
from mdm.files.atomic import ArtifactError
from mdm.files.hashes import sha256_file

VERSION = 3
DUPLICATES_IN_MANIFEST = True  # what is the same is known when everything is there
LICENCE = "each picture keeps its owner's licence; only the list of addresses is shared"
LIST_SECONDS = 60
Seconds = Annotated[float, Field(ge=0)]
Prepare = Callable[[bytes, Any], Picture | Failure]


class Settings(Filtered, PictureSettings):
    index: str = Field(exclude=True, description="path or URL of a .tsv or .csv with columns url and caption")
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        description="of that file; null plans a study but does not fetch"
    )
    columns: tuple[str, ...] | None = Field(
        default=None, description="names of the columns of a list without a header line; CC12M: [url, caption]"
    )
    url_column: str = Field(default="url", description="column of the addresses")
    caption_column: str = Field(default="caption", description="column of the captions")
    part: Part = Field(default="all", description="told by the address alone, so a longer list keeps the split")
    validation_every: Positive = Field(default=1000, description="one address in so many belongs to validation")
    num_images: Positive = Field(description="addresses taken, from the top of that part of the list")
    stored: Stored = "jpg"
    clean_captions: CleanCaptions = False
    duplicates: Duplicates = "none"
    fetcher: Literal["own", "img2dataset"] = Field(
        default="own", description="img2dataset only for lists you trust: it obeys no limit but retries and timeout"
    )
    max_bytes: Positive = Field(default=20_000_000, description="longer answers are cut off and count as failed")
    max_pixels: Annotated[int, Field(gt=0, le=80_000_000)] = Field(
        default=80_000_000, description="pictures of more pixels are not decoded and count as failed"
    )
    allowed_networks: tuple[str, ...] = Field(
        default=(), description="ranges such as 10.1.0.0/16 that may be contacted though they are not public"
    )
    # How it is fetched, not what: these are no part of the recipe.
    min_success: Probability = Field(
        default=0.5, exclude=True, description="share of a shard's addresses that must answer"
    )
    retries: Count = Field(default=2, exclude=True, description="further tries after timeouts and servers' errors")
    backoff_seconds: Seconds = Field(default=2.0, exclude=True, description="before the first retry; then doubled")
    timeout_seconds: Positive = Field(default=10, exclude=True, description="for one address with its redirects")
    threads: Positive = Field(default=64, exclude=True, description="addresses asked at the same time by one job")
    per_host: Positive = Field(default=4, exclude=True, description="of these, at most so many at one host")
    host_pause_seconds: Seconds = Field(default=0.1, exclude=True, description="after each, for that lane of the host")

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network)) for network in value)

    @model_validator(mode="after")
    def _img2dataset_has_no_limits(self) -> Self:
        limits = {"max_bytes", "allowed_networks", "backoff_seconds", "per_host", "host_pause_seconds"}
        limits |= PictureSettings.model_fields.keys() - {"resolution"}
        defaults = {name: type(self).model_fields[name].default for name in sorted(limits)}
        ignored = [name for name, default in defaults.items() if getattr(self, name) != default]
        if self.fetcher == "img2dataset" and ignored:
            raise ValueError(f"img2dataset does not obey {', '.join(ignored)}; write fetcher: own, or leave them out")
        return self


def index(settings: Settings) -> Iterator[Row]:
    """Yield the first num_images addresses of the part; nothing is fetched but the list itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = list_file(settings, Path(folder))
        chosen = (pair for pair in _pairs(path, settings) if belongs(pair[0], settings.part, settings.validation_every))
        for number, (url, caption) in enumerate(itertools.islice(chosen, settings.num_images)):
            text = clean_caption(caption) if settings.clean_captions else caption
            yield Row(f"{number:09d}", text, {}, {"url": url})


def list_file(settings: Settings, folder: Path) -> Path:
    path = Path(settings.index)
    if "://" in settings.index:
        path = folder / (Path(urlsplit(settings.index).path).name or "list")
        try:
            with urllib.request.urlopen(settings.index, timeout=LIST_SECONDS) as answer, path.open("wb") as stream:
                shutil.copyfileobj(answer, stream)
        except (OSError, http.client.HTTPException) as error:
            remedy = "try again, or name a copy of it"
            raise ArtifactError(f"{settings.index} cannot be fetched ({error}); {remedy}") from None
    if not path.is_file():
        raise ArtifactError(f"there is no list {path}; correct `index` of the data set")
    if (seen := sha256_file(path)) != settings.sha256:
        raise ArtifactError(f"{settings.index} has sha256 {seen}, the study says {settings.sha256}; it is another list")
    return path


def _pairs(path: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    url, caption = settings.url_column, settings.caption_column
    for _, row in table(path, (url, caption), settings.columns, published=True):
        if wanted(row, settings.filters, str(path)):
            yield row[url], row[caption]


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    """Fetch the pictures of a shard, in the order in which they arrive."""
    if settings.fetcher == "own":
        return fetched(rows, settings, prepare)
    asked = (settings.resolution, settings.timeout_seconds, settings.threads, settings.retries)
    return img2dataset_shards.pictures(rows, *asked)


def fetched(rows: list[Row], settings: Settings, prepare_as: Prepare, types: tuple[str, ...] = ("image/",)) -> Outcomes:
    """Fetch these rows by our own fetcher, and prepare their answers by `prepare_as`."""
    networks = [ip_network(network) for network in settings.allowed_networks]
    limits = Limits(settings.timeout_seconds, settings.max_bytes, networks, types)
    politeness = many.Politeness(
        settings.threads, settings.per_host, settings.host_pause_seconds, settings.retries, settings.backoff_seconds
    )
    return many.pictures(rows, limits, politeness, lambda data: prepare_as(data, settings))
