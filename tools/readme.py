"""Puts the laptop study's tables and samples, as they were written, into README.md and docs/."""

import csv
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "studies" / "laptop"
BEGIN, END = "<!-- results: written by tools/readme.py -->\n", "<!-- end of results -->\n"
TABLES = {"README.md": "main", "docs/results.md": "alignment"}


def commit() -> str:
    """The commit at which the last stage of base was trained; its working tree must have been clean."""
    with (STUDY / "metrics.csv").open() as lines:
        row = next(row for row in csv.DictReader(lines) if (row["run"], row["stage"]) == ("base", "r64"))
    folder = ROOT / "results" / "train" / f"r64-{row['digest']}"
    git = json.loads((folder / "manifest.json").read_text())["git"]
    if git["dirty"]:
        raise SystemExit(f"{folder} was trained from a working tree with changes; commit, and train again")
    return git["commit"][:12]


def main() -> None:
    made = f"Made at commit `{commit()}` by `make study`."
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    for page, name in TABLES.items():
        table = (STUDY / "tables" / f"{name}.md").read_text().strip()
        text = f"{BEGIN}\n{made}\n\n{table}\n\n{END}"
        path = ROOT / page
        path.write_text(block.sub(lambda _, text=text: text, path.read_text(), count=1))
    shutil.copyfile(STUDY / "figures" / "samples-base.png", ROOT / "docs" / "samples.png")


if __name__ == "__main__":
    main()
