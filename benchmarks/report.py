"""The page of a whole run: tables of floors, goals and figures, plots, and what was measured where.

`python -m benchmarks.report runs/bench` writes it again from the `speed.json` of a run.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import BFLOAT, DEFAULT_ALLOCATOR, LOADER, LOADER_SHARE, SIMULATION, STARTUP, STEPS

PLOTS = {
    "batch": "Cost per molecule against the batch",
    "atoms": "Cost per molecule against its number of atoms",
    "tokens": "Cost per molecule against the tokens of its spectra",
}


def page(results: Mapping[str, Any]) -> str:
    """The page in Markdown; plots are files `scaling-*.svg` beside it.

    Args:
        results: by the names that `benchmarks.__main__` gives them: `about`, `steps` (a list of what
            `benchmarks.steps` prints), `failed` (what did not end well), `ceilings`, `loader`, `simulation`,
            `startup`, `scaling`.
    """
    steps: Sequence[Mapping[str, Any]] = results["steps"]
    parts = ["# Speed", _about(results["about"]), "## Steps", _steps_text(), _steps(steps)]
    parts += ["## Against plain torch, in the same process", _compared(steps)]
    parts += ["## Allocator, arithmetic, sound defaults", _others(steps)]
    parts += [f"**Failed**: `{each}`" for each in results["failed"]]
    parts += ["## Batches, on one core", _loader(results["loader"], steps)]
    parts += ["## Simulation, C7H10O2", _simulation(results["simulation"])]
    if "startup" in results:  # runs from before have none
        parts += ["## Start of the command line", _startup(results["startup"])]
    parts += ["## What the machine can do", _ceilings(results["ceilings"])]
    if "scaling" in results:
        layers = results["scaling"]["layers"]
        said = f"The paper's widths, {layers} layers of the encoder (1 for the tokens)."
        parts += ["## How the cost grows", said]
        parts += [f"![{title}](scaling-{name}.svg)" for name, title in PLOTS.items()]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; "" without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def met(value: float, floor: float, goal: float) -> str:
    """Which a figure has reached of which more is better: "goal", "floor" or "not yet"."""
    return "goal" if value >= goal else "floor" if value >= floor else "not yet"


def _below(value: float, limit: float) -> str:
    """A limit, and whether a figure keeps to it."""
    return f"≤ {limit:g}: {'goal' if value <= limit else 'not yet'}"


def _about(about: Mapping[str, Any]) -> str:
    machine = about["machine"]
    numba = about["numba"]
    rows = [
        ("date, commit", f"{about['date']}, {about['commit']}"),
        ("processor", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"),
        ("system", machine["system"]),
        ("threads", str(about["threads"])),
        ("torch, numba", f"{about['torch']}, {numba}"),
        ("load before the run", about["load"]),
        ("command", f"`{about['command']}`"),
    ]
    said = (
        "**A quick run**: few steps, small batches; its figures are not to be quoted.\n\n"
        if about["quick"]
        else ""
    )
    return said + table(("", ""), rows)


def _steps_text() -> str:
    return (
        "Whole steps at the paper's sizes, mode `reference`, float32, allocator as the command line sets it. "
        "*Reference seconds* are those of the reference implementation, measured elsewhere on the same kind "
        "of machine; the ratio to them is only a guide here. *Efficiency* does not depend on the machine. "
        "Spread is the interquartile range over the median."
    )


def _plain(steps: Sequence[Mapping[str, Any]], label: str) -> list[Mapping[str, Any]]:
    return [step for step in steps if step["label"] == label]


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for step in _plain(steps, "steps"):
        goal = STEPS[step["config"]]
        reference = ratio = "–"
        if step["batch"] == goal.batch:
            faster = goal.reference_seconds / step["median_seconds"]
            reference = f"{goal.reference_seconds:g}"
            ratio = f"{faster:.2f}× ({goal.floor:g}×, {goal.goal:g}×: {met(faster, goal.floor, goal.goal)})"
        efficiency = f"{step['efficiency']:.2f}"
        if goal.efficiency:
            low, high = goal.efficiency
            efficiency += f" ({low:g}, {high:g}: {met(step['efficiency'], low, high)})"
        memory = f"{step['peak_memory_gb']:.2f}"
        if goal.memory_gb and step["batch"] == goal.batch:
            memory += f" ({_below(step['peak_memory_gb'], goal.memory_gb)})"
        rows.append(
            (
                step["config"],
                str(step["batch"]),
                f"{step['median_seconds']:.4g}",
                f"{100 * step['spread']:.0f} %",
                f"{step['molecules_per_second']:.4g}",
                reference,
                ratio,
                efficiency,
                memory,
                f"{step['matmul_gflops']:.0f}",
            )
        )
    head = (
        "step", "batch", "seconds", "spread", "molecules/s", "reference seconds",
        "times faster (floor, goal)", "efficiency (floor, goal)", "peak memory, GB", "GFLOP/s",
    )  # fmt: skip
    return table(head, rows)


def _compared(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            step["config"],
            str(step["batch"]),
            f"{step['plain_median_seconds']:.4g}",
            f"{step['median_seconds']:.4g}",
            f"{step['speedup']:.2f}×",
        )
        for step in _plain(steps, "compare")
    ]
    return table(("step", "batch", "plain torch, s", "kernels, s", "ratio"), rows)


def _others(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for step in [each for each in steps if each["label"] not in ("steps", "compare")]:
        said, goal = "", STEPS[step["config"]]
        if step["batch"] == goal.batch and step["label"] == "bf16":
            faster = goal.reference_seconds / step["median_seconds"]
            floors = f"{BFLOAT[0]:g}×, {BFLOAT[1]:g}×: {met(faster, *BFLOAT)}"
            said = f"{faster:.2f}× the reference in float32 ({floors})"
        if step["batch"] == goal.batch and step["label"] == "allocator":
            seconds, floor = DEFAULT_ALLOCATOR
            faster = seconds / step["median_seconds"]
            said = f"{faster:.2f}× the reference under the same ({floor:g}×: {met(faster, floor, floor)})"
        rows.append(
            (
                step["config"],
                str(step["batch"]),
                step["mode"],
                step["precision"],
                step["allocator"],
                f"{step['median_seconds']:.4g}",
                f"{step['efficiency']:.2f}",
                f"{step['peak_memory_gb']:.2f}",
                said,
            )
        )
    head = ("step", "batch", "mode", "precision", "allocator", "seconds", "efficiency", "peak memory, GB", "")
    return table(head, rows)


def _loader(loader: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for kind, parts in loader["stores"].items():
        for part, found in parts.items():
            rate, floor = found["molecules_per_second"], LOADER.get(part)
            wanted = f"≥ {floor:,}: {met(rate, floor, floor)}" if floor else ""
            rows.append((kind, part, f"{found['milliseconds']:.2f}", f"{rate:,.0f}", wanted))
    share = [
        (
            step["config"],
            f"{1e3 * step['batch_seconds']:.1f}",
            f"{step['batch_seconds'] / step['median_seconds']:.1%}",
        )
        for step in _plain(steps, "steps")
    ]
    first = table(("spectra", f"a batch of {loader['batch']}", "ms", "molecules/s", "asked for"), rows)
    second = table(("step", "its batch, ms", f"share of the step (asked for: < {LOADER_SHARE:.0%})"), share)
    return f"{first}\n\n{second}"


def _simulation(simulation: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{time:.2f}", _below(time, SIMULATION[name]))
        for name, time in simulation["cpu_seconds"].items()
    ]
    return table(("spectra", "CPU-seconds", "asked for"), rows)


def _startup(startup: Mapping[str, Any]) -> str:
    rows = [
        (f"`molspectra {command}`", f"{time:.2f}", _below(time, STARTUP))
        for command, time in startup["cpu_seconds"].items()
    ]
    return table(("command", "CPU-seconds", "asked for"), rows)


def _ceilings(ceilings: Mapping[str, float]) -> str:
    return table(("", "rate"), [(name, f"{rate:.3g}") for name, rate in ceilings.items()])


def write(results: Mapping[str, Any], out: Path) -> Path:
    """Write `speed.md` into a folder."""
    path = out / "speed.md"
    path.write_text(page(results), encoding="utf-8")
    return path


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bench")
    print(write(json.loads((folder / "speed.json").read_text(encoding="utf-8")), folder))
