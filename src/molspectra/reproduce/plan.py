"""The runs of an experiment in order, each with its settings, and what is there of them already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.published import QM9_UNITS
from molspectra.reporting.tables import flatten
from molspectra.reproduce.experiments import FROM_SCRATCH, VARIANTS, Experiment, chain
from molspectra.reproduce.scales import Scale, merged, nested
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import open_store
from molspectra.training.provenance import MAY_DIFFER
from molspectra.training.record import read_json
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.targets import resolved

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

FORMULAS = {
    "aspirin": "C9H8O4",
    "benzene": "C6H6",
    "ethanol": "C2H6O",
    "malonaldehyde": "C3H4O2",
    "naphthalene": "C10H8",
    "salicylic": "C7H6O3",
    "toluene": "C7H8",
    "uracil": "C4H4N2O2",
}
"""Molecules of MD17."""


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        arm: "scratch" or a key of `VARIANTS`: what it starts from, or for pre-training what it is.
        seed: of the run.
        directory: the run directory.
        config: its settings.
        cost: which rough time per step holds.
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
        """For people: "pretrain/stage1 seed 0" or "gap/control seed 0"."""
        if isinstance(self.config, PretrainConfig):
            return f"pretrain/{self.arm} seed {self.seed}"
        return f"{self.directory.parent.name}/{self.arm} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """An experiment at a scale, on its data, in a directory.

    Attributes:
        experiment: what is repeated.
        subject: the property or the molecule.
        scale: how much of everything.
        seeds: of the runs.
        stores: data by kind.
        out: directory.
        runs: in the order in which they are made.
    """

    experiment: Experiment
    subject: str
    scale: Scale
    seeds: tuple[int, ...]
    stores: Mapping[str, str]
    out: Path
    runs: tuple[Run, ...]

    @property
    def stem(self) -> str:
        """Name of the result files without suffix."""
        return f"{self.experiment.key}-{self.subject}" if self.subject else self.experiment.key


def make_plan(
    experiment: Experiment,
    subject: str,
    scale: Scale,
    out: Path,
    stores: Mapping[str, str],
    seeds: Sequence[int] = (),
) -> Plan:
    """The runs of an experiment, seed by seed, so that an unfinished one is still paired.

    Args:
        experiment: what to repeat.
        subject: property (kinds "qm9" and "pilot") or molecule (kind "md17").
        scale: how much of everything.
        out: directory; several experiments may share it, and then share the pre-training runs.
        stores: data by kind (see `STORES`) in place of the scale's own.
        seeds: in place of the scale's own.

    Raises:
        InputError: data that are not named, an unknown property or molecule, or settings that do not fit.
    """
    chosen = dict(scale.stores) | dict(stores)
    kinds = {"qm9": ("labels",), "md17": ("trajectory",), "pilot": ("labels",), "attention": ()}[
        experiment.kind
    ]
    if chain(experiment.arms):
        kinds = ("structures", "spectra", *kinds)
    used = {}
    for kind in kinds:
        if kind not in chosen:
            raise InputError(f"scale {scale.name} has no data of its own; give --{kind} STORE")
        used[kind] = chosen[kind]
    if experiment.kind == "md17" and subject not in FORMULAS:
        raise InputError(f"unknown molecule {subject!r}; known: {', '.join(FORMULAS)}")
    numbers = tuple(dict.fromkeys(seeds or scale.seeds))
    runs: list[Run] = []
    for seed in numbers:
        root = out / scale.pretrain_directory / f"seed{seed}"
        runs += [_pretraining(scale, used, key, seed, root) for key in chain(experiment.arms)]
        for arm in experiment.arms if experiment.kind != "attention" else ():
            init = None if arm in FROM_SCRATCH else root / arm
            runs.append(_finetuning(experiment, scale, used, subject, arm, seed, out, init))
    return Plan(experiment, subject, scale, numbers, used, out, tuple(runs))


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
) -> Run:
    is_forces = experiment.kind == "md17"
    target = "energy" if is_forces else subject
    changes = {
        "target": target,
        "forces": is_forces,
        "data.store": stores["trajectory" if is_forces else "labels"],
        "loop.seed": seed,
        "init": None if init is None else str(init),
        **(FROM_SCRATCH[arm].changes if arm in FROM_SCRATCH else {}),
    }
    settings = _with(scale.settings(experiment.kind), changes)
    directory = out / subject / f"{arm}-seed{seed}"
    config = resolved(from_dict(FinetuneConfig, settings, f"scale {scale.name}"))
    cost = experiment.kind if experiment.kind != "pilot" else arm
    return Run(arm, seed, directory, adopted(config, directory), cost)


def _with(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    for name, value in changes.items():
        found = merged(found, nested(name, value))
    return found


def adopted(config: Config, directory: Path) -> Config:
    """The settings with `init` spelt as an earlier session of the run did, if it means the same place."""
    path = directory / "config.json"
    before = read_json(path).get("init") if path.is_file() else None
    if before and config.init and Path(before).resolve() == Path(config.init).resolve():
        return dataclasses.replace(config, init=before)
    return config


def check(plan: Plan) -> None:
    """Refuse data that lack what the runs need, and runs that are there with other settings or data.

    Raises:
        InputError: naming the store or the run directory.
    """
    stores = {kind: open_store(name) for kind, name in plan.stores.items()}
    if "labels" in stores:
        _check_target(plan, stores["labels"])
    if "trajectory" in stores:
        _check_trajectory(plan, stores["trajectory"])
    by_name = {plan.stores[kind]: store for kind, store in stores.items()}
    for run in plan.runs:
        _check_spectra(run, by_name[run.config.data.store])
    hashes = {name: stores[kind].hash for kind, name in plan.stores.items()}
    for run in plan.runs:
        path = run.directory / "config.json"
        if not path.is_file():
            continue
        kind = type(run.config)
        before = flatten(to_dict(from_dict(kind, read_json(path), str(path))))
        now = flatten(to_dict(run.config))
        differing = [
            name
            for name in sorted(before.keys() | now.keys())
            if name not in MAY_DIFFER and before.get(name) != now.get(name)
        ]
        if differing:
            name = differing[0]
            raise InputError(
                f"{run.directory}: is there with other settings: {name} was {before.get(name)!r} and is "
                f"{now.get(name)!r} now; use another --out, or the same --scale and --set"
            )
        known = read_json(run.directory / "record.json")["data"]["hash"]
        if known != hashes[run.config.data.store]:
            raise InputError(
                f"{run.directory}: was made on other data than {run.config.data.store}; use another --out"
            )


def _check_target(plan: Plan, store: Store) -> None:
    there = store.metadata.properties
    if plan.subject not in there:
        known = "" if plan.subject in QM9_UNITS else f" (the published ones: {', '.join(QM9_UNITS)})"
        raise InputError(
            f"{plan.stores['labels']}: no property {plan.subject!r} in it; it has: {', '.join(there)}{known}"
        )


def _check_spectra(run: Run, store: Store) -> None:
    encoder, there = run.config.model.spectrum_encoder, store.metadata.modalities
    for name in encoder.modalities if encoder else ():
        if name not in there:
            known = ", ".join(there) or "none"
            raise InputError(
                f"{run.config.data.store}: no {name} spectra in it, which {run.name} needs; it has: {known}"
            )


def _check_trajectory(plan: Plan, store: Store) -> None:
    name = plan.stores["trajectory"]
    if "energy" not in store.metadata.properties or store.metadata.forces is None:
        there = ", ".join(store.metadata.targets) or "neither"
        raise InputError(f"{name}: a trajectory with energy and forces is needed; it has: {there}")
    found, wanted = store.molecule(0).formula, FORMULAS[plan.subject]
    if found != wanted:
        raise InputError(f"{name}: frames of {found}, but {plan.subject} is {wanted}; give --trajectory")
