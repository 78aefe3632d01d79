"""Puts the laptop study's tables, verdicts and samples, as they were written, into README.md and docs/."""

import csv
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "studies" / "laptop"
BEGIN, END = "<!-- results: written by tools/readme.py -->\n", "<!-- end of results -->\n"
# The README shows the first protocol's rows and these columns of the main table; docs/results.md has all of both.
# Verdicts of several runs of the study: benchmarks/stability.py
STABILITY = ROOT / "benchmarks" / "stability.md"
TABLES = {"README.md": ("main",), "docs/results.md": ("main", "alignment")}
LEFT_OUT = ("Protocol", "Training pictures")


def commit() -> str:
    """The commit at which the last stage of base was trained; its working tree must have been clean."""
    with (STUDY / "metrics.csv").open() as lines:
        row = next(row for row in csv.DictReader(lines) if (row["run"], row["stage"]) == ("base", "r64"))
    folder = ROOT / "results" / "train" / f"r64-{row['digest']}"
    git = json.loads((folder / "manifest.json").read_text())["git"]
    if git["dirty"]:
        raise SystemExit(f"{folder} was trained from a working tree with changes; commit, and train again")
    return git["commit"][:12]


def short(table: str) -> str:
    """The table of a Markdown text with the rows of the first protocol, without LEFT_OUT and the spread over seeds."""
    head, rule, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:1] == "|"
    ]
    protocol = head.index("Protocol")
    kept = [number for number, title in enumerate(head) if title not in LEFT_OUT]
    shown = [head, rule, *(row for row in rows if row[protocol] == rows[0][protocol])]
    text = "\n".join(f"| {' | '.join(row[number] for number in kept)} |" for row in shown)
    return re.sub(r" \(\d+ seeds, sd [\d.]+\)", "", text)


def main() -> None:
    made = f"Made at commit `{commit()}` by `make study`."
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    for page, names in TABLES.items():
        tables = [(STUDY / "tables" / f"{name}.md").read_text().strip() for name in names]
        if page == "README.md":
            tables = [short(tables[0])] + ([STABILITY.read_text().strip()] if STABILITY.is_file() else [])
        text = "\n\n".join([BEGIN.strip(), made, *tables, END])
        path = ROOT / page
        path.write_text(block.sub(lambda _, text=text: text, path.read_text(), count=1))
    shutil.copyfile(STUDY / "figures" / "samples-base.png", ROOT / "docs" / "samples.png")


if __name__ == "__main__":
    main()
