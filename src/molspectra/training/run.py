"""Whole runs: from a configuration to a run directory with checkpoints, metrics and a record.

A run directory holds `config.json`, `record.json`, `metrics.csv` and `checkpoints/`.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from molspectra.data.stream import BatchStream
from molspectra.errors import InputError
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import initialise, newest
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import BatchMaker, Selection
from molspectra.training.loop import Trainer
from molspectra.training.record import commit, machine, read_json, versions, write_json
from molspectra.training.settings import to_dict
from molspectra.training.stages import FinetuneStage, PretrainStage, Stage

RunConfig = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class RunResult:
    """What a finished run tells."""

    directory: Path
    """The run directory."""
    metrics: dict[str, float]
    """Losses of the last validation."""
    seconds: float
    """Wall time of this call."""


def pretrain(
    config: PretrainConfig, out: str | Path, *, resume: bool = False, show: bool = True
) -> RunResult:
    """Pre-train: stage 1, or stage 2 where the model has a spectrum encoder.

    Args:
        config: the run's settings.
        out: run directory to make.
        resume: continue the run that is there; the settings must be the same.
        show: progress on standard error.

    Raises:
        InputError: settings, data or directory that do not fit.
        NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
        Interrupted: the run was asked to stop; its state is saved.
    """
    stage = "stage2" if config.model.spectrum_encoder else "stage1"

    def build(model: MolSpectra, selection: Selection) -> Stage:
        return PretrainStage(model, config)

    return _run(config, Path(out), build, (), {"stage": stage}, resume, show)


def finetune(
    config: FinetuneConfig, out: str | Path, *, resume: bool = False, show: bool = True
) -> RunResult:
    """Fine-tune on a property, optionally with forces; arguments and errors as in `pretrain`."""
    targets = (config.target, "forces") if config.forces else (config.target,)

    def build(model: MolSpectra, selection: Selection) -> Stage:
        values = selection.store.column(config.target)[selection.train]
        assert model.property_head is not None
        model.property_head.standardise(float(values.mean()), float(values.std()))
        return FinetuneStage(model, config)

    return _run(
        config, Path(out), build, targets, {"stage": "finetune", "target": config.target}, resume, show
    )


def _run(
    config: RunConfig,
    out: Path,
    build: Callable[[MolSpectra, Selection], Stage],
    targets: tuple[str, ...],
    about: dict[str, Any],
    resume: bool,
    show: bool,
) -> RunResult:
    began = time.perf_counter()
    started = _prepare_directory(out, config, resume)
    loop = config.loop
    fabric = Fabric(accelerator=loop.accelerator, devices=loop.devices, precision=loop.precision)
    fabric.launch()
    selection = Selection.of(config.data, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(loop.seed)
        model = MolSpectra(config.model)
    if config.init is not None:
        about["initialised"] = {"from": str(config.init), "parts": initialise(model, config.init)}
    stage = build(model, selection)
    if targets:
        about["unit"] = selection.store.metadata.properties[targets[0]].unit
    maker = BatchMaker(
        store=selection.store,
        rows=selection.train,
        stream=BatchStream(len(selection.train), loop.batch_size, loop.seed),
        modalities=stage.modalities,
        targets=stage.targets,
        seed=loop.seed,
        accumulation=loop.accumulation,
        world=fabric.world_size,
        rank=fabric.global_rank,
    )
    trainer = Trainer(
        fabric, stage, maker, selection.val, loop, config.optimizer, out, about, config.data.workers, show
    )
    if started:
        trainer.resume()
    record = _record(config, selection, about, fabric.world_size)
    if fabric.global_rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", to_dict(config))
        write_json(out / "record.json", record)
    metrics = trainer.run() or trainer.validate()
    seconds = time.perf_counter() - began
    if fabric.global_rank == 0:
        outcome = {
            "finished": True,
            "steps": trainer.step,
            "seconds": round(seconds, 2),
            "validation": metrics,
        }
        write_json(out / "record.json", record | outcome)
    return RunResult(out, metrics, seconds)


def _prepare_directory(out: Path, config: RunConfig, resume: bool) -> bool:
    """Whether there is a checkpoint to continue from.

    Raises:
        InputError: the directory is in use and `resume` was not asked for, or its settings are others.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not resume:
            raise InputError(f"{out}: exists already; continue it with --resume or choose another directory")
        if not (out / "config.json").is_file():
            raise InputError(f"{out}: holds no run that could be resumed (no config.json)")
        difference = _difference(read_json(out / "config.json"), to_dict(config))
        if difference:
            raise InputError(f"{out}: cannot resume with other settings: {difference}")
        return newest(out / "checkpoints") is not None
    return False


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first setting in which two configurations differ, or "" (workers and logging may differ)."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            if name in ("data.workers", "loop.tensorboard"):
                continue
            found = _difference(before.get(key), now.get(key), name)
            if found:
                return found
        return ""
    return "" if before == now else f"{where} was {before!r} and is {now!r} now"


def _record(config: RunConfig, selection: Selection, about: dict[str, Any], world: int) -> dict[str, Any]:
    """Everything that a published number needs to carry."""
    return {
        "config": to_dict(config),
        "about": about,
        "seed": config.loop.seed,
        "data": {
            "store": config.data.store,
            "hash": selection.store.hash,
            "rows": {
                part.name: len(getattr(selection, part.name))
                for part in dataclasses.fields(selection)
                if part.name != "store"
            },
        },
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "processes": world,
        "finished": False,
        "seconds": None,
    }
