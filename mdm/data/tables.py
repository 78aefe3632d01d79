"""Tables of other people (CSV, TSV): read as UTF-8 whatever the machine's language, and errors name the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from mdm.config import nearest
from mdm.manifest import ArtifactError, printable


def table(
    path: Path, needed: Sequence[str], columns: Sequence[str] | None = None, plain: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of each row; `columns` if there is no header, `plain` if tabs and quotes are just text.

    Separated by tabs if the first line has one, else by commas. Spreadsheets begin a file with a mark, which is no
    part of the first column's name.
    """
    with path.open(newline="", encoding="utf-8-sig") as stream:
        tabs = "\t" in _first_line(stream, path)
        quoting = csv.QUOTE_NONE if plain and tabs else csv.QUOTE_MINIMAL
        rows = csv.DictReader(
            stream, columns, delimiter="\t" if tabs else ",", quoting=quoting, strict=not plain, restkey=""
        )
        try:
            _check_columns(path, rows.fieldnames or (), needed)
            for row in rows:
                _check_row(path, rows.line_num, row, needed)
                yield rows.line_num, row
        except UnicodeDecodeError as error:
            raise ArtifactError(
                f"{path} is not UTF-8 ({error.reason}, after line {rows.line_num}); save it as UTF-8"
            ) from None
        except csv.Error as error:
            raise ArtifactError(
                f"{path}, line {rows.line_num + 1} or after: {error}; is there a quote that is not closed?"
            ) from None


def _first_line(stream: object, path: Path) -> str:
    try:
        line = stream.readline(1 << 20)
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    stream.seek(0)
    return line


def _check_columns(path: Path, there: Sequence[str], needed: Sequence[str]) -> None:
    for name in needed:
        if name not in there:
            seen = printable(", ".join(there)) or "nothing"
            raise ArtifactError(
                f"{path} has no column {name}: it needs columns {' and '.join(needed)}, and its first line says "
                f"{seen}; {nearest(name, there)}"
            )


def _check_row(path: Path, line: int, row: dict[str, str], needed: Sequence[str]) -> None:
    if row.get(""):
        raise ArtifactError(
            f"{path}, line {line} has more columns than the first line; put quotes around what holds a comma"
        )
    for name in needed:
        if row[name] is None:
            raise ArtifactError(f"{path}, line {line} has too few columns: no {name}; correct the line")
