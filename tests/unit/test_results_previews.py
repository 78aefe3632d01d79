"""Grids drawn while training appear in the report, a few of each stage, with their files named."""

import numpy as np
import pytest
import results_fixture as fixture
from PIL import Image

from mdm.report.collect import Artifacts
from mdm.report.page import html, previews


@pytest.fixture
def drawn(tmp_path):
    """A finished study whose base run drew six grids in its first stage."""
    study = fixture.make_study()
    sources = fixture.write_tree(study, tmp_path)
    folder = sources.results / study.runs[0].stages[0].artifact / "progress" / "samples"
    folder.mkdir(parents=True)
    for images in range(100, 700, 100):
        Image.fromarray(np.full((16, 128, 3), images // 4, np.uint8)).save(folder / f"{images:012d}.png")
    return study, sources


def test_a_few_of_each_stage_from_the_first_to_the_last(drawn):
    study, sources = drawn
    found = previews.grids(study, Artifacts(sources.results))
    assert [grid.images for grid in found] == [100, 300, 400, 600]
    assert found[0].path == f"{study.runs[0].stages[0].artifact}/progress/samples/000000000100.png"


def test_the_report_shows_them_if_they_are_there(drawn, tmp_path):
    study, sources = drawn
    html.write_report(study, sources, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert "After 400 training pictures." in page and "/progress/samples/000000000400.png" in page
    for path in sources.results.glob("train/*/progress/samples/*.png"):
        path.unlink()
    html.write_report(study, sources, tmp_path / "index.html")
    assert "While it trained" not in (tmp_path / "index.html").read_text()
