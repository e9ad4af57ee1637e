"""The efficiencies of earlier runs, and what has become slower.

`history.jsonl` beside a page holds a line of JSON for each run of `python -m benchmarks`: date, commit,
machine, whether it was idle, and the efficiency of every step by name. Seconds are not compared: another day
gives others.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "history.jsonl"

LOSS = 0.10
"""Share of an efficiency whose loss is a regression."""

RECENT = 5
"""Comparable runs before, the best of which counts."""

IDLE = 0.5
"""Largest load of the machine before a run with which others are compared."""

Entry = dict[str, Any]


def entry(results: Mapping[str, Any]) -> Entry:
    """The line of a run.

    Args:
        results: see `benchmarks.report.page`.
    """
    about = results["about"]
    machine = about["machine"]
    return {
        "date": about["date"],
        "commit": about["commit"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {about['threads']} threads",
        "is_idle": _is_idle(about["load"]),
        "is_quick": about["quick"],
        "efficiency": {
            name(step): round(step["efficiency"], 4)
            for step in results["steps"]
            if step["label"] != "compare"
        },
    }


def name(step: Mapping[str, Any]) -> str:
    """What a step is called in the history."""
    return f"{step['config']} {step['batch']} {step['mode']} {step['precision']} {step['allocator']}"


def _is_idle(load: str) -> bool:
    try:
        return float(load) <= IDLE
    except ValueError:  # a system that does not tell
        return False


def read(path: Path) -> list[Entry]:
    """The lines of a history, oldest first; none without the file.

    Raises:
        ValueError: a line is damaged.
    """
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found = json.loads(line)
            entries.append(
                {
                    key: found[key]
                    for key in ("date", "commit", "machine", "is_idle", "is_quick", "efficiency")
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a line of a history ({error}); remove it"
            ) from error
    return entries


def regressions(earlier: Sequence[Entry], new: Entry) -> list[str]:
    """What is slower by more than `LOSS` than the best of the last comparable runs, in words."""
    alike = [
        each
        for each in earlier
        if each["machine"] == new["machine"] and each["is_idle"] and not each["is_quick"]
    ]
    found = []
    for step, efficiency in new["efficiency"].items():
        known = [(each["efficiency"][step], each) for each in alike if step in each["efficiency"]][-RECENT:]
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
