"""Captioned pictures from a list of addresses (CC12M and its like), fetched shard by shard with img2dataset.

Lists rot: an address that worked last year may not work today. So a shard below `min_success` is an error,
every failure is counted by its reason, and the manifest's hashes say which pictures a run really saw.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mdm.config import SHA256, Count, Positive, Probability, Strict
from mdm.data.sources import Picture, Row
from mdm.manifest import ArtifactError, sha256_file

VERSION = 1
LICENCE = "each picture keeps its owner's licence; only the list of addresses is shared"
# Without the first, a dependency of img2dataset calls the package index at import.
QUIET = {"NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
CALL = "import json, sys; from img2dataset import download; download(**json.loads(sys.argv[1]))"


class AddressSettings(Strict):
    """Which list, which part of it, and how many failures are acceptable."""

    index: str = Field(description="path or URL of a .tsv or .csv with columns url and caption")
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        description="of that file; null plans a study but does not fetch"
    )
    columns: tuple[str, ...] | None = Field(
        default=None,
        description="names of the columns of a list without a header line; CC12M: [url, caption]",
    )
    part: Literal["all", "train", "validation"] = "all"
    validation_every: Positive = Field(default=1000, description="one address in so many belongs to validation")
    num_images: Positive = Field(description="addresses taken, from the top of that part of the list")
    resolution: Positive = Field(description="side of the stored square (centre crop); smaller pictures fail")
    min_success: Probability = Field(default=0.5, description="share of a shard's addresses that must answer")
    retries: Count = 1
    timeout_seconds: Positive = 10


Settings = AddressSettings


def index(settings: AddressSettings) -> Iterator[Row]:
    """The first num_images addresses of the part; nothing is fetched but the list itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = _list_file(settings, Path(folder))
        chosen = (pair for pair in _pairs(path, settings) if _belongs(pair[0], settings))
        for number, (url, caption) in enumerate(itertools.islice(chosen, settings.num_images)):
            yield Row(f"{number:09d}", caption, {}, {"url": url})


def _list_file(settings: AddressSettings, folder: Path) -> Path:
    path = Path(settings.index)
    if "://" in settings.index:
        path = folder / settings.index.rsplit("/", 1)[-1]
        urllib.request.urlretrieve(settings.index, path)
    if not path.is_file():
        raise ArtifactError(f"there is no list {path}; correct `index` of the data set")
    if (seen := sha256_file(path)) != settings.sha256:
        raise ArtifactError(f"{settings.index} has sha256 {seen}, the study says {settings.sha256}; it is another list")
    return path


def _pairs(path: Path, settings: AddressSettings) -> Iterator[tuple[str, str]]:
    """(url, caption) of every line."""
    with path.open(newline="", encoding="utf-8") as stream:
        tabs = path.suffix == ".tsv"
        quoting = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        rows = csv.DictReader(stream, settings.columns, delimiter="\t" if tabs else ",", quoting=quoting)
        if not {"url", "caption"} <= set(rows.fieldnames or ()):
            raise ArtifactError(
                f"{path} needs columns url and caption, it has {rows.fieldnames}; a list without a "
                "header line needs `columns`, e.g. [url, caption]"
            )
        yield from ((row["url"], row["caption"]) for row in rows)


def _belongs(url: str, settings: AddressSettings) -> bool:
    """Train and validation are told apart by the address alone, so a longer list keeps the split."""
    if settings.part == "all":
        return True
    drawn = int.from_bytes(hashlib.sha256(url.encode()).digest()[:8], "big") % settings.validation_every == 0
    return drawn == (settings.part == "validation")


def pictures(rows: list[Row], settings: AddressSettings) -> Iterator[tuple[str, Picture | str]]:
    """Fetch one shard into a temporary folder; its tar is then written in the order of the keys."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / "list.jsonl").open("w") as stream:
            stream.writelines(json.dumps({"url": row.columns["url"], "row": row.key}) + "\n" for row in rows)
        _fetch(root, len(rows), settings)
        yield from _results(root / "fetched")


def _fetch(root: Path, count: int, settings: AddressSettings) -> None:
    """Run img2dataset in a process of its own: it leaves threads, handlers and variables behind."""
    options: dict[str, Any] = {
        "url_list": str(root / "list.jsonl"), "input_format": "jsonl", "save_additional_columns": ["row"],
        "output_folder": str(root / "fetched"), "output_format": "files", "number_sample_per_shard": count,
        "image_size": settings.resolution, "min_image_size": settings.resolution,
        "resize_mode": "center_crop", "extract_exif": False, "processes_count": 1, "thread_count": 32,
        "retries": settings.retries, "timeout": settings.timeout_seconds,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps(options)],
        env={**os.environ, **QUIET}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not list((root / "fetched").glob("*.parquet")):
        raise ArtifactError(f"img2dataset ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")


def _results(folder: Path) -> Iterator[tuple[str, Picture | str]]:
    """The picture, or the reason why there is none, of every address that img2dataset reports on."""
    from pyarrow import parquet

    for table in sorted(folder.glob("*.parquet")):
        for row in parquet.read_table(table, columns=["row", "key", "status", "error_message"]).to_pylist():
            if row["status"] == "success":
                yield row["row"], Picture("jpg", (folder / table.stem / f"{row['key']}.jpg").read_bytes())
            else:
                yield row["row"], " ".join(str(row["error_message"]).split())[:80]
