"""How the cost of a step grows: with the batch, with the size of the molecules, with the tokens of spectra.

    python -m benchmarks.scaling --out runs/bench            # scaling.json, scaling-*.svg
    python -m benchmarks.scaling --quick

Every point is the median of a few training steps with the paper's widths and fewer layers of the encoder
(`LAYERS`), so that the largest batch fits into memory; how a cost grows does not depend on their number. The
points of a curve are taken by turns, so that other work on the machine touches all of them alike.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.cases import Options, Workload
from benchmarks.machine import facts, seconds
from benchmarks.molecules import chains
from molspectra.reporting.canvas import write_figure
from molspectra.spectra.style import new_figure, styled

LAYERS = 2
"""Layers of the encoder."""

BATCHES, QUICK_BATCHES = (32, 64, 128, 256, 512), (16, 32, 64)
ATOMS, QUICK_ATOMS = (10, 20, 50, 100, 200), (10, 50, 200)
TOTAL_ATOMS = 1280
"""Atoms of a batch of chains, whatever the length of the chains."""

STRIDES, QUICK_STRIDES = ((5, 12, 12), (7, 17, 17), (10, 25, 25), (20, 50, 50)), ((10, 25, 25), (20, 50, 50))
"""Points between patches of the three modalities; (10, 25, 25) are the paper's."""

SPECTRA_BATCH = 16


@dataclass
class Point:
    """A point of a curve."""

    x: float
    """What is varied."""
    molecules: int
    """Of a batch."""
    workload: Workload
    """The steps."""
    times: list[float]
    """Seconds of every step."""


def _point(x: float, name: str, batch: int, folder: Path, changes: Any, molecules: Any = None) -> Point:
    place = folder / f"{name}-{x:g}"
    place.mkdir()
    return Point(x, batch, Workload(name, Options(batch=batch), place, changes, molecules), [])


def curves(folder: Path, quick: bool) -> dict[str, list[Point]]:
    """The points of every curve, not yet measured."""
    encoder = {"model": {"encoder": {"layers": LAYERS}}}
    found = {
        "batch": [
            _point(batch, "qm9-stage1", batch, folder, encoder)
            for batch in (QUICK_BATCHES if quick else BATCHES)
        ]
    }
    found["atoms"] = []
    for atoms in QUICK_ATOMS if quick else ATOMS:
        count = round(TOTAL_ATOMS / atoms)
        made = chains(atoms, 2 * count)
        found["atoms"].append(_point(len(made[0]), "qm9-finetune", count, folder, encoder, made))
    found["tokens"] = []
    for stride in QUICK_STRIDES if quick else STRIDES:
        changes = {"model": {"encoder": {"layers": 1}, "spectrum_encoder": {"stride": list(stride)}}}
        point = _point(sum(stride), "qm9-stage2", SPECTRA_BATCH, folder, changes)
        point.x = sum(kind.patches for kind in point.workload.config.model.spectrum_encoder.kinds().values())
        found["tokens"].append(point)
    return found


def measure(quick: bool = False, repeats: int = 3) -> dict[str, list[dict[str, float]]]:
    """Seconds per molecule and atoms per molecule at every point of every curve."""
    result = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, points in curves(Path(scratch), quick).items():
            for turn in range(repeats + 1):
                for point in points:
                    micros = point.workload.prepare(turn)
                    point.times.append(seconds(lambda p=point, m=micros: p.workload.run(m)))
            result[name] = [
                {"x": point.x, "molecules": point.molecules, "seconds": statistics.median(point.times[1:])}
                for point in points
            ]
    return result


LABELS = {
    "batch": "molecules in a batch",
    "atoms": "atoms of a molecule (alkane chains)",
    "tokens": "tokens of the spectra of a molecule",
}


def figure(name: str, points: Sequence[dict[str, float]]) -> Figure:
    """Milliseconds per molecule against what is varied; the grey line is a cost in proportion to it."""
    xs = [point["x"] for point in points]
    ys = [1e3 * point["seconds"] / point["molecules"] for point in points]
    with styled():
        drawn = new_figure(6.0, 3.4)
        axes = drawn.add_subplot()
        axes.plot(xs, ys, marker="o", label="measured")
        if name != "batch":
            axes.plot(
                xs, [ys[0] * x / xs[0] for x in xs], color="#8c8c8c", linestyle="--", label="in proportion"
            )
            axes.legend()
        else:
            axes.set_xscale("log", base=2)
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(LABELS[name])
        axes.set_ylabel("ms per molecule")
    return drawn


def write(out: Path, quick: bool) -> dict[str, Any]:
    """Measure, and leave data and plots in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    result = {"curves": measure(quick), "layers": LAYERS, **facts()}
    for name, points in result["curves"].items():
        write_figure(out / f"scaling-{name}.svg", figure(name, points), overwrite=True)
    (out / "scaling.json").write_text(
        json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return result


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for data and plots")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points")
    options = parser.parse_args()
    from molspectra.apps.process import keep_freed_memory

    keep_freed_memory()
    import torch

    torch.set_num_threads(options.threads)
    result = write(options.out, options.quick)
    for name, points in result["curves"].items():
        for point in points:
            cost = 1e3 * point["seconds"] / point["molecules"]
            print(f"{point['x']:6g} {LABELS[name]}: {cost:.2f} ms per molecule")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
