"""Whole runs: from a configuration to a run directory with checkpoints, metrics and a record.

A run directory holds `record.json`, `config.json`, `metrics.csv` and `checkpoints/`, after pre-training also
`seen.safetensors`: which molecules it has seen.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from molspectra.compiled import use_setting
from molspectra.data.atomic import naming
from molspectra.data.augment import SpectraConfig
from molspectra.data.store.internal import with_internal
from molspectra.data.stream import BatchStream
from molspectra.errors import InputError
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import initialise, newest
from molspectra.training.config import FinetuneConfig, LoopConfig, PretrainConfig
from molspectra.training.data import BatchMaker, Selection, elements_of
from molspectra.training.leaks import compare_seen
from molspectra.training.loop import Trainer
from molspectra.training.record import (
    MetricLog,
    commit,
    kernels_used,
    machine,
    read_json,
    versions,
    write_json,
)
from molspectra.training.seen import SEEN, own_seen, seen_by
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.stages import FinetuneStage, PretrainStage, Stage
from molspectra.training.standardise import standardise
from molspectra.training.targets import resolved

RunConfig = PretrainConfig | FinetuneConfig

MAY_DIFFER = ("data.store", "data.workers", "data.allow_leak", "loop.tensorboard")
"""Settings that a resumed run may change; of the store the content is compared."""


SESSION = ("versions", "commit", "machine", "device", "processes", "kernels")
"""What the record keeps of every session of a run that was resumed."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run tells."""

    directory: Path
    """The run directory."""
    metrics: dict[str, float]
    """Losses of the last validation."""
    seconds: float
    """Wall time of this call."""
    rank: int = 0
    """Place of this process among those of the run; the first has written the files."""


def pretrain(
    config: PretrainConfig, out: str | Path, *, resume: bool = False, show: bool = True
) -> RunResult:
    """Pre-train: stage 1, or stage 2 where the model has a spectrum encoder.

    Args:
        config: the run's settings.
        out: run directory to make.
        resume: continue the run that is there, with the same settings and data; start it where there is none,
            and do nothing where it is finished.
        show: progress on standard error.

    Raises:
        InputError: settings, data or directory that do not fit.
        NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
        Interrupted: the run was asked to stop; its state is saved.
    """

    def build(model: MolSpectra, selection: Selection) -> Stage:
        return PretrainStage(model, config)

    spectra = config.model.spectrum_encoder
    about = {"stage": "stage2" if spectra else "stage1"}
    needs = ((), spectra.modalities if spectra else ())
    return _run(config, Path(out), build, needs, about, resume, show)


def finetune(
    config: FinetuneConfig, out: str | Path, *, resume: bool = False, show: bool = True
) -> RunResult:
    """Fine-tune on a property, optionally with forces; arguments and errors as in `pretrain`."""
    config = resolved(config)

    def build(model: MolSpectra, selection: Selection) -> Stage:
        standardise(model, selection, config.target)
        return FinetuneStage(model, config)

    targets = (config.target, "forces") if config.forces else (config.target,)
    about: dict[str, Any] = {"stage": "finetune", "target": config.target}
    spectra = config.model.spectrum_encoder if config.model.spectrum_input else None
    if spectra is not None:
        about["spectrum_input"] = list(spectra.modalities)  # another task: spectra must be known to predict
    needs = (targets, spectra.modalities if spectra else ())
    return _run(config, Path(out), build, needs, about, resume, show)


def _run(config: RunConfig, *arguments: Any) -> RunResult:
    """See `_run_with_kernels`; with the kernels that the settings choose."""
    with use_setting(config.loop.kernels):
        return _run_with_kernels(config, *arguments)


def _run_with_kernels(
    config: RunConfig,
    out: Path,
    build: Callable[[MolSpectra, Selection], Stage],
    needs: tuple[tuple[str, ...], tuple[str, ...]],
    about: dict[str, Any],
    resume: bool,
    show: bool,
) -> RunResult:
    """Train the stage that `build` makes; `needs` are the targets and modalities that the store must have."""
    began = time.perf_counter()
    earlier = _earlier_record(out, config, resume)
    if earlier.get("finished"):
        return RunResult(out, dict(earlier["validation"]), 0.0)
    fabric = _launched(config.loop)
    selection = Selection.of(config.data, *needs)
    _compare_data(out, earlier, config, selection)
    is_started = newest(out / "checkpoints") is not None
    seen = {} if is_started else compare_seen(config, selection)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        model = MolSpectra(config.model)
    if is_started:
        about = dict(earlier["about"])
    elif config.init is not None:
        about["initialised"] = {"from": str(config.init), "parts": initialise(model, config.init)}
    stage = build(model, selection)
    if stage.internal:
        with fabric.rank_zero_first():  # one process makes what is missing, the others find it
            selection = replace(selection, store=with_internal(selection.store, show=show))
    if not is_started:
        about |= _described(selection, stage.targets)
    trainer = _trainer(config, fabric, stage, selection, out, about, show)
    record = _record(config, selection, about, fabric) | seen
    if is_started:
        trainer.resume()
        if show and trainer.ranks.rank == 0:
            print(
                f"{out}: continues from step {trainer.step}{_other_kernels(earlier, record)}", file=sys.stderr
            )
    elif selection.lacking and show and trainer.ranks.rank == 0:
        left = f"{selection.lacking} of its {len(selection.store)} rows have no {stage.targets[0]}"
        print(f"{config.data.store}: {left} and are left out", file=sys.stderr)

    if is_started:
        session = {name: record[name] for name in SESSION}
        record = earlier | {"resumed": [*earlier.get("resumed", ()), {"step": trainer.step, **session}]}
    if fabric.global_rank > 0:
        return RunResult(out, _train(trainer, None), time.perf_counter() - began, fabric.global_rank)
    with naming(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json(out / "record.json", record)
    write_json(out / "config.json", to_dict(config))
    _keep_seen(config, selection, out, about["stage"])
    with closing(MetricLog(out, trainer.step, config.loop.tensorboard)) as log:
        metrics = _train(trainer, log)
    seconds = time.perf_counter() - began
    outcome = {"steps": trainer.step, "seconds": round(log.before + seconds, 2), "validation": metrics}
    write_json(out / "record.json", record | outcome | {"finished": True})
    return RunResult(out, metrics, seconds)


def _described(selection: Selection, targets: tuple[str, ...]) -> dict[str, Any]:
    """What a model's predictions need to be read by: elements, units and levels of theory of its training."""
    metadata = selection.store.metadata
    found: dict[str, Any] = {"elements": elements_of(selection.store, selection.train)}
    if targets:
        found |= asdict(metadata.properties[targets[0]])
    if "forces" in targets and metadata.forces is not None:
        found["forces"] = asdict(metadata.forces)
    return found


def _keep_seen(config: RunConfig, selection: Selection, out: Path, stage: str) -> None:
    """Leave in a pre-training run which molecules it sees, with those of the runs that it started from."""
    if isinstance(config, FinetuneConfig) or (out / SEEN).is_file():
        return
    seen = own_seen(config, selection, out, stage)
    (seen if config.init is None else seen.merged(seen_by(config.init))).save(out / SEEN)


def _train(trainer: Trainer, log: MetricLog | None) -> dict[str, float]:
    """Run to the end; a run that was cut off after its last step is only validated again."""
    return trainer.run(log) or trainer.validate()


def _earlier_record(out: Path, config: RunConfig, resume: bool) -> dict[str, Any]:
    """The record of the run that is to be continued; empty where there is none.

    Raises:
        InputError: the directory is in use and `resume` was not asked for, or its settings are others.
    """
    if config.loop.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError("loop.tensorboard: needs tensorboard (pip install tensorboard)")
    if not out.exists():
        return {}
    if not out.is_dir():
        raise InputError(f"{out}: is a file; choose a directory")
    if not any(out.iterdir()):
        return {}
    if not resume:
        raise InputError(f"{out}: exists already; continue it with --resume or choose another directory")
    if not (out / "config.json").is_file():
        raise InputError(f"{out}: holds no run that could be resumed (no config.json)")
    before = from_dict(type(config), read_json(out / "config.json"), str(out / "config.json"))
    difference = _difference(to_dict(before), to_dict(config))
    if difference:
        raise InputError(f"{out}: cannot resume with other settings: {difference}")
    record = read_json(out / "record.json")
    if not isinstance(record, dict) or not {"about", "data"} <= record.keys():
        raise InputError(f"{out / 'record.json'}: not the record of a run")
    return record


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first setting in which two configurations differ, or ""; those of `MAY_DIFFER` do not count."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            found = "" if name in MAY_DIFFER else _difference(before.get(key), now.get(key), name)
            if found:
                return found
        return ""
    return "" if before == now else f"{where} was {before!r} and is {now!r} now"


def _other_kernels(earlier: dict[str, Any], record: dict[str, Any]) -> str:
    """What to say where the last session of a run had other kernels than this one; else ""."""
    before = [earlier, *earlier.get("resumed", ())][-1].get("kernels", "plain")  # there was nothing else once
    if before == record["kernels"]:
        return ""
    return (
        f" with {record['kernels']} kernels instead of {before}: equal to an unbroken run only up to rounding"
    )


def _compare_data(out: Path, earlier: dict[str, Any], config: RunConfig, selection: Selection) -> None:
    """Refuse to continue with other data than those that the run began with.

    Raises:
        InputError: the hash of the store is not that of the record.
    """
    known, found = earlier and earlier["data"].get("hash"), selection.store.hash
    if earlier and known != found:
        contents = f"its content is {found[:12]}, that of the run {str(known)[:12]}"
        raise InputError(f"{config.data.store}: not the data that {out} began with: {contents}")


def _launched(loop: LoopConfig) -> Fabric:
    """Devices, precision and processes of a run.

    Raises:
        InputError: this machine does not have them.
    """
    try:
        fabric = Fabric(accelerator=loop.accelerator, devices=loop.devices, precision=loop.precision)
        fabric.launch()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        wanted = f"loop: {loop.devices} devices of kind {loop.accelerator!r} with {loop.precision}"
        reason = " ".join(str(error).split())
        raise InputError(f"{wanted} cannot be used: {reason}") from error
    return fabric


def _trainer(
    config: RunConfig,
    fabric: Fabric,
    stage: Stage,
    selection: Selection,
    out: Path,
    about: dict[str, Any],
    show: bool,
) -> Trainer:
    loop = config.loop
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
        spectra=config.spectra if isinstance(config, PretrainConfig) else SpectraConfig(),
    )
    workers = config.data.workers
    return Trainer(fabric, stage, maker, selection.val, loop, config.optimizer, out, about, workers, show)


def _record(config: RunConfig, selection: Selection, about: dict[str, Any], fabric: Fabric) -> dict[str, Any]:
    """Everything that a published number needs to carry."""
    parts = ("train", "val", "test")
    device = fabric.device
    return {
        "config": to_dict(config),
        "about": about,
        "seed": config.loop.seed,
        "data": {
            "store": config.data.store,
            "hash": selection.store.hash,
            "rows": {part: len(getattr(selection, part)) for part in parts},
            "rows_without_target": selection.lacking,
        },
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": fabric.world_size,
        "kernels": kernels_used(device, config.loop.precision),
        "finished": False,
        "seconds": None,
    }
