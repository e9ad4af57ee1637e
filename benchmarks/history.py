"""The figures of earlier runs, and what has become slower.

`history.jsonl` beside a page holds a line of JSON for each run of `python -m benchmarks`: date, commit,
machine, whether it was idle, and every figure by name with its value, unit and, for steps, efficiency. Only
efficiencies are compared: another day gives other seconds.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from molspectra.errors import DamagedError

FILE = "history.jsonl"

LOSS = 0.10
"""Share of an efficiency whose loss is a regression."""

RECENT = 5
"""Comparable runs before, the best of which counts."""

IDLE = 0.5
"""Largest load of the machine before a run with which others are compared."""

KEYS = ("date", "commit", "machine", "is_idle", "is_quick", "figures")

Entry = dict[str, Any]


def entry(results: Mapping[str, Any]) -> Entry:
    """The line of a run.

    Args:
        results: see `benchmarks.report.page`.
    """
    about = results["about"]
    machine = about["machine"]
    figures = {
        name(step): _figure(step["median_seconds"], "s", step["efficiency"])
        for step in results["steps"]
        if step["label"] != "compare"
    }
    if "calculator" in results:
        for dtype, seconds in results["calculator"]["seconds"].items():
            figures[f"calculator {dtype}"] = _figure(seconds, "s")
    if "search" in results:
        units = {"exact": "ms", "approximate": "ms", "recall": ""}
        for kind, found in results["search"]["found"].items():
            label = f"search {results['search']['count']} {kind}"
            figures |= {f"{label} {each}": _figure(found[each], unit) for each, unit in units.items()}
    for part in ("startup", "simulation"):
        for what, seconds in results.get(part, {"cpu_seconds": {}})["cpu_seconds"].items():
            figures[f"{part} {what}"] = _figure(seconds, "CPU-s")
    return {
        "date": about["date"],
        "commit": about["commit"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {about['threads']} threads",
        "is_idle": is_idle(about["load"]),
        "is_quick": about["quick"],
        "figures": figures,
    }


def _figure(value: float, unit: str, efficiency: float | None = None) -> dict[str, Any]:
    found = {"value": float(f"{value:.4g}"), "unit": unit}
    return found if efficiency is None else found | {"efficiency": round(efficiency, 4)}


def name(step: Mapping[str, Any]) -> str:
    """What a step is called in the history."""
    return f"{step['config']} {step['batch']} {step['mode']} {step['precision']} {step['allocator']}"


def is_idle(load: str) -> bool:
    """Whether a machine of this load before a run gives figures with which others are compared."""
    try:
        return float(load) <= IDLE
    except ValueError:  # a system that does not tell
        return False


def read(path: Path) -> list[Entry]:
    """The lines of a history, oldest first; none without the file.

    Raises:
        DamagedError: a line is not one that `append` has written.
    """
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            found = json.loads(line)
            entries.append({key: found[key] for key in KEYS})
            _efficiencies(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path}, line {number}: not a line of a history; remove it") from error
    return entries


def _efficiencies(run: Entry) -> dict[str, float]:
    figures = run["figures"].items()
    return {key: float(each["efficiency"]) for key, each in figures if "efficiency" in each}


def regressions(earlier: Sequence[Entry], new: Entry) -> list[str]:
    """What is slower by more than `LOSS` than the best of the last comparable runs, in words.

    Runs are comparable on the same kind of machine, idle before them; quick ones never are.
    """
    if new["is_quick"]:
        return []
    alike = [
        (_efficiencies(each), each)
        for each in earlier
        if each["machine"] == new["machine"] and each["is_idle"] and not each["is_quick"]
    ]
    found = []
    for step, efficiency in _efficiencies(new).items():
        known = [(known[step], each) for known, each in alike if step in known][-RECENT:]
        if not known:
            continue
        best, when = max(known, key=lambda pair: pair[0])
        if efficiency < (1 - LOSS) * best:
            found.append(
                f"{step}: efficiency {efficiency:.2f}, {1 - efficiency / best:.0%} less than {best:.2f} "
                f"({when['date']}, {when['commit'][:7]})"
            )
    return found


def append(path: Path, new: Entry) -> None:
    """Add a line to a history."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(new, ensure_ascii=False) + "\n")
