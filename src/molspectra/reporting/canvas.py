"""Style of all figures, and their rendering: PNG files, and SVG in the page's text colour."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from molspectra.data.atomic import atomic_file
from molspectra.data.output import free_path
from molspectra.reporting.markup import Markup, markup

FIGURES = (".png", ".svg", ".pdf")
"""Files that a figure can be written to."""

INK = "#1f2328"
"""Colour of lines and text; in SVG replaced by the colour of the page's text."""

COLOURS = {"scratch": "#8c8c8c", "stage1": "#e08a00", "stage2": "#1f78b4"}
"""Colours of the usual initialisations, distinguishable with any colour vision (after Okabe and Ito)."""

OTHERS = ("#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a800")

MARKERS = {"scratch": "o", "stage1": "s", "stage2": "D"}
OTHER_MARKER = "^"

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


def write_figure(out: str | os.PathLike[str], drawn: Figure, *, overwrite: bool = False) -> Path:
    """Write a figure as PNG, SVG or PDF, by the suffix; the file appears complete or not at all.

    Raises:
        InputError: another suffix, the file exists or cannot be written.
    """
    path = free_path(out, FIGURES, overwrite=overwrite)
    kind, buffer = path.suffix.lower()[1:], io.BytesIO()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with styled():
        drawn.savefig(buffer, format=kind, dpi=150, facecolor="white", metadata=undated)
    with atomic_file(path) as file:
        file.write(buffer.getvalue())
    return path


def svg(drawn: Figure, alt: str, prefix: str) -> Markup:
    """Render a figure as SVG to be put into a page, see `inline_svg`."""
    buffer = io.StringIO()
    with styled():
        drawn.savefig(
            buffer,
            format="svg",
            dpi=160,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return inline_svg(buffer.getvalue().replace(INK, "currentColor"), alt, prefix)


def inline_svg(text: str, alt: str, prefix: str) -> Markup:
    """Turn an SVG document into an element of a page.

    Args:
        text: of the document.
        alt: text for readers who do not see it.
        prefix: put before its ids; unique within the page.
    """
    text = re.sub(
        r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL
    )
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'\b(xlink:href|href)="#', rf'href="#{prefix}-', text)
    text = text.replace("url(#", f"url(#{prefix}-")
    head, body = re.split(r"(?<=>)", text[text.index("<svg") :], maxsplit=1)
    size = re.search(r"""viewBox=['"]([-\d. ]+)['"]""", head)
    box = size[1] if size else "0 0 100 100"
    opening = f'<svg viewBox="{box}" role="img" aria-label="{markup(alt)}">'
    return Markup((opening + f"<title>{markup(alt)}</title>" + body).strip())
