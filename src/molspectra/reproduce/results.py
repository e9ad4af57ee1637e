"""Results of a plan's runs: errors by arm and seed, published values, paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.evaluation import published
from molspectra.evaluation.finetuned import read_force_errors, read_predictions
from molspectra.evaluation.metrics import mean_and_sd
from molspectra.evaluation.paired import MoleculeInterval, SeedTest, molecule_interval, seed_test
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
        mae: mean absolute error by seed, in the unit of the results.
        mean: over the seeds; None before the first run is finished.
        sd: sample standard deviation over the seeds; None for fewer than two.
        published: the corresponding published value, if any.
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
        tells: what the difference shows.
        interval: over test molecules; None where errors per molecule are missing.
        conclusion: in words.
    """

    first: str
    second: str
    tells: str
    test: SeedTest
    interval: MoleculeInterval | None
    conclusion: str


@dataclass(frozen=True)
class RunLine:
    """One line of the list of runs.

    Attributes:
        directory: relative to the experiment's.
        state: "finished", "begun", "to do" or "failed: ...".
        steps: optimizer steps of the whole run.
        seconds: wall time of its training.
        rows: number of molecules or frames by part.
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
        subject: property or molecule.
        unit: of all errors.
        test: number of test molecules or frames; None before the first run is finished.
        train: number of training molecules or frames.
        constant: error of predicting the training median for all; None before the first run is finished.
        arms: in the order of the experiment.
        rows: published values of the same quantity.
        reasons: why the errors are not comparable with the published values.
        seen: sentence on test molecules in pre-training, by label of the arm.
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
    """Collect the results of the runs of a plan so far; `failures` are reasons of failed runs by name.

    Raises:
        InputError: a damaged file.
    """
    states = {run.directory: state(run) for run in plan.runs}
    # finished fine-tuning runs with their errors, as evaluated
    tested = [
        (run, evaluation)
        for run in plan.runs
        if not run.is_pretraining and (evaluation := states[run.directory].evaluation) is not None
    ]
    is_forces = plan.experiment.kind == "md17"
    first = tested[0][1] if tested else None
    # into the unit of the published values, where there are any and the units fit
    own_unit = str(_errors_of(first, is_forces)["unit"]) if first else ""
    rows = _published(plan)
    published_unit = rows[0].unit if rows else own_unit
    conversion = published.factor(own_unit, published_unit) if tested else 1.0
    unit, factor = (own_unit, 1.0) if conversion is None else (published_unit, conversion)
    maes: dict[str, dict[int, float]] = {arm: {} for arm in plan.experiment.arms}
    errors: dict[str, dict[int, npt.NDArray[np.float64]]] = {arm: {} for arm in plan.experiment.arms}
    for run, evaluation in tested:
        maes[run.arm][run.seed] = factor * _errors_of(evaluation, is_forces)["mae"]
        of_molecules = _molecule_errors(run, is_forces)
        if of_molecules is not None:
            errors[run.arm][run.seed] = factor * of_molecules
    constant = _errors_of(first, is_forces).get("median_predictor_mae") if first else None
    why_not = tuple(dict.fromkeys(reasons(plan, states, conversion is not None)))
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
        constant=None if constant is None else factor * constant,
        arms=tuple(_arm(plan, arm, maes[arm]) for arm in plan.experiment.arms),
        rows=rows,
        comparable=not why_not,
        reasons=why_not,
        seen=_seen(tested),
        comparisons=tuple(_comparisons(plan.experiment, maes, errors)),
        runs=tuple(_line(plan, run, states[run.directory], failures or {}) for run in plan.runs),
    )


def _errors_of(evaluation: Mapping[str, Any], is_forces: bool) -> Mapping[str, Any]:
    """Return the part of an evaluation with the errors of the quantity."""
    errors: Mapping[str, Any] = evaluation["forces"] if is_forces else evaluation
    return errors


def _molecule_errors(run: Run, is_forces: bool) -> npt.NDArray[np.float64] | None:
    """Absolute errors of the M test molecules, [M] (of forces the mean over components); None if not kept."""
    path = run.directory / "predictions.csv"
    if is_forces:
        errors = read_force_errors(path)
        return None if errors is None else np.array(errors)
    computed, predicted = read_predictions(path)
    return np.abs(np.subtract(predicted, computed))


def _arm(plan: Plan, arm: str, maes: Mapping[int, float]) -> ArmResult:
    mean, sd = mean_and_sd(list(maes.values())) if maes else (math.nan, math.nan)
    return ArmResult(
        key=arm,
        label=label(arm),
        mae=dict(sorted(maes.items())),
        mean=mean if maes else None,
        sd=None if math.isnan(sd) else sd,
        published=_published_row(plan, arm),
    )


def _published(plan: Plan) -> tuple[Published, ...]:
    """Return the published values of the quantity."""
    sources = {"md17": published.md17, "pilot": published.pilot}
    return sources.get(plan.experiment.kind, published.qm9)(plan.subject)


def _published_row(plan: Plan, arm: str) -> Published | None:
    """Return the published value that an arm corresponds to."""
    name = plan.experiment.published.get(arm)
    if not name:
        return None
    row = next((row for row in _published(plan) if row.method == name), None)
    return row or published.ablation(name, plan.subject)


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
        text = conclusion(*names, test, interval, _samples(experiment))
        yield Comparison(*names, tells, test, interval, text)


def reasons(plan: Plan, states: Mapping[Path, State], unit_fits: bool) -> Iterator[str]:
    """Yield why the errors are not comparable with the published values, one clause each."""
    published_train = published.MD17_TRAIN if plan.experiment.kind == "md17" else published.QM9_TRAIN
    if plan.scale.name != "paper":
        yield f"scale {plan.scale.name}: {plan.scale.about}"
    if plan.scale.changes:
        yield f"settings changed: {', '.join(plan.scale.changes)}"
    if not unit_fits:
        yield "the store's unit is not that of the published values"
    reported = set()  # one run of a kind stands for all
    for run in plan.runs:
        record = states[run.directory].record
        if not record or run.cost in reported:
            continue
        reported.add(run.cost)
        rows = record["data"]["rows"]
        if run.cost == "stage1" and sum(rows.values()) < 0.9 * published.STRUCTURES:
            yield (
                f"stage 1 saw {rows['train']:,} structures of {plan.stores['structures']} (published: "
                f"{published.STRUCTURES:,} of PCQM4Mv2)"
            )
        if run.cost == "stage2" and sum(rows.values()) < 0.9 * published.SPECTRA:
            yield f"stage 2 saw {rows['train']:,} molecules (published: {published.SPECTRA:,} of QM9S)"
        if not run.is_pretraining and rows["train"] < 0.9 * published_train:
            samples = _samples(plan.experiment)
            yield f"learnt from {rows['train']:,} {samples} (published: {published_train:,})"
    yield from _levels(plan, states)


def _seen(tested: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[str, str]:
    """Return the evaluations' sentences on test molecules that were seen in pre-training, one per arm."""
    sentences: dict[str, str] = {}
    for run, evaluation in tested:
        seen = (evaluation.get("seen") or {}).get("pretraining")
        if seen:
            sentences.setdefault(label(run.arm), str(seen["sentence"]))
    return sentences


def _samples(experiment: Experiment) -> str:
    return "frames" if experiment.kind == "md17" else "molecules"


def _levels(plan: Plan, states: Mapping[Path, State]) -> Iterator[str]:
    """Yield the levels of theory of labels and spectra that differ from the published ones."""
    reported = set()
    for run in plan.runs:
        evaluation = states[run.directory].evaluation
        kind = "stage2" if run.cost == "stage2" else "" if run.is_pretraining else "labels"
        if evaluation is None or not kind or kind in reported:
            continue
        reported.add(kind)
        if kind == "stage2":
            if "QM9S" in evaluation["data"]["source"]:
                continue
            levels = evaluation["data"]["levels"]
            names = [f"{name} {level}" for name, level in levels.items() if name != "geometry"]
            yield f"spectra that are not those of QM9S: {'; '.join(names)}"
        elif plan.experiment.kind in ("qm9", "pilot") and published.LABEL_LEVEL not in evaluation["level"]:
            level = evaluation["level"] or "an unknown level"
            yield f"labels at {level} (published: {published.LABEL_LEVEL})"
        elif plan.experiment.kind == "md17" and "GFN2" in evaluation["level"]:
            yield f"energies and forces at {evaluation['level']} (published: density functional theory)"


def _line(plan: Plan, run: Run, progress: State, failures: Mapping[str, str]) -> RunLine:
    record = progress.record
    data = record.get("data", {})
    return RunLine(
        name=run.name,
        directory=str(run.directory.relative_to(plan.out)),
        state=f"failed: {failures[run.name]}" if run.name in failures else progress.word,
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
