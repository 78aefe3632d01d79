"""Whether a user's own folder is still what its data set was made from; asked before a study starts.

A data set is known by its settings, not by the folder's content; new pictures would otherwise be ignored in silence.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mdm.data.shards.index import iterate_index
from mdm.data.sources.own_files import Captioned
from mdm.data.sources.registry import Source
from mdm.files.atomic import ArtifactError, printable

SHOWN = 3
Changed = tuple[str, str]  # a file, and how it differs


def problem(made: Path, source: Source, settings: Any, sha256: Callable[[Path], str]) -> str | None:
    """Say what is wrong with the folder and what to write instead; `made` is where its data set is, or will be."""
    if not hasattr(source, "listed") or ((made / "manifest.json").is_file() and not Path(settings.path).is_dir()):
        return None  # no own folder, or what was made is whole and the pictures may be gone
    try:
        if (made / "index.tsv").is_file() and _untouched(made, settings):
            return None
        listed = source.listed(settings)
        if not (made / "index.tsv").is_file():
            return _wrong_number(listed, settings)
        said = _changes(made, listed, settings, sha256)
    except (ArtifactError, OSError) as error:
        return str(error)
    if said is None:
        return None
    return (
        f"it has changed since {made} was made from it: {said}; put the old files back, or write revision: "
        f"{settings.revision + 1} in its settings (and num_images as it is now) to make it anew"
    )


def _untouched(made: Path, settings: Any) -> bool:
    """Return whether no file that matters has changed since the index was written; reads none of them."""
    later, folder = _since((made / "index.tsv").stat().st_mtime_ns, settings.path), str(settings.path)
    if settings.captions:
        files = (f"{folder}/{name}" for name in (settings.captions, *(r.columns["file"] for r in iterate_index(made))))
        return all(os.path.isfile(file) and not later(file) for file in files)
    with os.scandir(folder) as entries:  # a file that came or went changes the folder itself
        return not later(folder) and not any(later(entry.path) for entry in entries)


def _since(written: int, root: str) -> Callable[[str | Path], bool]:
    """Return a test whether a file changed after `written`: itself, the link to it, or the link to its folder."""
    relinked = os.path.islink(root) and os.lstat(root).st_ctime_ns > written

    def later(file: str | Path) -> bool:
        return relinked or os.stat(file).st_ctime_ns > written or os.lstat(file).st_ctime_ns > written

    return later


def _wrong_number(listed: Captioned, settings: Any) -> str | None:
    """Say that num_images is wrong, which is known at once if no duplicates are looked for."""
    if settings.duplicates != "none" or len(listed) == settings.num_images:
        return None
    part = "" if settings.part == "all" else f" for part: {settings.part}"
    return f"it has {len(listed)} captioned files{part}, not {settings.num_images}; write num_images: {len(listed)}"


def _changes(made: Path, listed: Captioned, settings: Any, sha256: Callable[[Path], str]) -> str | None:
    """Say what is new, gone or other since `made` was indexed; None if nothing is."""
    kinds: dict[str, list[str]] = {}
    for file, kind in _differences(made, listed, settings, sha256):
        kinds.setdefault(kind, []).append(file)
    said = []
    for kind, files in sorted(kinds.items()):
        some = printable(", ".join(files[:SHOWN]), 300) + ", ..." * (len(files) > SHOWN)
        said.append(f"{len(files)} {kind} ({some})")
    return "; ".join(said) or None


def _differences(made: Path, listed: Captioned, settings: Any, sha256: Callable[[Path], str]) -> Iterator[Changed]:
    """Yield each file that differs, and how."""
    folder, later = Path(settings.path), _since((made / "index.tsv").stat().st_mtime_ns, settings.path)
    known, hashes = set(), set()
    own_labels = getattr(settings, "label", "class") == "class"  # others are given by place, whatever a table says
    for row in iterate_index(made):
        file = row.columns["file"]
        known.add(file)
        hashes.add(row.columns["sha256"])
        if file not in listed or not (folder / file).is_file():
            yield file, "gone"
        elif " ".join(listed[file][0].split()) != row.caption or (own_labels and listed[file][1] != row.labels):
            yield file, "with another caption or class"
        elif later(folder / file) and sha256(folder / file) != row.columns["sha256"]:
            yield file, "with other content"
    for file in sorted(listed.keys() - known):
        # A file that is not in the index may have been left out as a duplicate: an older one, or one with known bytes.
        path, kept = folder / file, settings.duplicates == "none"
        if kept or (path.is_file() and later(path) and sha256(path) not in hashes):
            yield file, "new"
