"""The page of a whole run: tables of goals and figures, plots, and what was measured where.

`python -m benchmarks.report runs/bench` writes it again from the `speed.json` of a run.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import history
from benchmarks.goals import (
    APPROXIMATE,
    CALCULATOR,
    EXACT,
    LOADER,
    LOADER_SHARE,
    MISSED,
    RECALL,
    SIMULATION,
    STARTUP,
    STEPS,
)

PLOTS = {
    "batch": "Cost per molecule against the batch",
    "atoms": "Cost per molecule against its number of atoms",
    "tokens": "Cost per molecule against the tokens of its spectra",
}


def page(results: Mapping[str, Any]) -> str:
    """The page in Markdown; plots are files `scaling-*.svg` beside it.

    Args:
        results: by the names that `benchmarks.__main__` gives them: `about`, `steps` (a list of what
            `benchmarks.steps` prints), `failed` (what did not end well), `regressions`, and as far as they
            ended well `ceilings`, `loader`, `simulation`, `startup`, `calculator`, `search`, `scaling`.
    """
    steps: Sequence[Mapping[str, Any]] = results["steps"]
    parts = ["# Speed", _about(results["about"])]
    parts += [f"**Slower than before**: {each}" for each in results["regressions"]]
    parts += ["## Steps", _STEPS, _steps(steps), _missed(steps)]
    parts += ["## Against plain torch, in the same process", _compared(steps)]
    parts += ["## Allocator and arithmetic", _others(steps)]
    parts += [f"**Failed**: `{each}`" for each in results["failed"]]
    sections = {
        "loader": ("Batches, on one core", lambda loader: _loader(loader, steps)),
        "simulation": ("Simulation, C7H10O2", _simulation),
        "calculator": ("Forces through the calculator", _calculator),
        "search": ("Search", _search),
        "startup": ("Start of the command line", _startup),
        "ceilings": ("What the machine can do", _ceilings),
    }
    for name, (title, text) in sections.items():
        if name in results:  # one that failed is named above
            parts += [f"## {title}", text(results[name])]
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
    said = []
    if about["quick"]:
        said += ["**A quick run**: few steps, small batches; its figures are not to be quoted."]
    if not history.is_idle(about["load"]):
        said += [f"**A busy machine** (load {about['load']}): no later run is compared with this one."]
    return "\n\n".join([*said, table(("", ""), rows)])


_STEPS = (
    "Whole steps at the paper's sizes, float32, allocator as the command line sets it. Mode `reference` has "
    "the published variants, `default` this package's own. *Efficiency* is the time of the plain algorithm's "
    "matrix products over that of the step, and depends little on the machine. *Times faster* is the "
    "efficiency over that of the reference implementation (in brackets), which was measured side by side "
    "with this package on 28 November 2026 and does not run here: a ratio by the machine's own matrix rate, "
    "not of seconds of another day. Spread is the interquartile range over the median."
)


def _plain(steps: Sequence[Mapping[str, Any]], *labels: str) -> list[Mapping[str, Any]]:
    return [step for step in steps if step["label"] in labels]


def _faster(step: Mapping[str, Any]) -> tuple[float, float | None]:
    """How many times faster than the reference a step is, and should be; (0, None) at another batch."""
    goal = STEPS[step["config"]]
    if step["batch"] != goal.batch:
        return 0.0, None
    return step["efficiency"] / goal.reference, goal.times if step[
        "mode"
    ] == "reference" else goal.default_times


def _missed(steps: Sequence[Mapping[str, Any]]) -> str:
    """Why goals are missed and what comes next, a line for each kind of step."""
    missed = {}
    for step in _plain(steps, "steps", "default"):
        goal, (faster, wanted) = STEPS[step["config"]], _faster(step)
        is_late = goal.seconds is not None and step["median_seconds"] > goal.seconds
        if (wanted is not None and faster < wanted) or is_late:
            missed[step["config"]] = goal.missed
    return "\n".join(_why(config, why) for config, why in missed.items())


def _why(figure: str, reason: str) -> str:
    return f"- {figure}, goal missed: {reason}."


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for step in _plain(steps, "steps", "default"):
        goal, (faster, wanted) = STEPS[step["config"]], _faster(step)
        ratio, efficiency = "–", f"{step['efficiency']:.2f}"
        if faster:
            ratio, efficiency = f"{faster:.2f}×", f"{efficiency} ({goal.reference:g})"
        if wanted is not None:
            ratio += f" ({wanted:g}×: {'goal' if faster >= wanted else 'not yet'})"
        seconds = f"{step['median_seconds']:.4g}"
        if goal.seconds is not None:
            seconds += f" ({_below(step['median_seconds'], goal.seconds)})"
        memory = f"{step['peak_memory_gb']:.2f}"
        if goal.memory_gb and step["batch"] == goal.batch:
            memory += f" ({_below(step['peak_memory_gb'], goal.memory_gb)})"
        rows.append(
            (
                step["config"],
                step["mode"],
                str(step["batch"]),
                seconds,
                f"{100 * step['spread']:.0f} %",
                f"{step['molecules_per_second']:.4g}",
                efficiency,
                ratio,
                memory,
                f"{step['matmul_gflops']:.0f}",
            )
        )
    head = (
        "step", "mode", "batch", "seconds", "spread", "molecules/s", "efficiency (reference)",
        "times faster (goal)", "peak memory, GB", "GFLOP/s",
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
    rows = [
        (
            step["config"],
            str(step["batch"]),
            step["precision"],
            step["allocator"],
            f"{step['median_seconds']:.4g}",
            f"{step['efficiency']:.2f}",
            f"{step['peak_memory_gb']:.2f}",
        )
        for step in _plain(steps, "bf16", "allocator")
    ]
    head = ("step", "batch", "precision", "allocator", "seconds", "efficiency", "peak memory, GB")
    return table(head, rows)


def _calculator(calculator: Mapping[str, Any]) -> str:
    rows = [
        (dtype, f"{1e3 * time:.1f}", f"≤ {1e3 * CALCULATOR:g}: {'goal' if time <= CALCULATOR else 'not yet'}")
        for dtype, time in calculator["seconds"].items()
    ]
    is_late = max(calculator["seconds"].values()) > CALCULATOR
    return _with_why(table(("precision", "ms", "asked for"), rows), {"calculator": is_late})


def _with_why(text: str, is_missed: Mapping[str, bool]) -> str:
    """A table, and below it why goals are missed and what comes next."""
    reasons = [_why(figure, MISSED[figure]) for figure, missed in is_missed.items() if missed]
    return "\n\n".join([text, "\n".join(reasons)]) if reasons else text


def _search(search: Mapping[str, Any]) -> str:
    rows = []
    for kind, found in search["found"].items():
        recall = f"{found['recall']:.3f} (≥ {RECALL:g}: {'goal' if found['recall'] >= RECALL else 'not yet'})"
        lists = f"{found['lists']:.0f} of {found['of']:.0f}"
        rows.append((kind, "exact", f"{found['exact']:.1f}", _below(found["exact"], EXACT), "1", "–"))
        times = f"{found['approximate']:.1f}", _below(found["approximate"], APPROXIMATE)
        rows.append((kind, "approximate", *times, recall, lists))
    head = ("vectors", "search", "ms of one core", "asked for", "recall@25", "lists searched")
    said = f"{search['count']:,} vectors of width {search['width']}."
    all_found = search["found"].values()
    is_missed = {
        "exact search": any(each["exact"] > EXACT for each in all_found),
        "approximate search": any(
            each["approximate"] > APPROXIMATE or each["recall"] < RECALL for each in all_found
        ),
    }
    return _with_why(f"{said}\n\n{table(head, rows)}", is_missed)


def _loader(loader: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for kind, parts in loader["stores"].items():
        for part, found in parts.items():
            rate, floor = found["molecules_per_second"], LOADER.get(part)
            wanted = f"≥ {floor:,}: {'goal' if rate >= floor else 'not yet'}" if floor else ""
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
    is_late = max(startup["cpu_seconds"].values()) > STARTUP
    return _with_why(table(("command", "CPU-seconds", "asked for"), rows), {"startup": is_late})


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
