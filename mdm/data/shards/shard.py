"""A data set on disk: index.tsv, shards (tar files that webdataset reads), manifest.json.

Tars are byte for byte reproducible: sorted keys, fixed headers. {shard}.json records the tar's hash, its failures, the
hash of every picture and the offset of every file, so that readers need not scan. Duplicates are known when all shards
are there: they stay in the tars, and the manifest lists their rows as `left_out`, which no reader shows. While a shard
is made its results are in {shard}.partial (mdm/data/shards/journal.py).
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from mdm.config.recipe import DataRecipe
from mdm.data.pictures.clips import ClipSettings
from mdm.data.pictures.decode import decode
from mdm.data.pictures.duplicates import left_out, look
from mdm.data.pictures.failures import Failure
from mdm.data.rows import Picture, Row
from mdm.data.shards.index import index_data, iterate_index, read_index
from mdm.data.shards.journal import Journal, Stored
from mdm.data.sources import registry as sources
from mdm.files.artifact import Making, canonical
from mdm.files.atomic import ArtifactError, printable, read_json, replacing, write_atomic
from mdm.files.hashes import sha256_file, whole

__all__ = ["index_data", "read_index", "write_manifest", "write_shard", "write_shards"]

REASONS_SHOWN = 5
ROUNDING = 1e-6  # 0.55 x 100 is a little more than 55


def write_shards(recipe_path: str | Path, first: int, last: int) -> None:
    """Make or fetch some shards one after the other; those that are whole already are left alone."""
    for shard in range(first, last + 1):
        write_shard(recipe_path, shard)


def write_shard(recipe_path: str | Path, shard: int) -> Path:
    """Make or fetch one shard; failures are counted, and too many of them are an error."""
    job, folder = sources.job(recipe_path), Path(recipe_path).parent
    names, size = sources.shard_names(job.recipe), job.recipe.shard_images
    if not 0 <= shard < len(names):
        raise ArtifactError(f"{recipe_path} has shards 0 to {len(names) - 1}, there is no shard {shard}")
    rows = read_index(folder, shard * size, (shard + 1) * size)
    identity = _identity(rows)
    path = folder / "shards" / f"{names[shard]}.tar"
    if whole(path, identity):
        return path
    with Journal(path.with_suffix(".partial"), identity) as journal:
        for rest in path.parent.glob(f".{names[shard]}.*.tmp"):  # of a job that was killed; this one has the lock
            rest.unlink()
        for key, outcome in job.source.pictures([row for row in rows if row.key not in journal.outcomes], job.settings):
            journal.add(key, outcome)
        outcomes = {row.key: journal.outcomes.get(row.key, str(Failure.NO_ANSWER)) for row in rows}
        _check_success(rows, outcomes, job.settings, f"{folder}, shard {shard}")
        record = {"identity": identity, **_write_tar(path, rows, outcomes, journal, job)}
        write_atomic(path.with_suffix(".json"), json.dumps(record) + "\n")
        journal.path.unlink(missing_ok=True)
    return path


def _identity(rows: list[Row]) -> str:
    return hashlib.sha256(canonical([asdict(row) for row in rows])).hexdigest()


def _write_tar(
    path: Path, rows: list[Row], outcomes: dict[str, Stored | str], journal: Journal, job: sources.Job
) -> dict[str, Any]:
    """Stream the tar from the journal, and return the record that stands beside it."""
    found = [(row, stored) for row in rows if isinstance(stored := outcomes[row.key], Stored)]
    failed = {key: outcome for key, outcome in outcomes.items() if isinstance(outcome, str)}
    looks: list[str] = []

    def pictures() -> Iterator[tuple[Row, Picture]]:
        for row, stored in found:
            picture = Picture(stored.extension, journal.read(stored))
            if job.duplicates == "looks":
                looks.append(f"{look(decode(picture.data)):016x}")
            yield row, picture

    with replacing(path) as stream:
        hashing = _Hashing(stream)
        files = pack(hashing, pictures())
    licences = Counter(row.columns.get("licence", job.source.LICENCE) for row, _ in found)
    return {
        "samples": len(found), "rows": len(rows), "failures": dict(Counter(failed.values()).most_common()),
        "licences": dict(licences.most_common()), "sha256": hashing.sha256.hexdigest(), "bytes": hashing.size,
        "files": files, "hashes": [stored.sha256 for _, stored in found],
        **({"looks": looks} if job.duplicates == "looks" else {}), "failed": failed,
    }  # fmt: skip


def _check_success(rows: list[Row], outcomes: dict[str, Stored | str], settings: Any, where: str) -> None:
    # Pictures of the embedded sources must all be there.
    minimum, asked = getattr(settings, "min_success", 1.0), len(rows)
    failures = Counter(outcome for outcome in outcomes.values() if isinstance(outcome, str))
    found = asked - failures.total()
    if found >= minimum * asked - ROUNDING:
        return
    common = ", ".join(f"{count} x {reason}" for reason, count in failures.most_common(REASONS_SHOWN))
    said = f"{where}: only {found} of {asked} pictures are there, min_success asks for {minimum:.0%} ({common})"
    named = [f"{row.columns['file']} ({outcomes[row.key]})" for row in rows if isinstance(outcomes[row.key], str)
             and "file" in row.columns]  # fmt: skip
    if named:
        more = ", ..." if len(named) > REASONS_SHOWN else ""
        raise ArtifactError(
            f"{said}: {printable(', '.join(named[:REASONS_SHOWN]), 1000)}{more}. Mend or remove these files, or write "
            "a lower min_success in the data set's settings: they are then left out and counted"
        )
    remedy = "Try again later (what arrived is kept), or lower min_success in the data set's settings"
    raise ArtifactError(f"{said}. {remedy}")


class _Hashing:
    """What a tar is written to: passes on, counts and hashes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.sha256, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def tell(self) -> int:
        return self.size


def pack(stream: Any, samples: Iterable[tuple[Row, Picture]]) -> list[dict[str, Any]]:
    """Write a reproducible tar of {key}.json, {key}.png or .jpg, {key}.txt; return where each file lies in it."""
    places = []
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row, picture in samples:
            files = {
                "json": canonical({"labels": row.labels, "source": row.columns}),
                picture.extension: picture.data,
                "txt": row.caption.encode(),
            }
            place: dict[str, Any] = {"key": row.key}
            for extension, data in sorted(files.items()):
                place[extension] = [_add(tar, f"{row.key}.{extension}", data), len(data)]
            places.append(place)
    return places


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append one file with fixed owner, time and mode; return where its bytes begin."""
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(data), 0o644, 0
    tar.addfile(header, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def write_manifest(recipe_path: str | Path) -> dict[str, Any]:
    """Check every shard against its record and write manifest.json: what a training run trusts."""
    making, job = Making(recipe_path, DataRecipe), sources.job(recipe_path)
    folder, names = making.folder, sources.shard_names(making.recipe)
    shards, failures, licences = [], Counter[str](), Counter[str]()
    index, size = iterate_index(folder), making.recipe.shard_images
    licence = getattr(job.settings, "licence", None) or job.source.LICENCE

    def records() -> Iterator[dict[str, Any]]:
        for number, name in enumerate(names):
            again = f"python -m mdm shard {recipe_path} --shard {number}"
            rows = list(itertools.islice(index, size))
            record = _check_shard(folder / "shards" / f"{name}.tar", _identity(rows), again)
            failures.update(record["failures"])
            for own, count in record["licences"].items():
                licences[licence if own == job.source.LICENCE else own] += count
            shards.append({"file": f"shards/{name}.tar"} | {key: record[key] for key in ("sha256", "samples", "bytes")})
            yield record

    rows, duplicates = left_out(records(), job.duplicates)
    for shard, gone in zip(shards, rows, strict=True):
        if gone:
            shard |= {"samples": shard["samples"] - len(gone), "left_out": gone}
    samples = sum(shard["samples"] for shard in shards)
    if not samples:
        why = ", ".join(f"{count} x {reason}" for reason, count in failures.most_common(REASONS_SHOWN))
        raise ArtifactError(f"{folder} has no picture at all ({why}); correct the data set's settings")
    facts = _facts(job, licence, samples, {"licences": licences, "failures": failures, "duplicates": duplicates})
    return making.finish({**facts, "index_sha256": sha256_file(folder / "index.tsv"), "handling": job.handling,
                          "digest": _digest(shards), "shards": shards})  # fmt: skip


def _facts(job: sources.Job, licence: str, samples: int, counts: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of all shards together."""
    asked = job.recipe.num_images
    return {
        "source": job.recipe.source,
        "licence": licence,
        "licences": dict(counts["licences"].most_common()),
        "resolution": job.settings.resolution,
        **({"frames": job.settings.frames} if isinstance(job.settings, ClipSettings) else {}),
        "samples": samples,
        "fetched": asked,
        "fetched_fraction": round((samples + sum(counts["duplicates"].values())) / asked, 6),
        "failures": dict(counts["failures"].most_common()),
        **({"duplicates": counts["duplicates"]} if job.duplicates != "none" else {}),
    }


def _digest(shards: list[dict[str, Any]]) -> str:
    """Identify the samples by the tars and the rows of them that are left out."""
    parts = [" ".join([shard["sha256"], *map(str, shard.get("left_out", []))]) for shard in shards]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _check_shard(path: Path, identity: str, again: str) -> dict[str, Any]:
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise ArtifactError(f"{path} or its record {path.stem}.json does not exist; make them again: {again}")
    record = read_json(path.with_suffix(".json"))
    if (seen := sha256_file(path)) != record["sha256"]:
        raise ArtifactError(
            f"{path} was damaged or changed: its sha256 is {seen}, {path.with_suffix('.json').name} says "
            f"{record['sha256']}; make it again: {again}"
        )
    if record["identity"] != identity:
        raise ArtifactError(f"{path} was made from another index.tsv than is there now; make it again: {again}")
    if len(record["files"]) != record["samples"]:
        counts = f"{record['samples']} samples, but {len(record['files'])} places"
        raise ArtifactError(f"{path}: {counts}; delete it, then {again}")
    return record
