"""The figures of a report, each a matplotlib figure, to be rendered by `canvas.svg` or `style.png`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator, NullFormatter

from molspectra.evaluation.metrics import mean_and_sd
from molspectra.evaluation.reconstruct import ReconstructedSpectrum
from molspectra.reporting.content import (
    Curve,
    ReconstructedMolecule,
    Representation,
    ResultTable,
    RetrievalResult,
)
from molspectra.reporting.wording import number
from molspectra.spectra.style import (
    COLOURS,
    INK,
    MANY_MARKERS,
    MARKERS,
    OTHER_MARKER,
    Part,
    colour_of,
    new_figure,
    styled,
)

Errors = tuple[str, str, Mapping[int, float]]
"""Key and label of a start, and the mean absolute errors of its runs by seed."""

RECALL_UP_TO = 50

MANY_POINTS = 5_000
"""A scatter plot of more points is drawn as pixels, which keeps the page small."""


def learning_curves(curves: Sequence[Curve]) -> Figure:
    """Draw one panel per loss; faint lines are training batches, strong ones validation, one per seed."""
    panels = list(dict.fromkeys(curve.panel for curve in curves))
    keys = list(dict.fromkeys(curve.key for curve in curves))
    columns = min(len(panels), 3)
    lines = math.ceil(len(panels) / columns)
    with styled():
        drawn = new_figure(3.6 * columns if columns > 1 else 6.6, 2.7 * lines + 0.4)
        for index, panel in enumerate(panels):
            axes = drawn.add_subplot(lines, columns, index + 1)
            _curves_panel(axes, [curve for curve in curves if curve.panel == panel], keys)
            axes.set_title(panel)
            if index + columns >= len(panels):
                axes.set_xlabel("optimizer step")
            if index == 0:
                axes.legend(loc="upper right")
    return drawn


def _curves_panel(axes: Axes, curves: Sequence[Curve], keys: list[str]) -> None:
    named: set[str] = set()
    for curve in sorted(curves, key=lambda curve: curve.part):  # training below validation
        colour = colour_of(curve.key, keys)
        if curve.part == "train":
            axes.plot(curve.steps, curve.values, color=colour, linewidth=1.0, alpha=0.45)
            continue
        label = None if curve.key in named else curve.label
        named.add(curve.key)
        marker = MARKERS.get(curve.key, OTHER_MARKER)
        axes.plot(curve.steps, curve.values, color=colour, label=label, marker=marker, markersize=3.5)
    values = [value for curve in curves for value in curve.values if math.isfinite(value)]
    few = bool(values) and max(values) < 200 * min(values)  # else labels would crowd
    if values and min(values) > 0 and max(values) > 8 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def parity(table: ResultTable) -> Figure | None:
    """Draw predicted against computed values, one panel per start, all seeds; None without predictions."""
    arms = [arm for arm in table.arms if any(score.target for score in arm.scores)]
    if not arms:
        return None
    keys = [arm.key for arm in table.arms]
    scores = [score for arm in arms for score in arm.scores]
    points = sum(len(score.target) for score in scores)
    ends = _ends([value for score in scores for value in (*score.target, *score.prediction)])
    columns = min(len(arms), 3)
    with styled():
        drawn = new_figure(3.5 * columns + 0.3, 3.6 * math.ceil(len(arms) / columns))
        for index, arm in enumerate(arms):
            axes = drawn.add_subplot(math.ceil(len(arms) / columns), columns, index + 1)
            series = [
                (f"seed {score.seed}: MAE {number(score.mae)}", score.target, score.prediction)
                for score in arm.scores
            ]
            parity_panel(axes, series, colour_of(arm.key, keys), ends=ends, pixels=points > MANY_POINTS)
            axes.set_title(arm.label)
            axes.set_xlabel(f"computed {table.target} ({table.unit})")
            if index % columns == 0:
                axes.set_ylabel(f"predicted {table.target} ({table.unit})")
            axes.legend(loc="upper left", handletextpad=0.2, borderaxespad=0.1)
    return drawn


def parity_panel(
    axes: Axes,
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    colour: str,
    *,
    ends: tuple[float, float] | None = None,
    pixels: bool | None = None,
) -> None:
    """Draw predicted against computed values, and the line where they are equal.

    Args:
        axes: to draw in.
        series: label, computed and predicted values; markers tell them apart.
        colour: of all of them.
        ends: of both axes; None takes those of the values.
        pixels: whether points are drawn as pixels; None where they are more than `MANY_POINTS`.
    """
    if ends is None:
        ends = _ends([value for _, *both in series for values in both for value in values])
    if pixels is None:
        pixels = sum(len(computed) for _, computed, _ in series) > MANY_POINTS
    axes.plot(ends, ends, color=INK, linewidth=1.0, alpha=0.6)
    for marker, (label, computed, predicted) in zip(cycle("o^sDv"), series, strict=False):
        axes.scatter(
            computed,
            predicted,
            s=14,
            color=colour,
            marker=marker,
            alpha=0.55,
            linewidths=0,
            rasterized=pixels,
            label=label,
        )
    axes.set(xlim=ends, ylim=ends, aspect="equal")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with some room around the values."""
    low, high = min(values), max(values)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def errors_by_start(arms: Sequence[Errors], quantity: str, unit: str) -> Figure:
    """Draw the mean absolute errors by initialisation: a point per run, lines join seeds, bars are means."""
    keys = [key for key, _, _ in arms]
    with styled():
        drawn = new_figure(6.6, 0.62 * len(keys) + 1.3)
        axes = drawn.add_subplot()
        for seed in sorted({seed for _, _, maes in arms for seed in maes}):
            pairs = [(maes[seed], y) for y, (_, _, maes) in enumerate(arms) if seed in maes]
            axes.plot(*zip(*pairs, strict=True), color=INK, alpha=0.28, linewidth=1.0, zorder=1)
        for y, (key, _, maes) in enumerate(arms):
            colour = colour_of(key, keys)
            mean, _ = mean_and_sd(list(maes.values()))
            axes.plot([mean, mean], [y - 0.28, y + 0.28], color=colour, linewidth=4, solid_capstyle="butt")
            axes.scatter(
                list(maes.values()),
                [y] * len(maes),
                s=46,
                color=colour,
                marker=MARKERS.get(key, OTHER_MARKER),
                edgecolors=INK,
                linewidths=0.7,
                zorder=3,
            )
        axes.set_yticks(range(len(arms)), [label for _, label, _ in arms])
        axes.set(ylim=(len(keys) - 0.5, -0.5))
        axes.grid(False, axis="y")
        axes.set_xlabel(f"mean absolute error of the {quantity} ({unit}); lower is better")
    return drawn


def errors_by_size(
    arms: Mapping[tuple[str, str], Mapping[int, Sequence[float]]],
    quantity: str,
    unit: str,
    counted: str = "labels",
) -> Figure:
    """Draw the errors of every run against the number of labels, both logarithmic; lines join the means.

    Args:
        arms: errors of the runs by number of labels, by key and label of the start.
        quantity: what was learnt.
        unit: of the errors.
        counted: what there is a number of.
    """
    keys = [key for key, _ in arms]
    with styled():
        drawn = new_figure(6.6, 4.0)
        axes = drawn.add_subplot()
        for (key, label), by_size in arms.items():
            colour, sizes = colour_of(key, keys), sorted(by_size)
            means = [float(np.mean(by_size[size])) for size in sizes]
            axes.plot(sizes, means, color=colour, label=label)
            marker = MARKERS.get(key, OTHER_MARKER)
            for size in sizes:
                points = by_size[size]
                axes.plot([size] * len(points), points, marker, color=colour, markersize=4)
        axes.set(xscale="log", yscale="log", xlabel=counted, ylabel=f"error of the {quantity} ({unit})")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend()
    return drawn


def reconstruction(molecule: ReconstructedMolecule) -> Figure:
    """Draw spectra with masked patches: masked windows grey, the model's values there coloured."""
    spectra = list(molecule.spectra.values())
    with styled():
        drawn = new_figure(9.6, 2.4 * len(spectra) + 0.4)
        for index, spectrum in enumerate(spectra):
            axes = drawn.add_subplot(len(spectra), 1, index + 1)
            _reconstruction_panel(axes, spectrum)
            if index == 0:
                handles, names = axes.get_legend_handles_labels()
                drawn.legend(handles, names, loc="outside upper right", ncols=2)
    return drawn


def _reconstruction_panel(axes: Axes, spectrum: ReconstructedSpectrum) -> None:
    kind, axis = spectrum.kind, spectrum.kind.axis()
    for start, stop in _runs(spectrum.masked_points):
        axes.axvspan(axis[start], axis[stop], color=INK, alpha=0.10, linewidth=0)
    for start, stop in _runs(spectrum.hidden_points):
        axes.axvspan(axis[start], axis[stop], color=INK, alpha=0.16, linewidth=0)
    axes.plot(axis, spectrum.values, color=INK, linewidth=1.1, label="computed spectrum")
    label: str | None = "predicted from the other patches"
    for patch, values in zip(np.flatnonzero(spectrum.mask), spectrum.predicted, strict=True):
        window = slice(patch * kind.stride, patch * kind.stride + kind.patch)
        axes.plot(axis[window], values, color="#d55e00", linewidth=1.8, label=label)
        label = None  # named once in the legend
    axes.set(xlim=(axis[0], axis[-1]), xlabel=kind.unit)
    axes.set_ylabel("log$_{10}$(s + 1)", parse_math=True)
    error = number(spectrum.error, 2)
    axes.set_title(f"{kind.title or kind.name}: mean squared error of the masked patches {error}")
    axes.grid(False)


def _runs(points: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last index of every run of True in `points` [points]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], points.astype(np.int8), [0]])))
    return [(int(start), int(stop) - 1) for start, stop in edges.reshape(-1, 2)]


def recall_curve(result: RetrievalResult) -> Figure:
    """Draw recall@k of a stage-2 run, and of a random order."""
    gallery = result.gallery_size
    at = range(1, min(RECALL_UP_TO, gallery) + 1)
    with styled():
        drawn = new_figure(6.6, 3.6)
        axes = drawn.add_subplot()
        share = [float((result.ranks <= k).mean()) for k in at]
        label = "whole spectra to structures"
        axes.plot(at, share, color=COLOURS["stage2"], marker="D", markersize=3, label=label)
        chance = [min(k / gallery, 1.0) for k in at]
        label = f"random order of {gallery}"
        axes.plot(at, chance, color=INK, linestyle="--", linewidth=1.2, label=label)
        axes.set(ylim=(0, 1.02), xlim=(0.5, len(at) + 0.5), xlabel="k", ylabel="recall@k")
        axes.legend(loc="center right")
    return drawn


PROBES = {"linear": "ridge regression", "neighbours": "k nearest neighbours", "constant": "constant"}
"""Probes and what they are called."""


def probes(tests: Representation) -> Part:
    """Draw R² (of classes AUROC) of both probes, by property and features."""
    names = [f"{line.name}, {line.features}" for line in tests.probes]

    def draw(drawn: FigureBase) -> None:
        axes = drawn.add_subplot()
        for which, marker in (("linear", "D"), ("neighbours", "o")):
            scores = [line.figures[which][1] for line in tests.probes]
            values = [math.nan if score is None else score for score in scores]
            colour = colour_of(which, list(PROBES))
            axes.plot(values, range(len(names)), marker, color=colour, label=PROBES[which])
        axes.set_yticks(range(len(names)), names)
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="R² (of classes AUROC); 1 is perfect")
        axes.set_xlim(left=max(axes.get_xlim()[0], -1.0), right=1.02)
        drawn.legend(loc="outside upper right", ncols=2)

    return Part(6.6, 0.3 * len(names) + 1.4, draw)


def recall_by_size(tests: Representation, kinds: Mapping[str, str], methods: Mapping[str, str]) -> Part:
    """Draw recall@1 against the size of the gallery, a row per method and a column per kind of gallery."""
    shown = [method for method in methods if any(line.method == method for line in tests.galleries)]
    spectra = list(dict.fromkeys(line.spectra for line in tests.galleries))

    def draw(drawn: FigureBase) -> None:
        for row, method in enumerate(shown):
            for column, (kind, title) in enumerate(kinds.items()):
                axes = drawn.add_subplot(len(shown), len(kinds), row * len(kinds) + column + 1)
                lines = [each for each in tests.galleries if (each.method, each.kind) == (method, kind)]
                for index, name in enumerate(spectra):
                    # the whole galleries of masses and formulas differ in size and belong to no curve
                    found = [
                        each.found
                        for each in lines
                        if each.spectra == name and (kind == "all" or each.found.size is not None)
                    ]
                    axes.plot(
                        [each.candidates for each in found],
                        [each.recall[1] for each in found],
                        color=f"C{index}",
                        marker=MANY_MARKERS[index % len(MANY_MARKERS)],
                        markersize=4,
                        label=name,
                    )
                largest = max((each.found.candidates for each in lines), default=10.0)
                chance = np.geomspace(2, max(largest, 10.0), 50)
                axes.plot(chance, 1 / chance, color=INK, linestyle="--", linewidth=1.0)
                axes.set(xscale="log", ylim=(0, 1.03), title=f"{methods[method]},\n{title}")
                axes.xaxis.set_major_locator(LogLocator(subs=(1,) if largest > 100 else (1, 3)))
                axes.xaxis.set_major_formatter("{x:g}")
                axes.xaxis.set_minor_formatter(NullFormatter())
                if row == len(shown) - 1:
                    axes.set_xlabel("molecules in the gallery")
                if column == 0:
                    axes.set_ylabel("recall@1")
        handles, names = axes.get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside upper center", ncols=4)

    return Part(10.2, 2.9 * len(shown) + 0.7, draw)


def alignment(tests: Representation) -> Part:
    """Draw alignment against the uniformity of the spectra, a point per subset of spectra."""

    def draw(drawn: FigureBase) -> None:
        axes = drawn.add_subplot()
        for index, line in enumerate(tests.alignment):
            marker = MANY_MARKERS[index % len(MANY_MARKERS)]
            axes.plot(line.of_spectra, line.alignment, marker, color=f"C{index}", label=line.spectra)
        axes.set(xlabel="uniformity of the spectra", ylabel="alignment")
        axes.margins(0.15)
        drawn.legend(loc="outside right upper")

    return Part(6.6, 3.8, draw)
