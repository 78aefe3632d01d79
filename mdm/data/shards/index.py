"""index.tsv: what a data set contains, known before any picture is made; index.json lets it be read from any row on."""

import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from mdm.data.rows import Row
from mdm.data.sources import registry as sources
from mdm.files.artifact import canonical
from mdm.files.atomic import ArtifactError, read_json, replacing, write_atomic

MARK_EVERY = 1000
ABANDONED_SECONDS = 24 * 3600
ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
ESCAPED = re.compile(r"\\([\\tnr])")
MEANING = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def index_data(recipe_path: str | Path) -> Path:
    """Write index.tsv beside the recipe: every key, caption and label, in ascending order of the keys."""
    job = sources.job(recipe_path)
    path, marks = Path(recipe_path).with_name("index.tsv"), list[int]()
    marks_path = path.with_suffix(".json")
    marks_path.unlink(missing_ok=True)  # of an index that is being replaced
    for rest in path.parent.glob(f".{path.name}.*.tmp"):
        if time.time() - rest.stat().st_mtime > ABANDONED_SECONDS:  # of a job that was killed; one at work writes
            rest.unlink()
    with replacing(path) as stream:
        count = _write(stream, job.source.index(job.settings), marks, str(recipe_path))
        if not count:
            remedy = "correct the data set's settings"
            raise ArtifactError(f"{recipe_path}: no picture is wanted of all there are; {remedy}")
        if count != job.recipe.num_images:
            copies = job.recipe.num_images - job.settings.num_images
            raise ArtifactError(
                f"{recipe_path}: num_images is {job.settings.num_images}, but the source '{job.recipe.source}' has "
                f"{count - copies} pictures; write that number in the study"
            )
        size = stream.tell()
    write_atomic(marks_path, json.dumps({"rows": count, "bytes": size, "every": MARK_EVERY, "offsets": marks}))
    return path


def _write(stream: IO[bytes], rows: Iterable[Row], marks: list[int], where: str) -> int:
    """Write header and rows; `marks` receives where each block begins. Returns the number of rows."""
    count, last, names = 0, "", None
    for row in rows:
        if names is None:
            names = list(row.columns)
            stream.write(_line("key", "caption", "labels", *names, where=where))
        if row.key <= last:
            raise ArtifactError(f"{where}: key {row.key!r} follows {last!r}; a source lists keys ascending, each once")
        if count % MARK_EVERY == 0:
            marks.append(stream.tell())
        labels = canonical(row.labels).decode()
        # To a text encoder all white space of a caption is the same; names of files come back to the letter.
        columns = (str(row.columns[name]).translate(ESCAPES) for name in names)
        stream.write(_line(row.key, " ".join(row.caption.split()), labels, *columns, where=where))
        count, last = count + 1, row.key
    return count


def _line(*fields: str, where: str) -> bytes:
    try:
        return ("\t".join(fields) + "\n").encode()
    except UnicodeEncodeError:
        raise ArtifactError(f"{where}: {fields!a} cannot be written as UTF-8; rename the file") from None


def read_index(folder: str | Path, start: int = 0, stop: int | None = None) -> list[Row]:
    """Return the rows of a data folder's index.tsv, or some of them; only the part asked for is read."""
    return list(iterate_index(folder, start, stop))


def iterate_index(folder: str | Path, start: int = 0, stop: int | None = None) -> Iterator[Row]:
    """Yield the rows one by one, in constant memory."""
    path = Path(folder) / "index.tsv"
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist; run `python -m mdm index` on this data set first")
    with path.open("rb") as stream:
        names = stream.readline().decode().removesuffix("\n").split("\t")
        skip = _seek(stream, path, start) if start else 0
        lines = itertools.islice(stream, skip, None if stop is None else max(stop - start, 0) + skip)
        for line in lines:
            yield _row(names, line)


def _seek(stream: IO[bytes], path: Path, start: int) -> int:
    """Go to the block that holds row `start`; return how many rows of it come before."""
    marks = read_json(path.with_suffix(".json"))
    if path.stat().st_size != marks["bytes"]:
        raise ArtifactError(f"{path} is not the file that {path.with_suffix('.json').name} describes; make it again")
    block, skip = divmod(start, marks["every"])
    if start >= marks["rows"]:
        stream.seek(0, 2)
        return 0
    stream.seek(marks["offsets"][block])
    return skip


def _row(names: list[str], line: bytes) -> Row:
    fields = dict(zip(names, line.decode().removesuffix("\n").split("\t"), strict=True))
    key, caption, labels = (fields.pop(name) for name in ("key", "caption", "labels"))
    columns = {name: ESCAPED.sub(lambda found: MEANING[found[1]], text) for name, text in fields.items()}
    return Row(key, caption, json.loads(labels), columns)
