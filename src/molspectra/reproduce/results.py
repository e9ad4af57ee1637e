"""What the runs of a plan show: errors by arm and seed, published values beside them, paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.evaluation import published as print_
from molspectra.evaluation.finetuned import read_force_errors, read_predictions
from molspectra.evaluation.metrics import mean_and_sd
from molspectra.evaluation.paired import (
    MoleculeInterval,
    SeedTest,
    molecule_interval,
    seed_test,
)
from molspectra.evaluation.published import Published
from molspectra.reporting.wording import conclusion
from molspectra.reproduce.experiments import Experiment, label
from molspectra.reproduce.plan import Plan, Run
from molspectra.reproduce.run import State, state
from molspectra.training.settings import to_dict


@dataclass(frozen=True)
class ArmResult:
    """Test errors of one arm.

    Attributes:
        key: of the arm.
        label: for people.
        mae: mean absolute error by seed, in the unit of the results.
        mean: over the seeds; None before the first run is finished.
        sd: sample standard deviation over the seeds; None for fewer than two.
        published: the row of the paper that the arm corresponds to.
    """

    key: str
    label: str
    mae: Mapping[int, float]
    mean: float | None
    sd: float | None
    published: Published | None


@dataclass(frozen=True)
class Comparison:
    """Two arms, paired: first minus second.

    Attributes:
        first: label of an arm.
        second: label of the other.
        tells: what the difference is due to.
        test: over seeds.
        interval: over test molecules.
        conclusion: what follows, in words.
    """

    first: str
    second: str
    tells: str
    test: SeedTest | None
    interval: MoleculeInterval | None
    conclusion: str


@dataclass(frozen=True)
class RunLine:
    """One run for the list of runs.

    Attributes:
        name: for people.
        directory: relative to the experiment's.
        state: "finished", "begun", "to do" or "failed: ...".
        seed: of the run.
        steps: done and to do.
        seconds: of its training.
        rows: molecules or frames by part.
        data_hash: of its store.
        commit: of the code.
        machine: of the training.
        versions: of Python and packages in the training.
        settings: all of them.
    """

    name: str
    directory: str
    state: str
    seed: int
    steps: int
    seconds: float | None
    rows: Mapping[str, int]
    data_hash: str
    commit: str | None
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """An experiment as far as it is done.

    Attributes:
        experiment: what is repeated.
        subject: property or molecule.
        scale: name of the scale.
        about_scale: in words.
        seeds: of the plan.
        quantity: whose mean absolute errors these are.
        unit: of all errors.
        test: number of test molecules or frames; None before the first run is finished.
        train: number of training molecules or frames.
        constant: error of predicting the training median for all; None before the first run is finished.
        arms: in the order of the experiment.
        rows: published values of the same quantity.
        comparable: whether ours may be read against the published values.
        reasons: why not.
        seen: what is known of test molecules in pre-training, by arm.
        comparisons: paired.
        runs: all of them.
    """

    experiment: Experiment
    subject: str
    scale: str
    about_scale: str
    seeds: tuple[int, ...]
    quantity: str
    unit: str
    test: int | None
    train: int | None
    constant: float | None
    arms: tuple[ArmResult, ...]
    rows: tuple[Published, ...]
    comparable: bool
    reasons: tuple[str, ...]
    seen: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    runs: tuple[RunLine, ...]

    @property
    def finished(self) -> int:
        """Number of finished runs."""
        return sum(run.state == "finished" for run in self.runs)


def collect(plan: Plan, failures: Mapping[str, str] | None = None) -> Results:
    """Read what the runs of a plan have left so far.

    Args:
        plan: what is done.
        failures: reasons of failed runs by name.

    Raises:
        InputError: a damaged file.
    """
    states = {run.directory: state(run) for run in plan.runs}
    tested = [
        (run, found)
        for run in plan.runs
        if not run.is_pretraining and (found := states[run.directory]).finished
    ]
    is_forces = plan.experiment.kind == "md17"
    own = _unit(tested[0][1].evaluation or {}, is_forces) if tested else ""
    rows = _published(plan)
    wanted = rows[0].unit if rows else own
    scale = print_.factor(own, wanted) if tested else 1.0
    unit, factor = (own, 1.0) if scale is None else (wanted, scale)
    maes: dict[str, dict[int, float]] = {arm: {} for arm in plan.experiment.arms}
    errors: dict[str, dict[int, npt.NDArray[np.float64]]] = {arm: {} for arm in plan.experiment.arms}
    for run, found in tested:
        evaluation = found.evaluation or {}
        maes[run.arm][run.seed] = factor * (evaluation["forces"] if is_forces else evaluation)["mae"]
        each = _errors(run, is_forces)
        if each is not None:
            errors[run.arm][run.seed] = factor * each
    first = tested[0][1].evaluation if tested else None
    why = tuple(dict.fromkeys(reasons(plan, states, scale is not None)))
    return Results(
        experiment=plan.experiment,
        subject=plan.subject,
        scale=plan.scale.name,
        about_scale=plan.scale.about,
        seeds=plan.seeds,
        quantity=f"forces of {plan.subject}" if is_forces else plan.subject,
        unit=unit,
        test=None if first is None else first["molecules"],
        train=None if first is None else first["training_molecules"],
        constant=None if first is None else _constant(first, is_forces, factor),
        arms=tuple(_arm(plan, arm, maes[arm]) for arm in plan.experiment.arms),
        rows=rows,
        comparable=not why,
        reasons=why,
        seen=_seen(tested),
        comparisons=tuple(_comparisons(plan.experiment, maes, errors)),
        runs=tuple(_line(plan, run, states[run.directory], failures or {}) for run in plan.runs),
    )


def _unit(evaluation: Mapping[str, Any], is_forces: bool) -> str:
    return str((evaluation["forces"] if is_forces else evaluation)["unit"])


def _errors(run: Run, is_forces: bool) -> npt.NDArray[np.float64] | None:
    """Absolute error of every test molecule (of forces the mean over components); None where not kept."""
    path = run.directory / "predictions.csv"
    if is_forces:
        found = read_force_errors(path)
        return None if found is None else np.array(found)
    computed, predicted = read_predictions(path)
    return np.abs(np.subtract(predicted, computed))


def _constant(evaluation: Mapping[str, Any], is_forces: bool, factor: float) -> float | None:
    """Error of predicting one number for all, in the unit of the results."""
    found = (evaluation["forces"] if is_forces else evaluation).get("median_predictor_mae")
    return None if found is None else factor * found


def _arm(plan: Plan, arm: str, maes: Mapping[int, float]) -> ArmResult:
    mean, sd = mean_and_sd(list(maes.values())) if maes else (math.nan, math.nan)
    return ArmResult(
        key=arm,
        label=label(arm),
        mae=dict(sorted(maes.items())),
        mean=mean if maes else None,
        sd=None if math.isnan(sd) else sd,
        published=_row(plan, arm),
    )


def _published(plan: Plan) -> tuple[Published, ...]:
    """Published values of the quantity."""
    if plan.experiment.kind == "md17":
        return print_.md17(plan.subject)
    return print_.pilot(plan.subject) if plan.experiment.kind == "pilot" else print_.qm9(plan.subject)


def _row(plan: Plan, arm: str) -> Published | None:
    """The published row of an arm."""
    name = plan.experiment.published.get(arm)
    if not name:
        return None
    lists = _published(plan)
    found = next((row for row in lists if row.method == name), None)
    return found or print_.ablation(name, plan.subject)


def _comparisons(
    experiment: Experiment,
    maes: Mapping[str, Mapping[int, float]],
    errors: Mapping[str, Mapping[int, npt.NDArray[np.float64]]],
) -> Iterator[Comparison]:
    for first, second, tells in experiment.pairs:
        test = seed_test(maes[first], maes[second])
        if test is None:
            continue
        interval = None
        if all(seed in errors[arm] for arm in (first, second) for seed in test.seeds):
            pair = [[errors[arm][seed] for seed in test.seeds] for arm in (first, second)]
            interval = molecule_interval(*pair)
        names = label(first), label(second)
        things = "frames" if experiment.kind == "md17" else "molecules"
        yield Comparison(*names, tells, test, interval, conclusion(*names, test, interval, things))


def reasons(plan: Plan, states: Mapping[Any, State], unit_fits: bool) -> Iterator[str]:
    """Why ours are not to be read against the published values, each a clause."""
    setting = print_.SETTING
    is_forces = plan.experiment.kind == "md17"
    if plan.scale.name != "paper":
        yield f"scale {plan.scale.name}: {plan.scale.about}"
    if plan.scale.changes:
        yield f"settings changed: {', '.join(plan.scale.changes)}"
    if not unit_fits:
        yield "the store's unit is not that of the published values"
    told = set()
    for run in plan.runs:
        found = states[run.directory]
        if not found.record or run.cost in told:
            continue
        told.add(run.cost)
        rows = found.record["data"]["rows"]
        if run.cost == "stage1" and sum(rows.values()) < 0.9 * float(str(setting["structures"])):
            yield (
                f"stage 1 saw {rows['train']:,} structures of {plan.stores['structures']} (published: "
                f"{setting['structures']:,} of PCQM4Mv2)"
            )
        if run.cost == "stage2" and sum(rows.values()) < 0.9 * float(str(setting["spectra"])):
            yield f"stage 2 saw {rows['train']:,} molecules (published: {setting['spectra']:,} of QM9S)"
        if not run.is_pretraining:
            wanted = int(str(setting["md17_train" if is_forces else "qm9_train"]))
            if rows["train"] < 0.9 * wanted:
                yield f"learnt from {rows['train']:,} {_things(plan)} (published: {wanted:,})"
    yield from _levels(plan, states)


def _seen(tested: Sequence[tuple[Run, State]]) -> dict[str, str]:
    """What the evaluations say of test molecules that were seen in pre-training, one sentence per arm."""
    found: dict[str, str] = {}
    for run, each in tested:
        before = ((each.evaluation or {}).get("seen") or {}).get("pretraining")
        if before:
            found.setdefault(label(run.arm), str(before["sentence"]))
    return found


def _things(plan: Plan) -> str:
    return "frames" if plan.experiment.kind == "md17" else "molecules"


def _levels(plan: Plan, states: Mapping[Any, State]) -> Iterator[str]:
    """Levels of theory of labels and spectra that differ from the published ones."""
    told = set()
    for run in plan.runs:
        found = states[run.directory].evaluation
        kind = "stage2" if run.cost == "stage2" else "" if run.is_pretraining else "labels"
        if found is None or not kind or kind in told:
            continue
        told.add(kind)
        if kind == "stage2":
            if "QM9S" in found["data"]["source"]:
                continue
            levels = found["data"]["levels"]
            names = [f"{name} {level}" for name, level in levels.items() if name != "geometry"]
            yield f"spectra that are not those of QM9S: {'; '.join(names)}"
        elif (
            plan.experiment.kind in ("qm9", "pilot")
            and str(print_.SETTING["label_level"]) not in found["level"]
        ):
            level = found["level"] or "an unknown level"
            yield f"labels at {level} (published: {print_.SETTING['label_level']})"
        elif plan.experiment.kind == "md17" and "GFN2" in found["level"]:
            yield f"energies and forces at {found['level']} (published: density functional theory)"


def _line(plan: Plan, run: Run, found: State, failures: Mapping[str, str]) -> RunLine:
    record = found.record
    failed = f"failed: {failures[run.name]}" if run.name in failures else found.word
    data = record.get("data", {})
    return RunLine(
        name=run.name,
        directory=str(run.directory.relative_to(plan.out)),
        state=failed,
        seed=run.seed,
        steps=run.config.loop.steps,
        seconds=record.get("seconds"),
        rows=dict(data.get("rows", {})),
        data_hash=str(data.get("hash", "")),
        commit=record.get("commit"),
        machine=dict(record.get("machine", {})),
        versions=dict(record.get("versions", {})),
        settings=to_dict(run.config),
    )
