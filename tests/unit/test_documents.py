"""The documents: no unresolved merge, no link that leads nowhere, no file that is not there."""

import importlib.util
import re
import subprocess

import pytest
from repository import ROOT

# Put together here, or this file would hold the markers that are looked for.
OURS, MIDDLE, THEIRS = "<" * 7, "=" * 7, ">" * 7
FILE = re.compile(r"`((?:mdm|workflow|config|tests|tools|slurm|benchmarks|profiles|docs)/[^\s`*{]*\.[a-z]+)`")


@pytest.fixture(scope="module")
def links():
    spec = importlib.util.spec_from_file_location("links", ROOT / "tools" / "links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(folder, *arguments):
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=False)


def conflicts(folder):
    return subprocess.run([ROOT / "tools" / "conflicts.sh", folder], capture_output=True, text=True, check=False)


@pytest.fixture
def repository(tmp_path):
    """A repository with one page, and the check and this test, which must not find themselves."""
    git(tmp_path, "init", "--initial-branch=main")
    (tmp_path / "page.md").write_text("# A page\n\nText.\n")
    for mine in (ROOT / "tools" / "conflicts.sh", ROOT / "tests" / "unit" / "test_documents.py"):
        (tmp_path / mine.name).write_text(mine.read_text())
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=first")
    return tmp_path


def test_this_repository_has_no_conflict():
    found = conflicts(ROOT)
    assert found.returncode == 0, found.stdout


def test_a_repository_without_conflict_passes_whatever_its_spaces(repository):
    (repository / "page.md").write_text("# A page  \n\nTwo\n======\n \t text\n\n\n")
    found = conflicts(repository)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("marker", [f"{OURS} HEAD", MIDDLE, f"{THEIRS} review", "|" * 7 + " parent"])
def test_a_marker_in_a_tracked_file_is_refused_with_its_line(repository, marker):
    (repository / "page.md").write_text(f"# A page\n{marker}\nText.\n")
    found = conflicts(repository)
    assert found.returncode == 1 and "page.md:2: leftover conflict marker" in found.stdout
    git(repository, "commit", "--all", "--message=committed with it")
    assert conflicts(repository).returncode == 1


def test_a_merge_that_nobody_resolved_is_refused_by_name(repository):
    for branch, text in (("one", "# One\n"), ("two", "# Two\n")):
        git(repository, "checkout", "-b", branch, "main")
        (repository / "page.md").write_text(text)
        git(repository, "commit", "--all", f"--message={branch}")
    assert git(repository, "merge", "one").returncode == 1
    (repository / "page.md").write_text("# Two\n")  # the markers are gone, but git does not know that it is resolved
    found = conflicts(repository)
    assert found.returncode == 1 and "page.md is not merged" in found.stdout
    git(repository, "add", "page.md")
    assert conflicts(repository).returncode == 0


def test_no_document_has_a_dead_link(links):
    assert list(links.dead_links(ROOT)) == []


def test_dead_links_are_found_and_others_left_alone(links, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text(
        "# More\n\n## Twice, told\n\n## Twice, told\n\n[up](../README.md#here)\n"
    )
    (tmp_path / "README.md").write_text(
        "# Here\n[more](docs/more.md#twice-told-1) [out](https://example.org/x#y) `[code](nowhere)`\n\n"
        "    [shown](nowhere)\n\n"
        "[gone](docs/gone.md) ![picture](docs/gone.png) [heading](docs/more.md#thrice) [here](#there) [out](../x)\n"
    )
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "README.md").write_text("[of a package](nowhere)\n")
    found = list(links.dead_links(tmp_path))
    assert [line.split()[3] for line in found] == [
        "docs/gone.md", "docs/gone.png", "docs/more.md#thrice", "#there", "../x"
    ]  # fmt: skip


def test_files_that_documents_name_are_there(links):
    """Except in those that tell of files as they were."""
    pages = {page for pattern in links.PAGES for page in ROOT.glob(pattern)} - {
        ROOT / "CHANGELOG.md",
        ROOT / "docs/log.md",
    }
    named = [(page.name, name) for page in pages for name in FILE.findall(page.read_text(encoding="utf-8"))]
    assert ("README.md", "mdm/train/loop.py") in named
    assert [(page, name) for page, name in named if not (ROOT / name).exists()] == []


def test_formulas_cite_sections_that_exist(links):
    """Comments that cite `docs/reference.md, section N` name a section of it, and nothing cites a private document."""
    sections = {int(name.split("-")[0]) for name in links.anchors(ROOT / "docs" / "reference.md") if name[0].isdigit()}
    code = [(path, path.read_text(encoding="utf-8")) for path in sorted((ROOT / "mdm").rglob("*.py"))]
    cited = {
        int(number)
        for _, text in code
        for group in re.findall(r"docs/reference\.md,\s+sections? ([\d, and]+)", text)
        for number in re.findall(r"\d+", group)
    }
    assert cited and cited <= sections
    assert [str(path) for path, text in code if re.search(r"\bspec [A-D]\.\d", text)] == []
