"""Results of a shard as they come, on disk: a killed job continues where it was, and memory stays flat.

The file is append-only: a line names the rows, then each result has a line of JSON and the bytes of its picture. A torn
end is found by length and hash, and cut off.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from mdm.data.pictures.failures import DOUBTFUL
from mdm.data.rows import Picture
from mdm.files.atomic import UNWRITABLE, ArtifactError
from mdm.files.lock import take


@dataclass(frozen=True)
class Stored:
    """Where a picture lies in the journal, and its hash."""

    extension: str
    offset: int
    size: int
    sha256: str


class Journal:
    """Outcomes by key: a Stored picture or the reason why there is none. `identity` names the rows asked for."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.outcomes: dict[str, Stored | str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115  closed by __exit__
        try:
            if take(self._file) is False:  # a requeued job may start before the old one is gone
                raise ArtifactError(f"{path} is being written by another process; wait until it has ended")
            self._load(identity)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
        except OSError:
            if kind is None:  # else the disk refused the same bytes before, and that is being told
                raise

    def _load(self, identity: str) -> None:
        self._file.seek(0)
        head = json.dumps({"rows": identity}).encode() + b"\n"
        if self._file.readline() != head:
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(head)
            self._file.flush()
            return
        end = self._file.tell()
        while (line := self._file.readline()) and (entry := self._entry(line)):
            key, outcome = entry
            self.outcomes[key] = outcome
            end = self._file.tell()
        self._file.truncate(end)
        self._file.seek(end)
        # A timeout of last time is no verdict: whoever runs the job again wants these asked again.
        self.outcomes = {key: outcome for key, outcome in self.outcomes.items() if outcome not in DOUBTFUL}

    def _entry(self, line: bytes) -> tuple[str, Stored | str] | None:
        """Read one result; None where the file is torn."""
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:  # JSON or UTF-8 that ends in the middle
            return None
        if "failure" in entry:
            return (entry["key"], entry["failure"]) if line.endswith(b"\n") else None
        offset = self._file.tell()
        data = self._file.read(entry["size"])
        if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            return None
        return entry["key"], Stored(entry["extension"], offset, entry["size"], entry["sha256"])

    def add(self, key: str, outcome: Picture | str) -> None:
        """Note one result; it survives whatever happens to this process afterwards."""
        try:
            if isinstance(outcome, str):
                self._file.write(json.dumps({"key": key, "failure": str(outcome)}).encode() + b"\n")
                self.outcomes[key] = str(outcome)
            else:
                entry = {"extension": outcome.extension, "size": len(outcome.data)}
                entry["sha256"] = hashlib.sha256(outcome.data).hexdigest()
                self._file.write(json.dumps({"key": key, **entry}).encode() + b"\n")
                self.outcomes[key] = Stored(offset=self._file.tell(), **entry)
                self._file.write(outcome.data)
            self._file.flush()
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise ArtifactError(
                f"{self.path} cannot be written: {error.strerror}. What came before is kept; make room and run it again"
            ) from error

    def read(self, stored: Stored) -> bytes:
        data = os.pread(self._file.fileno(), stored.size, stored.offset)
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise ArtifactError(f"{self.path} was changed while the shard was made; delete it and make the shard again")
        return data
