"""What makes two data sets different: settings, samples, bytes, failures. Compares folders, or manifests by shard.

Records beside the shards are enough to compare every picture by its hash; they can be published where pictures cannot.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdm.files.atomic import ArtifactError, read_json

SHOWN = 10
NEEDED = ("recipe", "digest", "samples", "shards", "failures", "index_sha256")


@dataclass
class Difference:
    """What was found; keys are those of index.tsv, a change is (key, hash here, hash there)."""

    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    handling: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    failures: dict[str, tuple[int, int]] = field(default_factory=dict)
    same_index: bool = True
    same_digest: bool = True
    samples: tuple[int, int] = (0, 0)
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Return whether both hold the same samples; how they were made may differ."""
        return self.same_digest and self.same_index and not self.settings


def compare(first: Path, second: Path) -> Difference:
    (a, folder_a), (b, folder_b) = _manifest(first), _manifest(second)
    found = Difference(
        settings=_differing(_flat(a["recipe"]), _flat(b["recipe"])),
        handling=_differing(_flat(a.get("handling", {})), _flat(b.get("handling", {}))),
        failures=_differing(a["failures"], b["failures"], 0),
        same_index=a["index_sha256"] == b["index_sha256"],
        same_digest=a["digest"] == b["digest"],
        samples=(a["samples"], b["samples"]),
    )
    if not found.same_digest:
        _compare_shards(found, a, folder_a, b, folder_b)
    return found


def _manifest(path: Path) -> tuple[dict[str, Any], Path]:
    path = path / "manifest.json" if path.is_dir() else path
    manifest = read_json(path)
    if missing := [key for key in NEEDED if key not in manifest]:
        raise ArtifactError(f"{path} is no manifest of a data set, it lacks {', '.join(missing)}; name a data folder")
    return manifest, path.parent


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    if not isinstance(value, dict):
        return {place: value}
    items = [_flat(item, f"{place}.{key}" if place else key) for key, item in value.items()]
    return {key: item for part in items for key, item in part.items()}


def _differing(a: dict[str, Any], b: dict[str, Any], missing: Any = None) -> dict[str, tuple[Any, Any]]:
    pairs = {key: (a.get(key, missing), b.get(key, missing)) for key in sorted({*a, *b})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _compare_shards(found: Difference, a: dict[str, Any], folder_a: Path, b: dict[str, Any], folder_b: Path) -> None:
    """Compare sample by sample where both sides have the records; else name the shards that differ."""
    known = {_identity(shard) for shard in a["shards"]} & {_identity(shard) for shard in b["shards"]}
    mine, yours = (
        {shard["file"]: shard for shard in side["shards"] if _identity(shard) not in known} for side in (a, b)
    )
    found.shards = sorted({*mine, *yours})
    sides = [(folder_a, mine), (folder_b, yours)]
    if not all((folder / name).with_suffix(".json").is_file() for folder, names in sides for name in names):
        return
    here, there = (dict(_hashes(folder, shards)) for folder, shards in sides)
    found.only_first = sorted(here.keys() - there.keys())
    found.only_second = sorted(there.keys() - here.keys())
    both = sorted(here.keys() & there.keys())
    found.changed = [(key, here[key], there[key]) for key in both if here[key] != there[key]]


def _identity(shard: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """Return the hash of the tar, and which of its rows are left out as duplicates."""
    return shard["sha256"], tuple(shard.get("left_out", ()))


def _hashes(folder: Path, shards: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield (key, hash of the picture) of every sample in these shards."""
    for name, shard in shards.items():
        path = (folder / name).with_suffix(".json")
        record, gone = read_json(path), set(shard.get("left_out", ()))
        if record["sha256"] != shard["sha256"]:
            raise ArtifactError(f"{path} is not of the shard that the manifest lists; run `mdm manifest` again")
        for row, (place, sha256) in enumerate(zip(record["files"], record["hashes"], strict=True)):
            if row not in gone:
                yield place["key"], sha256


def render(found: Difference) -> str:
    lines = [f"samples: {found.samples[0]:,} and {found.samples[1]:,}"]
    for title, table in (("settings", found.settings), ("handling", found.handling), ("failures", found.failures)):
        lines += [f"{title}: {key}: {a} -> {b}" for key, (a, b) in table.items()]
    if not found.same_index:
        lines.append("index.tsv differs: the same key may stand for another address or caption")
    for title, keys in (("only in the first", found.only_first), ("only in the second", found.only_second)):
        lines += _listing(title, keys)
    lines += _listing("other bytes", [f"{key} ({a[:12]} -> {b[:12]})" for key, a, b in found.changed])
    if found.shards and not (found.only_first or found.only_second or found.changed):
        lines += _listing("shards that differ", found.shards)
    lines.append("the same samples" if found.same else "not the same data set")
    return "\n".join(lines)


def _listing(title: str, words: list[str]) -> list[str]:
    if not words:
        return []
    more = f", and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
    return [f"{title}: {len(words):,}: {', '.join(words[:SHOWN])}{more}"]
