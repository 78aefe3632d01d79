"""Files that can be trusted: atomic writes, hashes, and the record of how each artifact was made."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

RECORDED_PACKAGES = (
    "torch", "numpy", "transformers", "open_clip_torch", "clean-fid", "webdataset", "snakemake", "pillow", "resvg_py",
)  # fmt: skip

# The disk is full or broken, a quota is used up, the place is not ours or no folder.
UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip


class ArtifactError(ValueError):
    """An artifact on disk is missing, incomplete or not what its recipe says."""


def printable(text: str, most: int = 100) -> str:
    """Words of a file on the user's terminal, which obeys control characters; never a page of them."""
    text = text[:most]
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream that becomes the file when the block ends well: readers see the old content or all of the new."""
    path = Path(path)
    # The pid keeps two jobs that write the same file from tearing each other's temporary.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if not _concerns(path, error):
            raise
        before = "what stood there is unchanged" if os.path.isfile(path) else "nothing was left there"
        raise ArtifactError(
            f"{path} cannot be written: {error.strerror}; {before}. Make room or choose another place, and run it again"
        ) from error
    finally:
        with suppress(OSError):  # where the folder itself is the trouble there is no temporary either
            temporary.unlink(missing_ok=True)


def _concerns(path: Path, error: OSError) -> bool:
    """Whether writing this file failed for a reason that people can mend; other files are another matter."""
    seen = Path(os.fsdecode(error.filename or path))
    return error.errno in UNWRITABLE and (seen.parent == path.parent or seen in path.parents)


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or all of the new one, never a part."""
    with replacing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def refuse_overwriting(path: str | Path, force: bool) -> None:
    """What stands at a path that a user chose is replaced only if they say so."""
    if Path(path).exists() and not force:
        raise ArtifactError(f"{path} exists already; write another path, or add --force to replace it")


def append_line(path: Path, line: str) -> None:
    """Add a line to a file and have it on disk: what is written later may not outlive it when a machine fails."""
    try:
        with path.open("a") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror}; make room and run it again") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write readable JSON atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a damaged or missing file is an ArtifactError that names the path."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist; the rule that makes it has not run") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); delete it and run again") from None


def canonical(value: Any) -> bytes:
    """The one byte string of a JSON value: key order and layout do not matter, values do."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Twelve hex digits that identify a recipe."""
    return hashlib.sha256(canonical(value)).hexdigest()[:12]


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_recipe(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Read a recipe (of a kind) and prove that it is the one its folder is named after."""
    path = Path(path)
    recipe = read_json(path)
    named = path.parent.name.rpartition("-")[2]
    if digest(recipe) != named:
        raise ArtifactError(
            f"{path} was changed: its digest is {digest(recipe)}, but the folder says {named}. "
            "Recipes are generated; edit the study file instead and delete this folder."
        )
    if kind and recipe["kind"] != kind:
        raise ArtifactError(f"{path} is a recipe of {recipe['kind']}; name one of results/{kind}/")
    return recipe


def results_root(recipe_path: str | Path) -> Path:
    """The results folder that holds kind/name-digest/recipe.json."""
    return Path(recipe_path).resolve().parents[2]


class Making:
    """One artifact while it is made: its proved recipe, its folder, and last of all its manifest."""

    def __init__(self, recipe_path: str | Path) -> None:
        self._started = time.monotonic()
        self.recipe = read_recipe(recipe_path)
        self.folder, self.root = Path(recipe_path).parent, results_root(recipe_path)

    def finish(self, facts: Mapping[str, Any], device: str = "cpu") -> dict[str, Any]:
        """Write manifest.json, which says that the artifact is complete; `facts` may bring their own seconds."""
        manifest = {
            "artifact": f"{self.recipe['kind']}/{self.folder.name}", "recipe": self.recipe, **facts,
            **provenance(device),
        }  # fmt: skip
        manifest.setdefault("seconds", round(time.monotonic() - self._started, 3))
        write_json(self.folder / "manifest.json", manifest)
        return manifest


SOURCE = (":/mdm", ":/config", ":/workflow")


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _source() -> dict[str, Any]:
    try:
        # New files count where they can change numbers: a module or a study that no commit holds.
        changed = [_git("status", "--porcelain", "-uno"), _git("status", "--porcelain", "-uall", "--", *SOURCE)]
        return {"commit": _git("rev-parse", "HEAD"), "dirty": any(changed)}
    except FileNotFoundError:  # no git on this machine: say so rather than guess
        return {"commit": None, "dirty": None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def provenance(device: str = "cpu") -> dict[str, Any]:
    """What every manifest records: source, packages, machine. Host names are left out on purpose."""
    packages = {name: version for name in RECORDED_PACKAGES if (version := _version(name))}
    return {
        "git": _source(),
        "packages": packages,
        "python": platform.python_version(),
        "device": device,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
