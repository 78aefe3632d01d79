"""A data set on disk: index.tsv, shards (tar files that webdataset reads), manifest.json.

Tars are byte for byte reproducible: sorted keys, fixed headers. Beside each stands {shard}.json with its
hash, its failures, and where in the tar every file lies, so that readers need not scan the tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mdm.data import sources
from mdm.data.sources import Picture, Row
from mdm.manifest import (
    ArtifactError,
    Making,
    canonical,
    read_json,
    read_recipe,
    sha256_file,
    write_atomic,
)

REASONS_SHOWN = 5


def index_data(recipe_path: str | Path) -> Path:
    """Write index.tsv beside the recipe: every key, caption and label, before any picture is made."""
    recipe = read_recipe(recipe_path)
    source, settings = sources.reopen(recipe, str(recipe_path))
    rows = list(source.index(settings))
    if len(rows) != settings.num_images or len({row.key for row in rows}) != len(rows):
        raise ArtifactError(
            f"{recipe_path}: num_images is {settings.num_images}, but the source '{recipe['source']}' has "
            f"{len(rows)} pictures with {len({row.key for row in rows})} different keys; "
            "write that number in the study"
        )
    path = Path(recipe_path).with_name("index.tsv")
    write_atomic(path, _index_text(rows))
    return path


def _index_text(rows: list[Row]) -> str:
    names = list(rows[0].columns)
    lines = ["\t".join(("key", "caption", "labels", *names))]
    for row in rows:
        fields = (
            row.key,
            row.caption,
            canonical(row.labels).decode(),
            *(row.columns[name] for name in names),
        )
        # A tab or line break inside a caption would break the table; readers need no quoting rules.
        lines.append("\t".join(" ".join(str(field).split()) for field in fields))
    return "\n".join(lines) + "\n"


def read_index(folder: str | Path, start: int = 0, stop: int | None = None) -> list[Row]:
    """Rows of a data folder's index.tsv, or some of them."""
    path = Path(folder) / "index.tsv"
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; run `python -m mdm index` on this data set first")
    header, *lines = path.read_text().removesuffix("\n").split("\n")
    names = header.split("\t")
    return [_row(dict(zip(names, line.split("\t"), strict=True))) for line in lines[start:stop]]


def _row(fields: dict[str, str]) -> Row:
    key, caption, labels = (fields.pop(name) for name in ("key", "caption", "labels"))
    return Row(key, caption, json.loads(labels), fields)


def write_shard(recipe_path: str | Path, shard: int) -> Path:
    """Make or fetch one shard; failures are counted, and too many of them are an error."""
    recipe, folder = read_recipe(recipe_path), Path(recipe_path).parent
    source, settings = sources.reopen(recipe, str(recipe_path))
    names = sources.shard_names(recipe)
    if not 0 <= shard < len(names):
        raise ArtifactError(f"{recipe_path} has shards 0 to {len(names) - 1}, there is no shard {shard}")
    rows = read_index(folder, shard * recipe["shard_images"], (shard + 1) * recipe["shard_images"])
    results = dict(source.pictures(rows, settings))
    missing = {row.key: "no answer" for row in rows if row.key not in results}
    found = [(row, results[row.key]) for row in rows if isinstance(results.get(row.key), Picture)]
    failures = Counter(reason for reason in [*results.values(), *missing.values()] if isinstance(reason, str))
    # Only sources that fetch have min_success; pictures that are drawn or read must all be there.
    _check_success(len(found), len(rows), failures, getattr(settings, "min_success", 1.0), f"{folder}, shard {shard}")
    content, files = pack(found)
    path = folder / "shards" / f"{names[shard]}.tar"
    write_atomic(path, content)
    record = {"samples": len(found), "rows": len(rows), "failures": dict(failures.most_common())}
    sums = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    write_atomic(path.with_suffix(".json"), json.dumps({**record, **sums, "files": files}) + "\n")
    return path


def _check_success(found: int, asked: int, failures: Counter[str], minimum: float, where: str) -> None:
    if found < minimum * asked or not found:
        common = ", ".join(f"{count} x {reason}" for reason, count in failures.most_common(REASONS_SHOWN))
        raise ArtifactError(
            f"{where}: only {found} of {asked} pictures arrived, min_success asks for {minimum:.0%} ("
            f"{common}). Try again later, or lower min_success in the data set's settings"
        )


def pack(samples: Iterable[tuple[Row, Picture]]) -> tuple[bytes, list[dict[str, Any]]]:
    """A reproducible tar of {key}.json, {key}.png|jpg, {key}.txt, and where each file lies in it."""
    stream, places = io.BytesIO(), []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, picture in sorted(samples, key=lambda sample: sample[0].key):
            files = {
                "json": canonical({"labels": row.labels, "source": row.columns}),
                picture.extension: picture.data,
                "txt": row.caption.encode(),
            }
            place: dict[str, Any] = {"key": row.key}
            for extension, data in sorted(files.items()):
                place[extension] = [_add(tar, f"{row.key}.{extension}", data), len(data)]
            places.append(place)
    return stream.getvalue(), places


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append one file with fixed owner, time and mode; returns where its bytes begin."""
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(data), 0o644, 0
    tar.addfile(header, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def write_manifest(recipe_path: str | Path) -> dict[str, Any]:
    """Check every shard against its record and write manifest.json: what a training run trusts."""
    making = Making(recipe_path)
    recipe, folder = making.recipe, making.folder
    source, settings = sources.reopen(recipe, str(recipe_path))
    shards, failures = [], Counter[str]()
    for name in sources.shard_names(recipe):
        record = _check_shard(folder / "shards" / f"{name}.tar")
        failures.update(record["failures"])
        shards.append({"file": f"shards/{name}.tar", **{key: record[key] for key in ("sha256", "samples", "bytes")}})
    facts = {
        "source": recipe["source"],
        "licence": source.LICENCE,
        "resolution": settings.resolution,
        "samples": sum(shard["samples"] for shard in shards),
        "fetched": settings.num_images,
        "failures": dict(failures.most_common()),
        "digest": hashlib.sha256(" ".join(shard["sha256"] for shard in shards).encode()).hexdigest(),
        "index_sha256": sha256_file(folder / "index.tsv"),
        "shards": shards,
    }
    return making.finish(facts)


def _check_shard(path: Path) -> dict[str, Any]:
    record = read_json(path.with_suffix(".json"))
    if not path.is_file():
        raise ArtifactError(f"{path} is missing though {path.with_suffix('.json')} is there; make the shard again")
    if (seen := sha256_file(path)) != record["sha256"]:
        raise ArtifactError(
            f"{path} was damaged or changed: its sha256 is {seen}, {path.with_suffix('.json').name} says "
            f"{record['sha256']}; delete both files and make the shard again"
        )
    if len(record["files"]) != record["samples"]:
        raise ArtifactError(f"{path}: {record['samples']} samples, but {len(record['files'])} places; make it again")
    return record
