"""Interactive drawings of the page: documents in sandboxed frames, which load this package's scripts alone.

A frame has no access to the page around it, to its cookies or to the network. It gets its data as JSON, and
may send messages, which the page takes from its own frames only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from molspectra.reporting.markup import Markup, element, markup

if TYPE_CHECKING:
    from molspectra.chem.molecule import Molecule

STATIC = Path(__file__).parent / "static"
"""Scripts and styles of the frames."""

POINTS = 1500
"""Most points of a curve, about two for each pixel of a wide screen."""

Frame = Literal["answer", "map", "molecule", "runs", "sketch", "structure"]

_SCRIPTS: dict[Frame, tuple[str, ...]] = {
    "answer": ("plotly.min.js", "vendor/3Dmol-min.js", "viewer.js", "answer.js"),
    "map": ("plotly.min.js", "viewer.js", "map.js"),
    "molecule": ("plotly.min.js", "vendor/3Dmol-min.js", "viewer.js", "molecule.js"),
    "runs": ("plotly.min.js", "viewer.js", "runs.js"),
    "sketch": ("sketch.js",),
    "structure": ("plotly.min.js", "vendor/3Dmol-min.js", "viewer.js", "structure.js"),
}
_MODULES = ("sketch",)
"""Frames whose script is a module, which imports what it needs."""


def frame(kind: Frame, data: Mapping[str, Any], title: str, height: int) -> Markup:
    """Return an element that shows a drawing.

    Args:
        kind: what draws it, one of the scripts in `static`.
        data: what it draws, as JSON can hold it; not finite numbers become null.
        title: of the frame, for people who do not see it.
        height: in pixels.
    """
    # no "<" ends the script early, and no brace is taken for a template of the page
    text = json.dumps(data, allow_nan=False, ensure_ascii=True).replace("<", "\\u003c")
    head = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/frames/frame.css">'
    module = ' type="module"' if kind in _MODULES else ""
    scripts = "".join(f'<script{module} src="/frames/{name}"></script>' for name in _SCRIPTS[kind])
    document = f'{head}<body><script type="application/json" id="data">{text}</script>{scripts}</body>'
    return whole(
        f'<iframe class="drawing-{kind}" sandbox="allow-scripts" title="{escape(title)}" '
        f'style="width:100%;height:{height}px;border:0" srcdoc="{escape(document)}"></iframe>'
    )


def whole(text: str) -> Markup:
    """Markup without braces, which the page would take for its own templates."""
    return Markup(text.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;"))


def numbers(values: npt.ArrayLike, digits: int = 4) -> list[float | None]:
    """Numbers as JSON holds them, rounded to a number of significant digits; None where not finite."""
    return [
        float(f"{value:.{digits}g}") if np.isfinite(value) else None
        for value in np.asarray(values, np.float64).ravel().tolist()
    ]


def thinned(axis: npt.NDArray[np.float64], *curves: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Axis and curves with at most `POINTS` points; of neighbours, the one that is highest anywhere stays."""
    step = -(-len(axis) // POINTS)
    if step == 1:
        return [axis, *curves]
    whole_blocks = len(axis) // step * step
    shaped = [curve[:whole_blocks].reshape(-1, step) for curve in curves]
    together = np.max([np.nan_to_num(np.abs(each), nan=-1.0) for each in shaped], axis=0)
    chosen = np.arange(0, whole_blocks, step) + together.argmax(1)
    return [axis[chosen], *(curve[chosen] for curve in curves)]


def structure(molecule: Molecule) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """Symbols and positions of a molecule for the viewer, its flattest side in front, and the rotation."""
    centred = molecule.positions - molecule.positions.mean(0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a rotation: no mirror image is shown
    shown = {"symbols": list(molecule.symbols), "positions": np.round(centred @ axes.T, 4).tolist()}
    return shown, axes.T


def moves(displacements: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]) -> list[list[float]]:
    """Displacements [N, 3] of a vibration for the viewer, turned like the structure; the largest is 1."""
    turned = displacements @ rotation
    return np.round(turned / np.linalg.norm(turned, axis=1).max(), 3).tolist()


def message(text: str, *, error: bool = False, items: Sequence[str] = ()) -> Markup:
    """A sentence, and a list, in the place where the page tells what happened."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    role = "alert" if error else "status"
    kind = "told wrong" if error else "told"
    listing = f"<ul>{lines}</ul>" if lines else ""
    return whole(f'<div class="{kind}" role="{role}"><p>{escape(text)}</p>{listing}</div>')


def choices(rows: list[tuple[str, Markup]], label: str, selected: str | None) -> Markup:
    """A list of buttons, each with its choice and content."""
    items = [
        element(
            "li",
            element(
                "button",
                content,
                type="button",
                data_choice=choice,
                aria_pressed=str(choice == selected).lower(),
            ),
        )
        for choice, content in rows
    ]
    return element("ul", items, class_="choices", aria_label=label)


def card(smiles: str | None, title: str, line: str, name: str) -> Markup:
    """Content of a choice: a molecule's drawing, a title and a line; `name` is the drawing's own."""
    from molspectra.reporting.drawing import draw  # now, as the page is there sooner without it

    text = element("strong", title), element("span", line, class_="soft")
    return markup([element("span", draw(smiles, "", name) or "", class_="picture"), element("span", *text)])
