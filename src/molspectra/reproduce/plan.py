"""The runs of an experiment in order, with their settings, and checks against runs that already exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, NotFoundError, SettingError
from molspectra.evaluation.floors import FLOORS
from molspectra.evaluation.published import MD17_FORMULAS, QM9_UNITS
from molspectra.reproduce.experiments import FROM_SCRATCH, VARIANTS, Experiment, chain
from molspectra.reproduce.scales import Scale, merged, nested
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import open_store
from molspectra.training.provenance import first_difference
from molspectra.training.record import read_json
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.targets import resolved

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        arm: key of `VARIANTS` or `FROM_SCRATCH`: its start, or for pre-training the run itself.
        cost: kind of run in the scale's times per step.
    """

    arm: str
    seed: int
    directory: Path
    config: PretrainConfig | FinetuneConfig
    cost: str

    @property
    def is_pretraining(self) -> bool:
        """Whether it is a pre-training run."""
        return isinstance(self.config, PretrainConfig)

    @property
    def name(self) -> str:
        """Displayed name, such as "pretrain/stage1 seed 0" or "gap/control seed 0"."""
        group = "pretrain" if self.is_pretraining else self.directory.parent.name
        if group.startswith("labels-"):
            group = f"{self.directory.parent.parent.name} {group.removeprefix('labels-')}"
        return f"{group}/{self.arm} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """An experiment at a scale, on its data, in a directory.

    Attributes:
        subject: the property or the molecule.
        stores: data by kind.
        out: directory of runs and results.
        runs: in the order of execution.
        labels: number of labels to learn from; None for all.
    """

    experiment: Experiment
    subject: str
    scale: Scale
    seeds: tuple[int, ...]
    stores: Mapping[str, str]
    out: Path
    runs: tuple[Run, ...]
    labels: int | None = None

    @property
    def stem(self) -> str:
        """Name of the result files without suffix."""
        parts = (self.experiment.key, self.subject, str(self.labels or ""))
        return "-".join(part for part in parts if part)


def make_plans(
    experiment: Experiment,
    subject: str,
    scale: Scale,
    out: Path,
    stores: Mapping[str, str],
    seeds: Sequence[int] = (),
) -> list[Plan]:
    """Plan an experiment; one that goes over numbers of labels has a plan for each.

    Raises:
        InputError: as `make_plan`; or the scale has no numbers of labels.
    """
    sizes: Sequence[int | None] = sorted(scale.sizes) if experiment.is_sized else [None]
    if not sizes:
        raise SettingError(
            f"scale {scale.name} names no numbers of labels (sizes), which {experiment.key} needs"
        )
    return [make_plan(experiment, subject, scale, out, stores, seeds, size) for size in sizes]


def make_plan(
    experiment: Experiment,
    subject: str,
    scale: Scale,
    out: Path,
    stores: Mapping[str, str],
    seeds: Sequence[int] = (),
    labels: int | None = None,
) -> Plan:
    """Plan the runs of an experiment, seed by seed, so that an unfinished one is still paired.

    Args:
        experiment: the experiment.
        subject: property (kinds "qm9" and "pilot") or molecule (kind "md17").
        scale: settings and sizes.
        out: directory; several experiments may share it, and then share the pre-training runs.
        stores: data by kind (see `STORES`), which replace the scale's own.
        seeds: replace the scale's own.
        labels: number of labels to learn from, one of the scale's; None for all.

    Raises:
        SettingError: data that are not named, or settings that do not fit.
        NotFoundError: an unknown molecule.
    """
    named = {**scale.stores, **stores}
    kinds = ["structures", "spectra"] if chain(experiment.arms) else []
    if experiment.kind != "attention":
        kinds.append("trajectory" if experiment.kind == "md17" else "labels")
    for kind in kinds:
        if kind not in named:
            raise SettingError(f"scale {scale.name} has no data of its own; give --{kind} STORE")
    used = {kind: named[kind] for kind in kinds}
    if experiment.kind == "md17" and subject not in MD17_FORMULAS:
        raise NotFoundError(f"unknown molecule {subject!r}; known: {', '.join(MD17_FORMULAS)}")
    seeds = tuple(dict.fromkeys(seeds or scale.seeds))
    runs: list[Run] = []
    for seed in seeds:
        root = out / scale.pretrain_directory / f"seed{seed}"
        runs += [_pretraining(scale, used, key, seed, root) for key in chain(experiment.arms)]
        for arm in experiment.arms if experiment.kind != "attention" else ():
            init = None if arm in FROM_SCRATCH else root / arm
            runs.append(_finetuning(experiment, scale, used, subject, arm, seed, out, init, labels))
    return Plan(experiment, subject, scale, seeds, used, out, tuple(runs), labels)


def _pretraining(scale: Scale, stores: Mapping[str, str], key: str, seed: int, root: Path) -> Run:
    variant = VARIANTS[key]
    store = stores["structures" if variant.section == "stage1" else "spectra"]
    changes = {"data.store": store, "loop.seed": seed, **variant.changes}
    if variant.parent is not None:
        changes["init"] = str(root / variant.parent)
    config = from_dict(PretrainConfig, _with(scale.settings(variant.section), changes), f"scale {scale.name}")
    return Run(key, seed, root / key, adopted(config, root / key), variant.cost)


def _finetuning(
    experiment: Experiment,
    scale: Scale,
    stores: Mapping[str, str],
    subject: str,
    arm: str,
    seed: int,
    out: Path,
    init: Path | None,
    labels: int | None,
) -> Run:
    is_forces = experiment.kind == "md17"
    changes = {
        "target": "energy" if is_forces else subject,
        "forces": is_forces,
        "data.store": stores["trajectory" if is_forces else "labels"],
        "loop.seed": seed,
        "init": None if init is None else str(init),
        **(FROM_SCRATCH[arm].changes if init is None else {}),
    }
    if labels is not None:
        changes |= {"data.train_rows": labels, "loop.steps": scale.sizes[labels]}
    settings = _with(scale.settings(experiment.kind), changes)
    directory = out / subject / (f"labels-{labels}" if labels else "") / f"{arm}-seed{seed}"
    config = resolved(from_dict(FinetuneConfig, settings, f"scale {scale.name}"))
    cost = arm if experiment.kind == "pilot" or arm in FLOORS else experiment.kind
    return Run(arm, seed, directory, adopted(config, directory), cost)


def _with(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes by dotted name."""
    for name, value in changes.items():
        settings = merged(settings, nested(name, value))
    return dict(settings)


def adopted(config: Config, directory: Path) -> Config:
    """Return the settings with `init` spelt as in an earlier session of the run, if the path is the same."""
    path = directory / "config.json"
    before = read_json(path).get("init") if path.is_file() else None
    if before and config.init and Path(before).resolve() == Path(config.init).resolve():
        return dataclasses.replace(config, init=before)
    return config


def check(plan: Plan) -> None:
    """Check that the data have what the runs need, and that existing runs have the same settings and data.

    Raises:
        NotFoundError: a store lacks a property, spectra or forces.
        MismatchError: an existing run has other settings or data, or a trajectory is of another molecule.
    """
    stores = {kind: open_store(name) for kind, name in plan.stores.items()}
    if "labels" in stores:
        _check_target(plan, stores["labels"])
    if "trajectory" in stores:
        _check_trajectory(plan, stores["trajectory"])
    by_name = {plan.stores[kind]: store for kind, store in stores.items()}
    for run in plan.runs:
        _check_spectra(run, by_name[run.config.data.store])
    for run in plan.runs:
        if (run.directory / "config.json").is_file():
            _check_existing(run, by_name[run.config.data.store])


def _check_existing(run: Run, store: Store) -> None:
    """Check that a run that already exists has the planned settings and data."""
    path = run.directory / "config.json"
    before = from_dict(type(run.config), read_json(path), str(path))
    difference = first_difference(to_dict(before), to_dict(run.config))
    if difference:
        raise MismatchError(
            f"{run.directory}: is there with other settings: {difference}; use another --out, or the same "
            "--scale and --set"
        )
    if read_json(run.directory / "record.json")["data"]["hash"] != store.hash:
        raise MismatchError(
            f"{run.directory}: was made on other data than {run.config.data.store}; use another --out"
        )


def _check_target(plan: Plan, store: Store) -> None:
    available = store.metadata.properties
    if plan.subject not in available:
        known = "" if plan.subject in QM9_UNITS else f" (the published ones: {', '.join(QM9_UNITS)})"
        raise NotFoundError(
            f"{plan.stores['labels']}: no property {plan.subject!r} in it; "
            f"it has: {', '.join(available)}{known}"
        )


def _check_spectra(run: Run, store: Store) -> None:
    encoder, available = run.config.model.spectrum_encoder, store.metadata.modalities
    for name in encoder.modalities if encoder else ():
        if name not in available:
            known = ", ".join(available) or "none"
            raise NotFoundError(
                f"{run.config.data.store}: no {name} spectra in it, which {run.name} needs; it has: {known}"
            )


def _check_trajectory(plan: Plan, store: Store) -> None:
    name = plan.stores["trajectory"]
    if "energy" not in store.metadata.properties or store.metadata.forces is None:
        available = ", ".join(store.metadata.targets) or "neither"
        raise NotFoundError(f"{name}: a trajectory with energy and forces is needed; it has: {available}")
    actual, expected = store.molecule(0).formula, MD17_FORMULAS[plan.subject]
    if actual != expected:
        raise MismatchError(
            f"{name}: frames of {actual}, but {plan.subject} is {expected}; give --trajectory"
        )
