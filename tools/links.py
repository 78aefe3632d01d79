"""Finds links of the documents that lead nowhere: to files, and to headings in them. Asks no network."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "config", "reports", "results", "slurm")
PAGES = ("*.md", "docs/*.md", *(f"{folder}/README.md" for folder in FOLDERS), "tests/**/*.md")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:")


def prose(page: Path) -> str:
    """The text of a page without its code blocks (indented or fenced) and code spans."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?<=\n\n)(?: {4,}.*\n|\n)+", "", text)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors that code hosts make of a page's headings; a repeated one gets a number."""
    headings = re.findall(r"^#+ +(.*?) *$", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {f"{name}-{before}" if (before := names[:k].count(name)) else name for k, name in enumerate(names)}


def dead_links(root: Path) -> Iterator[str]:
    """A line for each link of the documents below `root` that leads nowhere."""
    for page in sorted({page for pattern in PAGES for page in root.glob(pattern)}):
        for link in LINK.findall(prose(page)):
            if ELSEWHERE.match(link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            if not target.exists() or not target.is_relative_to(root):
                yield f"{page.relative_to(root)}: the link {link} leads to no file of the repository"
            elif anchor and anchor not in anchors(target):
                yield f"{page.relative_to(root)}: the link {link} leads to no heading of {target.relative_to(root)}"


if __name__ == "__main__":
    dead = list(dead_links(ROOT))
    sys.exit("\n".join(dead) if dead else 0)
