"""Puts tables, verdicts and samples of the studies in small, as they were written, into README.md and docs/."""

import csv
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "studies" / "laptop"
COPIES = ROOT / "results" / "studies" / "memorization-laptop"
# Other studies in small, where they were run: page, last stage of base, tables, figure and words.
OTHERS = {
    "baselines": ("baselines", "r64", ("main", "reaches", "cost"), "along-training", "Scores along training"),
    "today": ("today", "r64", ("main",), "excess-loss", "Loss beyond the optimum by noise level"),
    "memorization-onset": ("onset", "train", ("audit",), "along-training", "Copies and distance along training"),
}
BEGIN, END = "<!-- results: written by tools/readme.py -->\n", "<!-- end of results -->\n"
# The README shows the first protocol's rows and these columns of the main table; docs/results.md has all of both.
# Verdicts of several runs of the study: benchmarks/stability.py
STABILITY = ROOT / "benchmarks" / "stability.md"
TABLES = {"README.md": ("main",), "docs/results.md": ("main", "alignment")}
LEFT_OUT = ("Protocol", "Pictures shown", "Training pictures")
SPREAD = re.compile(r" \(\d+ seeds, sd [\d.]+\)")


def commit(study: Path, stage: str) -> str:
    """The commit at which the last stage of base was trained; its working tree must have been clean."""
    with (study / "metrics.csv").open() as lines:
        rows = csv.DictReader(lines)
        row = next(row for row in rows if (row["run"], row["stage"], row["protocol"]) == ("base", stage, ""))
    folder = ROOT / "results" / "train" / f"{stage}-{row['digest']}"
    git = json.loads((folder / "manifest.json").read_text())["git"]
    if git["dirty"]:
        raise SystemExit(f"{folder} was trained from a working tree with changes; commit, and train again")
    return git["commit"][:12]


def short(table: str) -> str:
    """The table of a Markdown text with the rows of the first protocol, without LEFT_OUT and the spread over seeds."""
    head, rule, *rows = cells(table)
    protocol = head.index("Protocol")
    kept = [number for number, title in enumerate(head) if title not in LEFT_OUT]
    shown = [head, rule, *(row for row in rows if row[protocol] == rows[0][protocol])]
    text = "\n".join(f"| {' | '.join(row[number] for number in kept)} |" for row in shown)
    return SPREAD.sub("", text)


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table: its head, the rule below it, and the rest."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:1] == "|"]


def copies() -> str:
    """Shares of copies by the paper's rule, the numbers of pictures up to which runs copy, and the verdicts."""
    head, _, *rows = cells((COPIES / "tables" / "audit.md").read_text().replace("\u00a0", " "))
    kept = [head.index(title) for title in ("Run", "Level", "Copies (%) ↓")]
    lines = ["| Run | Level | Copies (%) |", "|---|---|---:|"]
    lines += [f"| {' | '.join(SPREAD.sub('', row[place]) for place in kept)} |" for row in rows]
    lines += ["", *(COPIES / "tables" / "emm.md").read_text().strip().splitlines()[2:]]
    return "\n".join([*lines, "", verdicts(COPIES)])


def verdicts(study: Path) -> str:
    """The claims of a study with their verdicts and the intervals behind them."""
    lines = ["| Claim | Verdict | Difference, 95 % |", "|---|---|---:|"]
    for one in json.loads((study / "claims.json").read_text())["claims"]:
        found = "; ".join("{margin:+.2f} [{low:+.2f}, {high:+.2f}]".format(**part) for part in one["comparisons"])
        lines.append(f"| {one['statement']} | {one['verdict']} | {found or '—'} |")
    return "\n".join(lines)


def other(name: str) -> None:
    """The page of a study that is none of the two laptop studies."""
    page, stage, tables, figure, words = OTHERS[name]
    study = ROOT / "results" / "studies" / name
    parts = [SPREAD.sub("", (study / "tables" / f"{table}.md").read_text().strip()) for table in tables]
    made = f"Made at commit `{commit(study, stage)}` by `mdm run --study {name}`."
    shutil.copyfile(study / "figures" / f"{figure}.png", ROOT / "docs" / f"{page}.png")
    drawn = f"![{words}]({page}.png)"
    put(f"docs/{page}.md", "\n\n".join([BEGIN.strip(), made, verdicts(study), *parts, drawn, END]))


def put(page: str, text: str) -> None:
    """Write a text between the marks of a page."""
    block = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    path = ROOT / page
    path.write_text(block.sub(lambda _: text, path.read_text(), count=1))


def main() -> None:
    made = f"Made at commit `{commit(STUDY, 'r64')}` by `make study`."
    for page, names in TABLES.items():
        tables = [(STUDY / "tables" / f"{name}.md").read_text().strip() for name in names]
        if page == "README.md":
            tables = [short(tables[0])] + ([STABILITY.read_text().strip()] if STABILITY.is_file() else [])
        put(page, "\n\n".join([BEGIN.strip(), made, *tables, END]))
    shutil.copyfile(STUDY / "figures" / "samples-base.png", ROOT / "docs" / "samples.png")
    if COPIES.is_dir():
        made = f"Made at commit `{commit(COPIES, 'train')}` by `mdm run --study memorization-laptop`."
        put("docs/memorization.md", "\n\n".join([BEGIN.strip(), made, copies(), END]))
        shutil.copyfile(COPIES / "figures" / "emm.png", ROOT / "docs" / "copies.png")
    for name in (name for name in OTHERS if (ROOT / "results" / "studies" / name / "claims.json").is_file()):
        other(name)


if __name__ == "__main__":
    main()
