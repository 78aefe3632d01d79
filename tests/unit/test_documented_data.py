"""Every data set that the documentation shows is one that the program accepts."""

import re
import textwrap

import pytest
import yaml

from mdm.data.sources import registry as sources

PAGES = ("README.md", "docs/own-data.md", "docs/data-sets.md", "docs/settings.md")


def shown(root):
    """(page, name, entry) of each entry under an indented `data:`."""
    for page in PAGES:
        text = (root / page).read_text(encoding="utf-8")
        for block in re.findall(r"^    data:.*\n(?: {6,}.*\n)+|^    data: *\{.*\n", text, re.MULTILINE):
            entries = yaml.safe_load(textwrap.dedent(block))["data"]
            if isinstance(entries, dict):  # the list of a study's sections is none
                yield from ((page, name, entry) for name, entry in entries.items())


def test_documented_data_sets_are_accepted(root):
    found = list(shown(root))
    assert {entry["source"] for _, _, entry in found} >= {"folder", "clip-folder", "webdataset", "drawings", "imagenet"}
    for page, name, entry in found:
        sources.resolve(entry["source"], entry["settings"], f"{page}: data.{name}")


@pytest.mark.parametrize("source", sources.SOURCES)
def test_every_source_is_documented(root, source):
    assert any(re.search(rf"\b{source}\b", (root / page).read_text(encoding="utf-8")) for page in PAGES)
