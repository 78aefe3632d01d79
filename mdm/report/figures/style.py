"""One look for all figures: transparent ground, mid-grey ink, colours for colour-blind readers, fixed bytes.

The grey and the palette are readable on white and on black. In the report the colours become CSS variables
(`themed`), so that a figure follows the page's light or dark theme.
"""

import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display in a workflow job

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

INK, FAINT = "#7a7a7a", "#9d9d9d"
# Found by search: the two most alike of six are far apart (0.2 in OKLab) for the three kinds of colour blindness too,
# on white and on black. The page has a palette of its own for each of its themes (report.css).
PALETTE = ("#576cff", "#d1bd0e", "#0c467f", "#d6637a", "#8f0401", "#46c8fe")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1)), (0, (9, 1.5, 2, 1.5)))
PNG_DPI = 160
PAGE_PIXELS_PER_POINT = 1.45  # size of figures on the page: 9 pt letters become 13 px


def settings(name: str) -> dict[str, Any]:
    """matplotlib settings; the salt makes the SVG's ids a function of the figure's name."""
    return {
        "svg.hashsalt": name, "svg.fonttype": "none",
        "text.parse_math": False, "axes.formatter.use_mathtext": False, "axes.unicode_minus": True,
        "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9,
        "legend.fontsize": 8, "legend.frameon": False,
        "text.color": INK, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.titlecolor": INK,
        "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT,
        "grid.alpha": 0.25, "grid.linewidth": 0.6,
        "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
        "axes.linewidth": 0.8, "lines.linewidth": 1.7, "lines.markersize": 4.5, "hatch.linewidth": 1.1,
        "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    }  # fmt: skip


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw with this look and leave no figure open."""
    with matplotlib.rc_context(settings(name)):
        try:
            yield
        finally:
            plt.close("all")


def series(index: int) -> dict[str, Any]:
    """Colour, marker and line of the n-th series: different in colour and in shape."""
    turn = index // len(PALETTE)
    return {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[(index + turn) % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)]}  # fmt: skip


def hatch(index: int) -> str:
    """Bars whose colour comes round again are hatched."""
    return ("", "////", "....", "xxxx")[index // len(PALETTE) % 4]


def legend_below(drawn: Figure, axes: Iterable[Axes], order: Sequence[str] = ()) -> None:
    """One legend under all panels, each name once; names in `order` come first. The page writes its own instead."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, _artist(handle))
    drawn.tight_layout(h_pad=1.2, w_pad=1.8)
    columns = max(1, min(len(handles), int(drawn.get_figwidth() / 1.9)))
    labels = sorted(handles, key=lambda label: order.index(label) if label in order else len(order))
    drawn.legend(
        [handles[label] for label in labels], labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns
    )


def _artist(handle: Any) -> Any:
    """What stands for a series in a legend: the line of error bars, the first of its bars, or a line."""
    if isinstance(handle, ErrorbarContainer):
        return handle.lines[0]
    if isinstance(handle, BarContainer):
        return handle.patches[0]
    if isinstance(handle, LineCollection):
        pattern = ":" if handle.get_linestyle()[0][1] else "-"
        return Line2D([], [], color=handle.get_color()[0], linestyle=pattern, linewidth=handle.get_linewidth()[0])
    return handle


def note(text: str) -> Figure:
    """A figure that only says why it is empty: a partial study still has all its files."""
    figure = plt.figure(figsize=(6, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=INK, wrap=True)
    return figure


def as_svg(figure: Figure) -> str:
    """The figure as SVG without date or version, so that equal numbers give equal bytes."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return re.sub(r"[ \t]+$", "", stream.getvalue(), flags=re.MULTILINE)


def as_png(figure: Figure) -> bytes:
    """The figure as PNG on a transparent ground."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PNG_DPI, bbox_inches="tight", metadata={"Software": None})
    return stream.getvalue()


def themed(svg: str, name: str, description: str = "") -> str:
    """The SVG element alone: ids unique on the page, colours as CSS variables, a label for screen readers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", body)
    body = re.sub(r'fill="(#[0-9a-f]{6})"', r'style="fill: \1"', body)  # an attribute cannot hold a variable
    body = with_variables(body)
    width = float(re.search(r'<svg[^>]*? width="([\d.]+)pt"', body)[1]) * PAGE_PIXELS_PER_POINT
    label = html.escape(description or name)
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" style="--natural: {width:.0f}px" ', 1)


def with_variables(body: str) -> str:
    """Colours of this look as the page's variables."""
    for variable, colour in (("ink", INK), ("faint", FAINT), *enumerate(PALETTE)):
        body = re.sub(rf"(?<=: ){colour}", f"var(--figure-{variable}, {colour})", body)
    return body
