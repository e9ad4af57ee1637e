"""The figure of an evaluation: what `molspectra evaluate` prints as tables, one picture for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from molspectra.errors import NotFoundError
from molspectra.evaluation.finetuned import errors_of, in_brackets, read_predictions
from molspectra.evaluation.representation import GALLERIES, METHODS
from molspectra.evaluation.subject import result_file
from molspectra.printable import printable
from molspectra.reporting import figures
from molspectra.reporting.collect import representation_of
from molspectra.reporting.wording import number
from molspectra.spectra.style import COLOURS, INK, MANY_MARKERS, Part, figure_of

PANELS = 12
"""Targets whose predictions are drawn one by one; the figure names the number of the others."""

Series = Mapping[str, Sequence[float | None]]
"""Values of several series, one for each row of a picture; None where there is none."""

_CLASSES = {"auroc": "AUROC", "auprc": "AUPRC"}


def evaluation_figure(
    result: Mapping[str, Any],
    out: str | Path,
    part: str = "test",
    floors: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> Figure:
    """Draw what `evaluate` has found of a run.

    Args:
        result: what it returned.
        out: directory with its files.
        part: of the split.
        floors: what `assess_floors` returned.

    Raises:
        NotFoundError: there is nothing to draw.
        FormatError: the file of predictions is missing or damaged.
    """
    return _joined(_of_run(result, result_file(out, part, "predictions", ".csv"), floors or {}))


def representation_figure(out: str | Path) -> Figure:
    """Draw the tests of a model's embeddings, which `assess_representation` has written into a directory.

    Raises:
        NotFoundError: there is nothing to draw.
    """
    tests = representation_of(Path(out), None)
    parts = []
    if tests.probes:
        parts.append(figures.probes(tests))
    if tests.galleries:
        parts.append(figures.recall_by_size(tests, GALLERIES, METHODS))
    if tests.alignment:
        parts.append(figures.alignment(tests))
    return _joined(parts)


def _joined(parts: Iterator[Part] | Sequence[Part]) -> Figure:
    drawn = list(parts)
    if not drawn:
        raise NotFoundError("this evaluation has nothing that could be drawn; leave out --plot")
    return figure_of(*drawn)


def _of_run(
    result: Mapping[str, Any], predictions: Path, floors: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[Part]:
    """Yield the pictures of a result, in the order of the tables."""
    if "target" in result:
        yield from _properties(result, predictions, floors)
    if "losses" in result:
        names = [name for name in result["losses"] if result["no_skill"].get(name)]
        shares = [_ratio(result["losses"][name], result["no_skill"][name]) for name in names]
        if names:
            label = "loss; 1 is that of a model without skill"
            yield _dots(names, {"model": shares}, label, reference=1.0)
    for key, title in (("retrieval", METHODS["embedding"]), ("predicted_retrieval", METHODS["prediction"])):
        if key in result:
            yield _recalls(result[key]["subsets"], title)
    if "disturbances" in result:
        rows = result["disturbances"]["table"]
        names = [f"{row['disturbance']} {row['strength']}".strip() for row in rows]
        methods = ("model", "prepared", "similarity")
        series = {method: [row[method]["recall"]["1"] for row in rows] for method in methods}
        yield _dots(names, series, "recall@1")


def _properties(
    result: Mapping[str, Any], predictions: Path, floors: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> Iterator[Part]:
    """Yield predicted against computed values, errors beside a constant, classes, and coverage."""
    every = errors_of(result)
    places = {name: place for place, name in enumerate(result.get("targets", [result["target"]]))}
    numbers = {name: one for name, one in every.items() if "mae" in one}
    panels = [name for name in numbers if name in places]
    if panels:
        yield _parities({name: numbers[name] for name in panels[:PANELS]}, places, predictions, len(panels))
    series = {"model": [_ratio(one["mae"], one["median_predictor_mae"]) for one in numbers.values()]} | {
        floor: [
            _ratio(found[name]["mae"], one["median_predictor_mae"]) if name in found else None
            for name, one in numbers.items()
        ]
        for floor, found in floors.items()
    }
    if any(share is not None for share in series["model"]):
        yield _dots(list(numbers), series, "mean absolute error; 1 is that of a constant", reference=1.0)
    classes = {name: one for name, one in every.items() if "auroc" in one}
    if classes:
        series = {label: [one[key] for one in classes.values()] for key, label in _CLASSES.items()}
        series["AUPRC by base rate"] = [(one["constant"] or {}).get("auprc") for one in classes.values()]
        for floor, found in floors.items():
            series[f"AUROC of {floor}"] = [found.get(name, {}).get("auroc") for name in classes]
        yield _dots(list(classes), series, "AUROC (0.5 by chance) and AUPRC; 1 is perfect")
    covered = {name: one["uncertainty"]["coverage"] for name, one in every.items() if "uncertainty" in one}
    if covered:
        yield _coverage(covered)


def _ratio(value: float | None, constant: float | None) -> float | None:
    return value / constant if value is not None and constant else None


def _parities(
    targets: Mapping[str, Mapping[str, Any]], places: Mapping[str, int], path: Path, count: int
) -> Part:
    """Draw predicted against computed values, a panel for each target."""
    columns = min(len(targets), 3)
    lines = math.ceil(len(targets) / columns)

    def draw(drawn: FigureBase) -> None:
        for index, (name, one) in enumerate(targets.items()):
            axes = drawn.add_subplot(lines, columns, index + 1)
            computed, predicted = read_predictions(path, places[name])
            figures.parity_panel(axes, [("", computed, predicted)], COLOURS["stage2"])
            axes.set_title(f"{printable(name)}: MAE {number(one['mae'])} {printable(one['unit'])}".rstrip())
            axes.set_xlabel(f"computed{in_brackets(printable(one['unit']))}")
            if index % columns == 0:
                axes.set_ylabel(f"predicted{in_brackets(printable(one['unit']))}")
        if count > len(targets):
            drawn.suptitle(f"the first {len(targets)} of {count} targets", x=0.99, ha="right", fontsize=9)

    return Part(3.5 * columns + 0.3, 3.6 * lines, draw)


def _dots(
    names: Sequence[str],
    series: Series,
    label: str,
    *,
    reference: float | None = None,
) -> Part:
    """Draw values from zero on, a row for each name and a marker for each series."""

    def draw(drawn: FigureBase) -> None:
        axes, largest = drawn.add_subplot(), 1.0
        for index, (title, values) in enumerate(series.items()):
            shown = [math.nan if value is None else value for value in values]
            largest = max([largest, *(value for value in values if value is not None)])
            marker = MANY_MARKERS[index % len(MANY_MARKERS)]
            colour, inside = f"C{index}", "none" if index else "C0"
            rows = range(len(names))
            axes.plot(shown, rows, marker, color=colour, markerfacecolor=inside, label=title)
        if reference is not None:
            axes.axvline(reference, color=INK, linestyle="--", linewidth=1.0)
        axes.set_yticks(range(len(names)), [printable(name) for name in names])
        axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=label)
        axes.set_xlim(left=0.0, right=1.05 * largest)
        if len(series) > 1:
            drawn.legend(loc="outside upper right", ncols=3)

    return Part(7.2, 0.3 * len(names) + 1.4, draw)


def _recalls(subsets: Mapping[str, Mapping[str, Any]], method: str) -> Part:
    """Draw recall@k by the spectra searched with, among all molecules and among isomers; dashed: chance."""
    panels = {"all molecules": subsets} | {
        "isomers only": {name: one["isomers"] for name, one in subsets.items() if one.get("isomers")}
    }
    panels = {title: found for title, found in panels.items() if found}

    def draw(drawn: FigureBase) -> None:
        for column, (title, found) in enumerate(panels.items()):
            axes = drawn.add_subplot(1, len(panels), column + 1)
            _recall_panel(axes, found, list(subsets))
            axes.set_title(f"{title}, {method}")
            if column == 0:
                axes.set_ylabel("recall@k")
            if column == 0:
                handles, names = axes.get_legend_handles_labels()
                drawn.legend(handles, names, loc="outside upper center", ncols=4)

    return Part(5.1 * len(panels), 4.2, draw)


def _recall_panel(axes: Axes, found: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> None:
    at: list[str] = []
    for name, one in found.items():
        at, index = list(one["recall"]), order.index(name)
        marker = MANY_MARKERS[index % len(MANY_MARKERS)]
        values = list(one["recall"].values())
        axes.plot(range(len(at)), values, color=f"C{index}", marker=marker, markersize=5, label=name)
    chance = list(list(found.values())[-1]["chance_recall"].values())  # of all spectra together
    axes.plot(range(len(at)), chance, color=INK, linestyle="--", linewidth=1.2, label="random order")
    axes.set_xticks(range(len(at)), at)
    axes.set(ylim=(0, 1.03), xlabel="k")


def _coverage(covered: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Part:
    """Draw observed against stated coverage of the intervals of an ensemble."""

    def draw(drawn: FigureBase) -> None:
        axes = drawn.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, alpha=0.6)
        for index, (name, levels) in enumerate(covered.items()):
            marker = MANY_MARKERS[index % len(MANY_MARKERS)]
            observed = [found["observed"] for found in levels.values()]
            stated = [float(level) for level in levels]
            axes.plot(stated, observed, color=f"C{index}", marker=marker, label=printable(name))
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        axes.set(xlabel="stated coverage", ylabel="observed coverage")
        drawn.legend(loc="outside right upper")

    return Part(5.6, 4.2, draw)
