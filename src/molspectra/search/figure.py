"""The figure of answers: measured spectrum above, that of the candidate mirrored below, and their bands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from molspectra.data.output import free_path
from molspectra.errors import ValueRangeError
from molspectra.printable import printable
from molspectra.reporting import canvas
from molspectra.search.bands import Band
from molspectra.search.explain import Explanation
from molspectra.spectra.modality import Modality, modality
from molspectra.spectra.style import COLOURS, INK, new_figure, styled

SUFFIXES = canvas.FIGURES
"""Files that a figure can be written to."""

MOST = 25
"""Panels of one figure; pictures of more are too high to be written."""

SYMBOLS = {"matched": "●", "missing": "▽", "extra": "□"}
"""The marks of the figure in texts."""

_MARKS: dict[str, dict[str, Any]] = {  # told apart by shape, filling and place, and by any colour vision
    "matched": {"marker": "o", "markersize": 4, "color": INK},
    "missing": {"marker": "v", "markersize": 6.5, "color": "#d55e00", "markerfacecolor": "none"},
    "extra": {"marker": "s", "markersize": 5.5, "color": "#a0408a", "markerfacecolor": "none"},
}
_NAMES = {
    "matched": "matched",
    "missing": "missing: not measured",
    "extra": "extra: not the candidate's",
}
_WIDTH, _PLOT_WIDTH = 9.6, 8.3  # inches, of the figure and at least of its axes
_HALF = 1.35  # inches, height of a spectrum
_LABELS = 9  # of bands, on each side
_WEAKEST = 0.04  # height of a band with a label
_THIN = 6  # points of the axis for one of an area, which keeps files small
_FONT = 8.5  # points, of labels
_LETTER = 0.52 * _FONT / 72  # inches, mean width
_LONGEST = 26  # letters of a motion
_STRIP = (-1.13, -1.04)  # height of the strip of weights, below the candidate


def write_figure(path: Path | str, explanations: Sequence[Explanation], *, overwrite: bool = False) -> Path:
    """Write the figure as PNG, SVG or PDF, by the suffix; the file appears complete or not at all.

    Raises:
        InputError: another suffix, the file exists or cannot be written, or too many answers.
    """
    free_path(path, SUFFIXES, overwrite=overwrite)
    return canvas.write_figure(path, figure(explanations), overwrite=overwrite)


def figure(explanations: Sequence[Explanation], *, titles: bool = True) -> Figure:
    """Draw one panel for each explained answer; without any, a line that says so.

    Args:
        explanations: the answers.
        titles: whether the panels tell rank, name, formula and score.

    Raises:
        ValueRangeError: more than `MOST`.
    """
    if len(explanations) > MOST:
        raise ValueRangeError(f"a figure shows at most {MOST} explained answers, not {len(explanations)}")
    if not explanations:
        with styled():
            drawn = new_figure(_WIDTH, 1.0)
            drawn.text(0.5, 0.5, "No molecule of the library passes the filters.", ha="center", va="center")
        return drawn
    chosen = [_labelled(each) for each in explanations]
    heights = [2.3 * _HALF + sum(map(_room, sides)) for sides in chosen]
    with styled():
        drawn = new_figure(_WIDTH, sum(heights) + (0.85 if titles else 0.6) * len(heights) + 0.35)
        grid = drawn.add_gridspec(len(heights), 1, height_ratios=heights)
        for row, (each, sides) in enumerate(zip(explanations, chosen, strict=True)):
            axes = drawn.add_subplot(grid[row])
            _panel(axes, each, *sides)
            if titles:
                axes.set_title(title(each))
        marks = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        drawn.legend(marks.values(), marks.keys(), loc="outside upper center", ncols=4, columnspacing=1.4)
    return drawn


def title(each: Explanation) -> str:
    """Rank, name, formula, score and factor of an answer in one line."""
    name = each.name or each.smiles or ""
    parts = [name if len(name) <= 40 else f"{name[:39]}…", each.formula, f"score {each.score:.3f}"]
    if each.scale != 1:
        parts.append(f"axis times {each.scale:g}")
    return printable(" ".join(f"{each.rank}. {', '.join(part for part in parts if part)}".split()))


def position(value: float | None, kind: Modality) -> str:
    """The position of a band as text, without its unit; a dash for none."""
    return "–" if value is None else f"{value:.{2 if kind.unit == 'eV' else 0}f}"


def height(band: Band) -> float:
    """Height of a band in the spectrum where it is higher."""
    return max(band.measured_height or 0.0, band.computed_height or 0.0)


def weight(value: float | None) -> str:
    """The weight or lead of a band as text, with its sign; a dash for none."""
    return "–" if value is None else f"{round(value, 3) or 0.0:+.3f}".replace("-", "−")


def spread(places: npt.ArrayLike, gap: float, low: float, high: float) -> npt.NDArray[np.float64]:
    """Places [n] of labels in ascending order, at least `gap` apart and as near to `places` as can be.

    The sum of squared moves is least: an isotonic regression of the places less the gaps before them.
    """
    steps: npt.NDArray[np.float64] = gap * np.arange(np.size(places), dtype=np.float64)
    if not steps.size:
        return steps
    moved: npt.NDArray[np.float64] = isotonic_regression(np.asarray(places, np.float64) - steps).x
    moved = np.clip(moved, low, max(low, high - steps[-1]))
    return moved + steps


def _labelled(each: Explanation) -> tuple[list[tuple[float, float, str]], list[tuple[float, float, str]]]:
    """Place, height and label of the strongest bands above and below zero."""
    kind = modality(each.modality)
    strong = sorted((band for band in each.bands if height(band) >= _WEAKEST), key=height, reverse=True)
    above: list[tuple[float, float, str, str]] = []
    below: list[tuple[float, float, str, str]] = []
    for band in strong:
        motion = re.sub(r"\s*\d+\s*%$", "", re.split("[,;]", printable(band.motion))[0].strip())
        motion = motion if len(motion) <= _LONGEST else f"{motion[: _LONGEST - 1]}…"
        side, place, top = below, band.computed, band.computed_height
        if band.measured is not None:
            side, place, top = above, band.measured, band.measured_height
        told = "" if band.weight is None else f" ({weight(band.weight)})"
        side.append((place or 0.0, top or 0.0, f"{position(place, kind)}{told}", motion))
    sides = [sorted(side[:_LABELS]) for side in (above, below)]
    first, second = ([(x, top, f"{at}  {motion}".rstrip()) for x, top, at, motion in side] for side in sides)
    return first, second


def _room(labels: Sequence[tuple[float, float, str]]) -> float:
    """Inches that the labels of one side need."""
    return 0.28 + _LETTER * max(len(text) for _, _, text in labels) if labels else 0.0


def _panel(
    axes: Axes,
    each: Explanation,
    above: Sequence[tuple[float, float, str]],
    below: Sequence[tuple[float, float, str]],
) -> None:
    kind, known = modality(each.modality), np.asarray(each.known, bool)
    inside = each.axis[known] if known.any() else each.axis
    low, high = float(inside.min()), float(inside.max())
    measured = np.where(known, each.query, np.nan)
    candidate = np.where(known, -np.asarray(each.candidate), np.nan)
    thin = slice(None, None, _THIN)
    for values, colour in ((measured, INK), (candidate, COLOURS["stage2"])):
        axes.fill_between(each.axis[thin], values[thin], 0, color=colour, alpha=0.12, linewidth=0)
    axes.plot(each.axis, measured, color=INK, linewidth=1.1, label="measured")
    axes.plot(each.axis, candidate, color=COLOURS["stage2"], linewidth=1.1, label="candidate, below zero")
    if each.attention is not None:
        seen = np.where(known, each.attention, np.nan)
        seen = seen / max(float(np.nanmax(seen, initial=0.0)), 1e-300)
        axes.plot(each.axis, seen, "--", color=COLOURS["stage1"], linewidth=0.9, label="attention, largest 1")
    axes.axhline(0, color=INK, linewidth=0.7)
    for status, style in _MARKS.items():
        is_joined = status == "matched"
        label = _NAMES[status]
        axes.plot([], [], linestyle=":" if is_joined else "none", linewidth=1.0, label=label, **style)
        for band in each.bands:
            if band.status != status:
                continue
            ends = [
                (place, side * ((top or 0.0) + (0.0 if is_joined else 0.06)))
                for place, top, side in (
                    (band.measured, band.measured_height, 1),
                    (band.computed, band.computed_height, -1),
                )
                if place is not None
            ]
            xs, ys = zip(*ends, strict=True)
            axes.plot(xs, ys, linestyle=":" if is_joined else "none", linewidth=1.0, **style)
    _strip(axes, each.bands)
    gap = 1.3 * _FONT / 72 / _PLOT_WIDTH * (high - low)
    for labels, side in ((above, 1), (below, -1)):
        moved = spread([place for place, _, _ in labels], gap, low + gap / 2, high - gap / 2)
        for (place, top, text), at in zip(labels, moved, strict=True):
            path = [side * y for y in (min(top + 0.12, 1.1), 1.12, 1.26)]
            axes.plot([place, place, at], path, color=INK, linewidth=0.5, alpha=0.6)
            valign = "bottom" if side > 0 else "top"
            axes.text(at, side * 1.28, text, fontsize=_FONT, rotation=90, ha="center", va=valign)
    ends_x = (high, low) if kind.name == "ir" else (low, high)
    axes.set(xlim=ends_x, ylim=(-1.15 - _room(below) / _HALF, 1.15 + _room(above) / _HALF))
    axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["1", "0.5", "0", "0.5", "1"])
    axes.set_xlabel(f"{kind.quantity} / {kind.unit}")
    axes.set_ylabel("relative intensity")
    axes.yaxis.set_label_coords(-0.05, 0.0, axes.get_yaxis_transform())
    axes.spines.left.set_bounds(-1, 1)
    axes.grid(False)


def _strip(axes: Axes, bands: Sequence[Band]) -> None:
    """A strip below the candidate: the parts that carry the answer, darker the more, and those against it."""
    known = [(band.window, band.weight) for band in bands if band.window and band.weight]
    if not known:
        return
    largest = max(abs(value) for _, value in known)
    low, high = _STRIP
    for window, value in sorted(known, key=lambda pair: pair[1]):
        style: dict[str, Any] = {"color": INK, "alpha": abs(value) / largest, "linewidth": 0}
        if value < 0:
            style = {"facecolor": "none", "edgecolor": INK, "hatch": "//////", "linewidth": 0.4}
            style["alpha"] = max(abs(value) / largest, 0.15)
        axes.fill_between(window, low, high, **style)
    axes.fill_between([], [], color=INK, linewidth=0, label="carries the answer")
    axes.fill_between(
        [], [], facecolor="none", edgecolor=INK, hatch="//////", linewidth=0.4, label="speaks against it"
    )
