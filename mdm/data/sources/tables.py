"""Tables of other people (CSV, TSV): read as UTF-8 whatever the machine's language, and errors name the line."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdm.config import nearest
from mdm.files.atomic import ArtifactError, printable

Names = Sequence[str]
Rows = Iterator[tuple[int, dict[str, str]]]


def table(path: Path, needed: Names, columns: Names | None = None, published: bool = False) -> Rows:
    """Yield (line, cells by column) of each row; `columns` if there is no header.

    Tabs separate a .tsv, and a table whose header has one; else commas do. In a `published` list, which nobody can
    mend, quotes between tabs are text and surplus cells are dropped. A byte order mark is no part of the first column's
    name.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        try:
            tabs = path.suffix == ".tsv" or (columns is None and "\t" in stream.readline())
            stream.seek(0)
            quoting = csv.QUOTE_NONE if published and tabs else csv.QUOTE_MINIMAL
            delimiter = "\t" if tabs else ","
            rows = csv.DictReader(stream, columns, delimiter=delimiter, quoting=quoting, strict=not published)
            _check_columns(path, rows.fieldnames or (), needed, published)
            for row in rows:
                _check_row(path, rows.line_num, row, needed, published)
                yield rows.line_num, row
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
        except csv.Error as error:
            raise ArtifactError(
                f"{path}, line {rows.line_num + 1} or after: {error}; is there a quote that is not closed?"
            ) from None


def _check_columns(path: Path, there: Sequence[str], needed: Sequence[str], published: bool) -> None:
    for name in needed:
        if name not in there:
            seen = printable(", ".join(there)) or "nothing"
            headless = " (a list without a header line needs `columns`)" if published else ""
            raise ArtifactError(
                f"{path} has no column {name}: it needs columns {' and '.join(needed)}, and its first line says "
                f"{seen}; {nearest(name, there)}{headless}"
            )


def _check_row(path: Path, line: int, row: dict[str | None, str], needed: Sequence[str], published: bool) -> None:
    if row.get(None) and not published:
        remedy = "put quotes around what holds a comma"
        raise ArtifactError(f"{path}, line {line} has more columns than the first line; {remedy}")
    for name in needed:
        if row[name] is None:
            raise ArtifactError(f"{path}, line {line} has too few columns: no {name}; correct the line")
