"""Make the runs of a plan one after the other; what is finished is not done again."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molspectra.errors import MolspectraError
from molspectra.evaluation.evaluate import evaluate
from molspectra.reproduce.plan import Plan, Run
from molspectra.training.config import FinetuneConfig
from molspectra.training.interrupt import Interrupted
from molspectra.training.record import read_json
from molspectra.training.run import finetune, pretrain


@dataclass(frozen=True)
class State:
    """What is there of a run.

    Attributes:
        trained: whether all its steps were done.
        evaluation: its results on the test part; None before.
        record: its record; empty before it began.
    """

    trained: bool
    evaluation: Mapping[str, Any] | None
    record: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it is trained and tested."""
        return self.trained and self.evaluation is not None

    @property
    def word(self) -> str:
        """For people."""
        if not self.record:
            return "to do"
        if not self.trained:
            return "begun"
        return "finished" if self.evaluation is not None else "to be tested"


def state(run: Run) -> State:
    """What is there of a run; results that were made before it was trained to the end do not count.

    Raises:
        InputError: a damaged file.
    """
    record, found = _json(run.directory / "record.json"), _json(run.directory / "evaluation.json")
    trained = bool(record and record.get("finished"))
    return State(trained, found if found and found.get("finished") else None, record or {})


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def seconds_per_step(plan: Plan) -> dict[str, float]:
    """Time of an optimizer step by kind of run: as measured in finished runs, else the scale's guess."""
    measured: dict[str, list[float]] = {}
    for run in plan.runs:
        found = state(run)
        if found.trained and found.record.get("seconds"):
            measured.setdefault(run.cost, []).append(found.record["seconds"] / found.record["steps"])
    guesses = dict(plan.scale.seconds_per_step)
    return guesses | {key: sum(values) / len(values) for key, values in measured.items()}


def seconds_left(plan: Plan) -> float:
    """Estimated time of the runs that are not finished."""
    costs = seconds_per_step(plan)
    return sum(costs.get(run.cost, 0.0) * _steps_left(run) for run in plan.runs)


def _steps_left(run: Run) -> int:
    return 0 if state(run).trained else run.config.loop.steps


def execute(plan: Plan, after: Callable[[Mapping[str, str]], object], show: bool = True) -> dict[str, str]:
    """Make, continue and test all runs of a plan.

    Args:
        plan: what to do.
        after: called with the failures so far after every run that was made.
        show: progress on standard error.

    Returns:
        Reasons of the runs that failed, by name; runs that start from them are left out.

    Raises:
        Interrupted: it was asked to stop; the state of the run under way is saved.
        InputError: a damaged file.
    """
    failures: dict[str, str] = {}
    broken: set[Path] = set()
    for number, run in enumerate(plan.runs, 1):
        if state(run).finished:
            continue
        place = f"run {number} of {len(plan.runs)}: {run.name}"
        if run.config.init is not None and Path(run.config.init).resolve() in broken:
            failures[run.name] = "the run that it starts from failed"
            broken.add(run.directory.resolve())
            continue
        if show:
            left = minutes(seconds_left(plan))
            print(f"{place}, {run.config.loop.steps} steps; {left} left for all", file=sys.stderr)
        try:
            _make(run, show)
        except Interrupted as error:
            stopped = str(error).replace("; continue with --resume", "")
            raise Interrupted(f"{place}: {stopped}; the same command continues") from error
        except Exception as error:  # hours of other runs must not hang on one
            if not isinstance(error, MolspectraError):
                traceback.print_exc()
            reason = str(error) if isinstance(error, MolspectraError) else f"{type(error).__name__}: {error}"
            failures[run.name] = reason
            broken.add(run.directory.resolve())
            print(f"molspectra: failed: {place}: {reason}", file=sys.stderr)
        after(failures)
    return failures


def _make(run: Run, show: bool) -> None:
    if isinstance(run.config, FinetuneConfig):
        finetune(run.config, run.directory, resume=True, show=show)
    else:
        pretrain(run.config, run.directory, resume=True, show=show)
    evaluate(run.directory)


def minutes(seconds: float) -> str:
    """An estimated time for people."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def listed(plan: Plan) -> str:
    """The runs of a plan with their state and estimated time."""
    costs, lines = seconds_per_step(plan), []
    states = [state(run) for run in plan.runs]
    for number, (run, found) in enumerate(zip(plan.runs, states, strict=True), 1):
        steps = run.config.loop.steps
        cost = "" if found.finished else minutes(costs.get(run.cost, 0.0) * steps)
        lines.append(f"{number:3}  {run.name:<44} {steps:>7} steps  {found.word:<12} {cost}".rstrip())
    is_measured = any(found.trained for found in states)
    basis = "the runs that are finished" if is_measured else "the scale's rough times per step"
    return "\n".join([*lines, f"{minutes(seconds_left(plan))} in all, estimated from {basis}"])
