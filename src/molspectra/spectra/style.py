"""The style of all figures: colours, markers, sizes, and their rendering as PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

INK = "#1f2328"
"""Colour of lines and text; in SVG replaced by the colour of the page's text."""

COLOURS = {"scratch": "#8c8c8c", "stage1": "#e08a00", "stage2": "#1f78b4"}
"""Colours of the usual initialisations, distinguishable with any colour vision (after Okabe and Ito)."""

OTHERS = ("#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a800")

SERIES = (COLOURS["stage2"], COLOURS["stage1"], *OTHERS)
"""Colours of other series, `C0` to `C6` of matplotlib; in print `MANY_MARKERS` tell them apart."""

MARKERS = {"scratch": "o", "stage1": "s", "stage2": "D"}
OTHER_MARKER = "^"
MANY_MARKERS = "osDv^PX"
"""Markers of the series, in the order of `SERIES`."""

_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": f"cycler(color={list(SERIES)})",
    "axes.titlelocation": "left",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.hashsalt": "molspectra",  # the same figure gives the same bytes
    "svg.fonttype": "path",
    "path.simplify_threshold": 0.25,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def colour_of(key: str, keys: list[str]) -> str:
    """Return the colour of one of several keys; the usual initialisations have the same in every figure."""
    others = [other for other in keys if other not in COLOURS]
    return COLOURS[key] if key in COLOURS else OTHERS[others.index(key) % len(OTHERS)]


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all figures, whatever the user's own settings."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, without pyplot; call inside `styled`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(drawn: Figure, dpi: int = 160) -> bytes:
    """Render a figure as a PNG file on white."""
    buffer = io.BytesIO()
    with styled():
        drawn.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


@dataclass(frozen=True)
class Part:
    """A picture that stands alone or with others in one figure; sizes in inches."""

    width: float
    height: float
    draw: Callable[[FigureBase], None]


def figure_of(*parts: Part) -> Figure:
    """Draw parts into one figure, each below the one before."""
    with styled():
        drawn = new_figure(max(part.width for part in parts), sum(part.height for part in parts))
        places: list[Any] = [drawn]
        if len(parts) > 1:
            heights = [part.height for part in parts]
            places = list(drawn.subfigures(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0])
        for place, part in zip(places, parts, strict=True):
            part.draw(place)
    return drawn
