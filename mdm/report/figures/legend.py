"""A figure's legend as words and little pictures of the page: they wrap on a phone, where a drawn one is cut off."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle

from mdm.report.figures import style

DASHES = {":": "1.5 2.5", "--": "6 2", "-.": "6 2 1.5 2"}


@dataclass(frozen=True)
class Entry:
    """One series: its name, and its line or bar as an inline SVG."""

    label: str
    swatch: Markup


def taken(drawn: Figure) -> list[Entry]:
    """The entries of the figure's legend, which is taken out of the drawing."""
    found = []
    for legend in list(drawn.legends):
        texts = [text.get_text() for text in legend.get_texts()]
        found += [Entry(t, _swatch(h)) for t, h in zip(texts, legend.legend_handles, strict=True)]
        legend.remove()
    return found


def _swatch(handle: Any) -> Markup:
    body = _line(handle) if isinstance(handle, Line2D) else _bar(handle)
    svg = f'<svg viewBox="0 0 34 13" aria-hidden="true">{body}</svg>'
    return Markup(style.with_variables(svg))  # numbers and colours of our own


def _line(handle: Line2D) -> str:
    colour, dash = to_hex(handle.get_color()), DASHES.get(handle.get_linestyle(), "none")
    line = f'<path d="M1 6.5H33" style="stroke: {colour}; stroke-width: 2; stroke-dasharray: {dash}; fill: none"/>'
    return line + _marker(handle.get_marker(), colour)


def _marker(marker: Any, colour: str) -> str:
    if marker in (None, "None", "none", ""):
        return ""
    made = MarkerStyle(marker)
    shapes = made.get_path().transformed(made.get_transform()).to_polygons()
    points = [" ".join(f"{17 + 8 * x:.2f},{6.5 - 8 * y:.2f}" for x, y in shape) for shape in shapes]
    return "".join(f'<polygon points="{p}" style="fill: {colour}"/>' for p in points)


def _bar(handle: Any) -> str:
    stripes = f'<path d="M6 12L18 1M13 12L25 1M20 12L31 2" style="stroke: {style.INK}; stroke-width: 1.4"/>'
    colour = to_hex(handle.get_facecolor())
    return f'<rect x="3" y="1" width="28" height="11" style="fill: {colour}"/>' + stripes * bool(handle.get_hatch())
