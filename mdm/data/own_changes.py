"""Whether a user's own folder is still what its data set was made from; asked before a study starts.

A data set is known by its settings, not by what lies in the folder. Without this, new pictures or captions would be
left out without a word, because what was made from the old ones is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mdm.data.index import iterate_index
from mdm.data.sources import Source
from mdm.manifest import printable

SHOWN = 3


def changes(made: Path, source: Source, settings: Any, sha256: Callable[[Path], str]) -> str | None:
    """What is new, gone or other in the folder since `made` was indexed, in words; None if nothing is."""
    folder, index = Path(getattr(settings, "path", "")), made / "index.tsv"
    if not hasattr(source, "listed") or not index.is_file():
        return None
    if not folder.is_dir() and (made / "manifest.json").is_file():
        return None  # what was made is whole: the pictures may be gone
    found = dict(_differences(made, source.listed(settings), settings, sha256))
    if not found:
        return None
    kinds: dict[str, list[str]] = {}
    for file, kind in found.items():
        kinds.setdefault(kind, []).append(file)
    return "; ".join(f"{len(files)} {kind} ({_some(files)})" for kind, files in sorted(kinds.items()))


def _differences(
    made: Path, listed: dict[str, tuple[str, dict[str, int]]], settings: Any, sha256: Callable[[Path], str]
) -> Iterator[tuple[str, str]]:
    """File and what is the matter with it."""
    folder, written = Path(settings.path), (made / "index.tsv").stat().st_mtime_ns

    def later(file: str) -> bool:
        return (folder / file).stat().st_ctime_ns > written

    known = set()
    for row in iterate_index(made):
        file = row.columns["file"]
        known.add(file)
        if file not in listed or not (folder / file).is_file():
            yield file, "gone"
        elif (" ".join(listed[file][0].split()), listed[file][1]) != (row.caption, row.labels):
            yield file, "with another caption or class"
        elif later(file) and sha256(folder / file) != row.columns["sha256"]:
            yield file, "with other content"
    for file in sorted(listed.keys() - known):
        # An older file that is not in the index was left out as a duplicate.
        if settings.duplicates == "none" or ((folder / file).is_file() and later(file)):
            yield file, "new"


def _some(files: list[str]) -> str:
    return printable(", ".join(files[:SHOWN]), 300) + (", ..." if len(files) > SHOWN else "")
