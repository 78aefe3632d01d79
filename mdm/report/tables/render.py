"""A table as a value, and its three file forms: CSV for programs, Markdown for reading, LaTeX for papers."""

import re
from dataclasses import dataclass, field
from typing import Any

from mdm.report.collect import csv_text
from mdm.report.quantity import Quantity

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "↓": r"$\downarrow$", "↑": r"$\uparrow$",
    "→": r"$\rightarrow$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$", "–": "--",
    "—": "---", "·": r"$\cdot$", "\n": " ", "\u00a0": "~",
})  # fmt: skip
MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_<>|~"} | {"\n": " "})
ENDS = ("", "_low", "_high", "_sd")


@dataclass(frozen=True)
class Cell:
    """Words, or a quantity; with both, the words are shown and the quantity stands in the CSV."""

    text: str = ""
    quantity: Quantity | None = None
    mark: str = ""  # of a difference: better, worse (its interval excludes zero) or unclear
    signed: bool = False

    @property
    def main(self) -> str:
        """The value without its interval."""
        return self.shown.split(" [")[0] if self.quantity and not self.text else self.shown

    @property
    def interval(self) -> str:
        """The interval alone, "" for words and exact numbers."""
        _, _, rest = self.shown.partition(" [")
        return f"[{rest}" if rest and self.quantity and not self.text else ""

    @property
    def shown(self) -> str:
        return self.quantity.text(self.signed) if self.quantity and not self.text else self.text

    @property
    def seeds_note(self) -> str:
        """`2 seeds, sd 0.4` when there are several."""
        if self.quantity is None or self.quantity.spread is None or self.text:
            return ""
        return f"{len(self.quantity.seeds)} seeds, sd {self.quantity.spread:.2g}"

    @property
    def full(self) -> str:
        """Everything on one line."""
        extra = [e for e in (self.mark, self.seeds_note) if e]
        return self.shown + (f" ({'; '.join(extra)})" if extra else "")


@dataclass(frozen=True)
class Column:
    """A column; quantity columns become four columns in the CSV."""

    key: str
    title: str
    quantity: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the study; `row_classes` tell the page which rows stand apart."""

    name: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[dict[str, Cell]]
    notes: list[str] = field(default_factory=list)
    row_classes: list[str] = field(default_factory=list)

    def cells(self, row: dict[str, Cell]) -> list[Cell]:
        """The row in the order of the columns; what was not measured is a dash."""
        return [row.get(c.key) or Cell("—") for c in self.columns]

    def row_class(self, index: int) -> str:
        return self.row_classes[index] if index < len(self.row_classes) else ""


def as_csv(table: Table) -> str:
    """Unrounded values; a quantity gives value, _low, _high and _sd (over seeds)."""
    columns = [column.key + end for column in table.columns for end in (ENDS if column.quantity else ENDS[:1])]
    return csv_text([_csv_record(table, row) for row in table.rows], columns)


def _csv_record(table: Table, row: dict[str, Cell]) -> dict[str, Any]:
    record: dict[str, Any] = {key: cell.text for key, cell in row.items()}
    for key in (column.key for column in table.columns if column.quantity):
        if key in row and (quantity := row[key].quantity):
            values = (quantity.value, quantity.low, quantity.high, quantity.spread)
            record |= zip((key + end for end in ENDS), values, strict=True)
    return record


def as_markdown(table: Table) -> str:
    head = [_markdown_cell(c.title) for c in table.columns]
    rule = ["---:" if c.quantity else "---" for c in table.columns]
    body = [[_markdown_cell(cell.full) for cell in table.cells(row)] for row in table.rows]
    lines = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    notes = [f"- {_markdown_cell(note)}" for note in table.notes]
    return "\n".join([f"**{table.title}.** {_markdown_cell(table.caption)}", "", *lines, "", *notes]).rstrip() + "\n"


def _markdown_cell(text: str) -> str:
    """Outside text may not open a cell, a tag or markup."""
    return text.translate(MARKDOWN)


def as_latex(table: Table) -> str:
    """A booktabs table; every word is escaped."""
    align = "".join("r" if c.quantity else "l" for c in table.columns)
    head = " & ".join(latex(c.title) for c in table.columns)
    # {} keeps a row that begins with a bracket from being read as the option of the line break before it.
    body = ["{}" + " & ".join(latex(cell.full) for cell in table.cells(row)) + r" \\" for row in table.rows]
    caption, label = latex(" ".join([table.caption, *table.notes])), re.sub(r"[\W_]", "-", table.name)
    return "\n".join([
        r"\begin{table}[t]", r"  \centering", rf"  \caption{{{caption}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{{align}}}", r"    \toprule", rf"    {head} \\", r"    \midrule",
        *(f"    {line}" for line in body), r"    \bottomrule", r"  \end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def latex(text: str) -> str:
    """Plain words as LaTeX that prints exactly them."""
    return text.translate(LATEX)


FORMATS = {"csv": as_csv, "md": as_markdown, "tex": as_latex}
