"""Captioned films from a list of addresses, by default with WebVid's columns (videoid, contentUrl, duration, name)."""

from typing import Literal

from pydantic import Field

from mdm.config import Positive
from mdm.data.pictures.clips import ClipSettings, prepare_clip
from mdm.data.rows import Outcomes, Row
from mdm.data.sources import addresses
from mdm.data.sources.addresses import DUPLICATES_IN_MANIFEST, fetched, index

__all__ = ["DUPLICATES_IN_MANIFEST", "LICENCE", "VERSION", "Settings", "index", "pictures"]

VERSION = 1
LICENCE = "each film keeps its owner's licence; only the list of addresses is shared"


class Settings(ClipSettings, addresses.Settings):
    url_column: str = Field(default="contentUrl", description="column of the addresses")
    caption_column: str = Field(default="name", description="column of the captions")
    fetcher: Literal["own"] = Field(default="own", description="img2dataset fetches pictures only")
    max_bytes: Positive = Field(default=200_000_000, description="longer answers are cut off and count as failed")
    timeout_seconds: Positive = Field(default=60, exclude=True, description="for one address with its redirects")
    threads: Positive = Field(default=16, exclude=True, description="addresses asked at the same time by one job")


def pictures(rows: list[Row], settings: Settings) -> Outcomes:
    return fetched(rows, settings, prepare_clip, ("video/", "image/"))
