"""Files that are whole or not there: atomic writes, and reads that name what is wrong."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

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
    """Refuse to replace a file that a user named, unless they ask for it."""
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
