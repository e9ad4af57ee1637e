"""Groups fine-tuning runs into tables of comparable runs, by what each of them started from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from molspectra.errors import FormatError, MismatchError
from molspectra.evaluation.finetuned import read_predictions
from molspectra.reporting.content import Arm, ResultTable, Score
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.record import read_json, read_run
from molspectra.training.settings import flat, to_dict

LABELS = {"scratch": "from scratch", "stage1": "from stage 1", "stage2": "from stage 2"}
"""Displayed names of the usual initialisations."""

STAGES = {"stage1": "stage 1", "stage2": "stage 2", "finetune": "fine-tuning"}
"""Displayed names of the stages."""

IRRELEVANT = (
    "init",
    "data.store",  # the content's hash is compared instead
    "data.workers",
    "data.allow_leak",  # a leak is reported in the notes
    "loop.seed",
    "loop.accelerator",
    "loop.devices",
    "loop.nodes",
    "loop.log_every",
    "loop.save_every",
    "loop.keep",
    "loop.tensorboard",
    "loop.wandb",
    "loop.mlflow",
)
"""Settings in which runs of one table may differ."""


@dataclass(frozen=True, eq=False)
class Run:
    """The contents of a run directory.

    Attributes:
        directory: path of the run.
        name: displayed name.
        config: its settings.
        record: its record.
        evaluation: its results on the test part; None where it was not evaluated.
    """

    directory: Path
    name: str
    config: PretrainConfig | FinetuneConfig
    record: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None

    @classmethod
    def read(cls, directory: Path, name: str | None = None) -> Run:
        """Read settings, record and results.

        Raises:
            InputError: not a run directory, or a damaged file in it.
        """
        config, record = read_run(directory)
        path = directory / "evaluation.json"
        evaluation = read_json(path) if path.is_file() else None
        if evaluation is not None and not isinstance(evaluation, dict):
            raise FormatError(f"{path}: not the results of an evaluation; evaluate the run again")
        return cls(directory, name or directory.resolve().name, config, record, evaluation)

    @property
    def stage(self) -> str:
        """Return "stage1", "stage2" or "finetune"."""
        stage: str = self.record["about"]["stage"]
        return stage

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.loop.seed

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect the result, by dotted name, without seed and start."""
        settings = flat(to_dict(self.config), "report")
        return {name: value for name, value in settings.items() if name not in IRRELEVANT}


def with_ancestors(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, followed by those that they started from and that still exist, without repeats.

    Raises:
        InputError: a damaged run directory.
    """
    known = list(runs)
    for run in known:  # grows during the iteration
        for path in _origin_paths(run):
            if any(other.directory.resolve() == path for other in known):
                break
            if (path / "record.json").is_file():
                known.append(Run.read(path))
                break
    return known


def origin_of(run: Run, known: Sequence[Run]) -> Run | None:
    """Return the run, among the known ones, that a run was initialised from; None where it is not among them.

    A directory that has been moved since is identified by its name.
    """
    paths = _origin_paths(run)
    for path in paths:
        for other in known:
            if other.directory.resolve() == path:
                return other
    namesakes = [other for other in known if other.name in {path.name for path in paths}]
    return namesakes[0] if len(namesakes) == 1 else None


def _origin_paths(run: Run) -> list[Path]:
    """Return candidates for the origin's run directory: `init` names a run or a checkpoint in one."""
    if run.config.init is None:
        return []
    path = Path(run.config.init).resolve()
    return [path, path.parent.parent] if path.parent.name == "checkpoints" else [path]


@dataclass(frozen=True)
class Start:
    """Initialisation of a run.

    Attributes:
        key: "scratch", the stage of the pre-training run, or its name where it no longer exists.
        recipe: settings and data of the pre-training; equal for starts that differ only in seeds.
        origin: path of the pre-training run; None from scratch.
        seed: of the pre-training run; None where unknown.
    """

    key: str
    recipe: str
    origin: str | None = None
    seed: int | None = None


def start_of(run: Run, known: Sequence[Run]) -> Start:
    """Return the initialisation of a run; its recipe includes all ancestors among the known runs."""
    if run.config.init is None:
        return Start("scratch", "scratch")
    origin = origin_of(run, known)
    if origin is None:
        return Start(Path(run.config.init).name, run.config.init, run.config.init)
    facts = [origin.settings(), origin.record["data"]["hash"], start_of(origin, known).recipe]
    recipe = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return Start(origin.stage, recipe, str(origin.directory.resolve()), origin.seed)


def result_tables(runs: Sequence[Run], known: Sequence[Run]) -> tuple[ResultTable, ...]:
    """Return one table per property and settings, of the fine-tuning runs that were evaluated.

    Args:
        runs: of any stage.
        known: the runs and their ancestors.

    Raises:
        MismatchError: two runs of the same start and seed.
        FormatError: damaged results.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        # a table is of errors; of a run that learnt classes a note tells
        if run.stage == "finetune" and run.evaluation is not None and "auroc" not in run.evaluation:
            facts = [run.settings(), run.evaluation["data"]["hash"], run.evaluation["data"]["trained_on"]]
            groups.setdefault(json.dumps(facts, sort_keys=True), []).append(run)
    tables = []
    for members in groups.values():
        settings = _differences(members[0], [other[0] for other in groups.values()])
        tables.append(_table(members, known, settings))
    return tuple(tables)


def _table(members: list[Run], known: Sequence[Run], settings: str) -> ResultTable:
    keyed = arm_keys(members, known)
    arms = []
    order = [*LABELS, *sorted(keyed.keys() - LABELS.keys())]
    for key in (key for key in order if key in keyed):
        chosen = sorted(keyed[key], key=lambda run: run.seed)
        for one, other in pairwise(chosen):
            if one.seed == other.seed:
                raise MismatchError(
                    f"{one.directory} and {other.directory}: same start, settings and seed; give one of them"
                )
        starts = [start_of(run, known) for run in chosen]
        label = LABELS.get(key, f"from {key}")
        arms.append(Arm(key, label, tuple(map(_score, chosen)), pretraining_sentence(starts)))
    evaluation = members[0].evaluation
    assert evaluation is not None
    return ResultTable(
        target=evaluation["target"],
        unit=evaluation["unit"],
        part=evaluation["part"],
        molecules=evaluation["molecules"],
        training_molecules=evaluation["training_molecules"],
        arms=tuple(arms),
        constant_mae=evaluation["median_predictor_mae"],
        settings=settings,
    )


def arm_keys(members: Sequence[Run], known: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by initialisation; origins of one stage with different recipes get the run's name added."""
    starts = {run.directory: start_of(run, known) for run in members}
    recipes: dict[str, list[str]] = {}
    for start in starts.values():
        recipes.setdefault(start.key, [])
        if start.recipe not in recipes[start.key]:
            recipes[start.key].append(start.recipe)
    keyed: dict[str, list[Run]] = {}
    for run in members:
        start = starts[run.directory]
        key = start.key
        if len(recipes[key]) > 1 and start.origin is not None:
            first = next(other for other in starts.values() if other.recipe == start.recipe)
            key = f"{key} ({Path(first.origin or '').name})"
        keyed.setdefault(key, []).append(run)
    return keyed


def _score(run: Run) -> Score:
    evaluation = run.evaluation
    assert evaluation is not None
    target, prediction = read_predictions(run.directory / "predictions.csv")
    errors = evaluation["mae"], evaluation["rmse"], evaluation["r2"]
    return Score(run.seed, *errors, tuple(target), tuple(prediction))


def pretraining_sentence(starts: Sequence[Start]) -> str:
    """State whether pre-training was repeated for every seed; "" without pre-training."""
    origins = {start.origin: start.seed for start in starts if start.origin is not None}
    n = len(starts)
    if not origins:
        return ""
    if len(origins) == 1:
        (seed,) = origins.values()
        run = "one pre-training run" + ("" if seed is None else f" (seed {seed})")
        if n == 1:
            return f"{run}."
        return f"{run} served all {n} seeds; their spread does not hold that of pre-training."
    if len(origins) == n:
        return f"pre-training was repeated for each of the {n} seeds."
    return f"{len(origins)} pre-training runs served {n} seeds."


def _differences(run: Run, others: Sequence[Run]) -> str:
    """Return the settings of a run that are not the same in all others, as "name value" texts."""
    own = run.settings()
    names = [name for name in own if any(other.settings().get(name) != own[name] for other in others)]
    hashes = {str(other.record["data"]["hash"]) for other in others}
    data = [f"data {str(run.record['data']['hash'])[:12]}"] if len(hashes) > 1 else []
    return ", ".join([*data, *(f"{name} {own[name]}" for name in names)])
