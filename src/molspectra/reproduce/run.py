"""Executes the runs of a plan one after the other; finished runs are not repeated."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from molspectra.errors import MolspectraError
from molspectra.evaluation.evaluate import evaluate
from molspectra.evaluation.floors import FLOORS, assess_floor
from molspectra.printable import say
from molspectra.reproduce.plan import Plan, Run
from molspectra.training.config import FinetuneConfig
from molspectra.training.interrupt import Interrupted
from molspectra.training.record import read_json
from molspectra.training.run import finetune, pretrain


@dataclass(frozen=True)
class State:
    """Progress of a run.

    Attributes:
        trained: whether all its steps were done.
        evaluation: its results on the test part; None before it is trained and tested.
        record: its record; empty before it began.
    """

    trained: bool
    evaluation: Mapping[str, Any] | None
    record: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether it is trained and tested."""
        return self.evaluation is not None

    @property
    def word(self) -> str:
        """Displayed state."""
        if not self.record:
            return "to do"
        if not self.trained:
            return "begun"
        return "finished" if self.finished else "to be tested"


def state(run: Run) -> State:
    """Read the progress of a run; results from before the end of its training are ignored.

    Raises:
        InputError: a damaged file.
    """
    paths = run.directory / "record.json", run.directory / "evaluation.json"
    record, evaluation = ((read_json(path) or {}) if path.is_file() else {} for path in paths)
    trained = bool(record.get("finished"))
    return State(trained, evaluation if trained and evaluation.get("finished") else None, record)


def seconds_per_step(plan: Plan) -> dict[str, float]:
    """Return the time per optimizer step by kind of run, in s: measured, else the scale's estimate."""
    measured: dict[str, list[float]] = {}
    for run in plan.runs:
        record = state(run).record
        if record.get("finished") and record.get("seconds"):
            measured.setdefault(run.cost, []).append(record["seconds"] / record["steps"])
    return {**plan.scale.seconds_per_step, **{cost: fmean(values) for cost, values in measured.items()}}


def seconds_left(plan: Plan) -> float:
    """Estimate the time of the runs that are not finished, in s."""
    costs = seconds_per_step(plan)
    left = [run for run in plan.runs if not state(run).trained]
    return sum(costs.get(run.cost, 0.0) * run.config.loop.steps for run in left)


def execute(plan: Plan, after: Callable[[Mapping[str, str]], object], show: bool = True) -> dict[str, str]:
    """Train, continue and test all runs of a plan.

    Args:
        plan: of the experiment.
        after: called with the failures so far after every run that was executed.
        show: show progress on standard error.

    Returns:
        Reasons of failed runs, by name; runs that start from them are skipped.

    Raises:
        Interrupted: on request; the state of the current run is saved.
        InputError: a damaged file.
    """
    failures: dict[str, str] = {}
    broken: set[Path] = set()
    for number, run in enumerate(plan.runs, 1):
        if state(run).finished:
            continue
        position = f"run {number} of {len(plan.runs)}: {run.name}"
        if run.config.init is not None and Path(run.config.init).resolve() in broken:
            failures[run.name] = "the run that it starts from failed"
            broken.add(run.directory.resolve())
            continue
        if show:
            left = minutes(seconds_left(plan))
            say(f"{position}, {run.config.loop.steps} steps; {left} left for all", error=True)
        try:
            _execute_run(run, show)
        except Interrupted as error:
            stopped = str(error).replace("; continue with --resume", "")
            raise Interrupted(f"{position}: {stopped}; the same command continues") from error
        except Exception as error:  # one failure must not stop hours of other runs
            if not isinstance(error, MolspectraError):
                traceback.print_exc()
            reason = str(error) if isinstance(error, MolspectraError) else f"{type(error).__name__}: {error}"
            failures[run.name] = reason
            broken.add(run.directory.resolve())
            say(f"molspectra: failed: {position}: {reason}", error=True)
        after(failures)
    return failures


def _execute_run(run: Run, show: bool) -> None:
    if run.arm in FLOORS and isinstance(run.config, FinetuneConfig):
        assess_floor(run.arm, run.config, run.directory)
        return
    if isinstance(run.config, FinetuneConfig):
        finetune(run.config, run.directory, resume=True, show=show)
    else:
        pretrain(run.config, run.directory, resume=True, show=show)
    evaluate(run.directory)


def minutes(seconds: float) -> str:
    """Format an estimated time in seconds as s, min or h."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def listed(plan: Plan) -> str:
    """List the runs of a plan with their state and estimated time."""
    costs, lines = seconds_per_step(plan), []
    states = [state(run) for run in plan.runs]
    for number, (run, progress) in enumerate(zip(plan.runs, states, strict=True), 1):
        steps = run.config.loop.steps
        cost = "" if progress.finished else minutes(costs.get(run.cost, 0.0) * steps)
        lines.append(f"{number:3}  {run.name:<44} {steps:>7} steps  {progress.word:<12} {cost}".rstrip())
    is_measured = any(progress.trained for progress in states)
    basis = "the runs that are finished" if is_measured else "the scale's rough times per step"
    return "\n".join([*lines, f"{minutes(seconds_left(plan))} in all, estimated from {basis}"])
