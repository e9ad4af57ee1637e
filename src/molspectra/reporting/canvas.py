"""Figures written to files, and rendered as SVG in the page's text colour."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

from matplotlib.figure import Figure

from molspectra.data.atomic import atomic_file
from molspectra.data.output import free_path
from molspectra.reporting.markup import Markup, markup
from molspectra.spectra.style import INK, styled

FIGURES = (".png", ".svg", ".pdf")
"""Files that a figure can be written to."""


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
