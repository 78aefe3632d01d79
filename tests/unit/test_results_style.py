"""Colours that stay apart for every eye and on every ground, and words that break where they may."""

import re
from pathlib import Path

import numpy as np
import pytest

from mdm.report.figures import style
from mdm.report.page import html
from mdm.report.verdicts import NOT_RUN, VERDICTS

# Machado, Oliveira and Fernandes 2009, severity 1: what the three kinds of dichromats see of linear RGB.
EYES = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
CONES = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
         [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
OKLAB = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099],
         [0.0259040371, 0.7827717662, -0.808675766]]  # fmt: skip


def linear(colours):
    seen = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    return np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4)


def palettes():
    """name -> (six colours, the grounds they stand on)."""
    css = (Path(html.TEMPLATES) / "report.css").read_text()
    found = [re.findall(r"--figure-\d: (#[0-9a-f]{6})", line) for line in css.splitlines()]
    light, dark, toggled = [colours for colours in found if colours]
    assert dark == toggled
    return {"files": (style.PALETTE, "#ffffff #000000"), "light": (light, "#fbfbf9"), "dark": (dark, "#131518")}


@pytest.mark.parametrize("name", ["files", "light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_any_two_colours_differ(name, eye):
    colours, _ = palettes()[name]
    seen = (linear(colours) @ np.array(EYES[eye]).T).clip(0, 1)
    lab = np.cbrt(seen @ np.array(CONES).T) @ np.array(OKLAB).T
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(6, dtype=bool)]
    assert distances.min() > 0.14


@pytest.mark.parametrize("name", ["files", "light", "dark"])
def test_colours_stand_out_from_their_ground(name):
    colours, grounds = palettes()[name]
    weights = [0.2126, 0.7152, 0.0722]
    for ground in linear(grounds.split()) @ weights:
        levels = linear(colours) @ weights
        contrast = (np.maximum(levels, ground) + 0.05) / (np.minimum(levels, ground) + 0.05)
        assert contrast.min() > (1.7 if name == "files" else 2.3)


def test_a_series_differs_by_more_than_its_colour():
    looks = [style.series(index) for index in range(12)]
    assert len({(str(look["linestyle"]), look["marker"], look["color"]) for look in looks}) == 12
    assert len({str(look["linestyle"]) for look in looks[:6]}) == 6


def test_prose_keeps_numbers_with_units_and_names_whole_and_escapes():
    text = str(html.prose("took 16 s under zero-shot, 94.5 % of data/scenes-new-f17d <b>no-show</b>"))
    assert str(html.prose('x["no-go"]')) == 'x[&#34;<span class="whole">no-go</span>&#34;]'
    assert "16\u00a0s" in text and "94.5\u00a0%" in text and '<span class="whole">zero-shot</span>' in text
    assert "data/scenes-new-f17d" in text and "<b>" not in text and "&lt;b&gt;" in text


@pytest.mark.parametrize("verdict", [verdict for verdict in VERDICTS if verdict != NOT_RUN])
def test_every_verdict_has_a_colour_and_a_sign(verdict):
    css, look = (Path(html.TEMPLATES) / "report.css").read_text(), verdict.replace(":", "").replace(" ", "-")
    assert re.search(rf"\.verdict\.{look}[ ,]", css) and re.search(rf"\.verdict\.{look}::before[ ,]", css)
