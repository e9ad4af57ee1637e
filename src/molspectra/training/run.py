"""Whole runs: select data, build a model, initialise or resume it, train it, record it.

A run directory holds `record.json`, `config.json`, `metrics.csv` and `checkpoints/`, after pre-training also
`seen.safetensors`: which molecules the run has seen.
"""

import time
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from molspectra.compiled import use_setting
from molspectra.data.atomic import folder_lock
from molspectra.data.store.internal import with_internal
from molspectra.data.stream import BatchStream
from molspectra.errors import SettingError
from molspectra.models.limit import AllocationLimit, largest_size
from molspectra.models.model import MolSpectra
from molspectra.printable import say
from molspectra.training.checkpoint import initialise, with_encoder_of
from molspectra.training.config import FinetuneConfig, PretrainConfig, RunConfig, SpectraConfig
from molspectra.training.configuration import Config, configuration_for
from molspectra.training.data import BatchMaker, Selection, most_edges
from molspectra.training.interrupt import Interrupted
from molspectra.training.launch import connected, is_first, launch, require_agreement
from molspectra.training.loop import Trainer
from molspectra.training.provenance import Provenance
from molspectra.training.record import MetricLog, is_finished, memory
from molspectra.training.settings import to_dict
from molspectra.training.stages import FinetuneStage, PretrainStage, Stage, auroc_of, error_of
from molspectra.training.standardise import standardise
from molspectra.training.targets import classes_of, resolved
from molspectra.training.trackers import asked_for, open_trackers

MAX_TENSORS = 100_000
"""Largest number of tensors of a model that is trained; hundreds are usual."""


@dataclass(frozen=True)
class RunResult:
    """Outcome of a finished run."""

    directory: Path
    """The run directory."""
    metrics: dict[str, float]
    """Losses of the last validation."""
    seconds: float
    """Wall time of this call."""
    rank: int = 0
    """Rank of this process among those of the run; rank 0 has written the files."""


def pretrain(
    config: PretrainConfig | str | PathLike[str] | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    show: bool = True,
) -> RunResult:
    """Pre-train: stage 1, or stage 2 where the model has a spectrum encoder.

    Args:
        config: the run's settings: a configuration, such as that of `recipe`; the name of a recipe or of a
            YAML file; or a mapping of settings, nested or by the full names that the command line has. An
            encoder that is left at its default is that of `init`, where there is one.
        out: run directory to make.
        resume: continue the run that is there, with the same settings and data; start it where there is none,
            and do nothing where it is finished. More steps than it had extend it.
        show: progress on standard error.

    Raises:
        ExistsError: another process trains in this directory, or a run is there and `resume` is False.
        InputError: settings, data or directory that do not fit.
        NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
        Interrupted: the run was asked to stop; its state is saved.
    """
    chosen = configuration_for("pretrain", config, PretrainConfig)
    return _run(_started(chosen), Path(out), resume, show)


def finetune(
    config: FinetuneConfig | str | PathLike[str] | Mapping[str, Any],
    out: str | Path,
    *,
    resume: bool = False,
    show: bool = True,
) -> RunResult:
    """Fine-tune on a property, optionally with forces; arguments and errors as in `pretrain`."""
    chosen = configuration_for("finetune", config, FinetuneConfig)
    return _run(resolved(_started(chosen)), Path(out), resume, show)


def _started(config: Config) -> Config:
    """Return the settings with the encoder of `init`, unless they have one of their own."""
    return replace(config, model=with_encoder_of(config.model, config.init))


def _run(config: RunConfig, out: Path, resume: bool, show: bool) -> RunResult:
    """Train with the kernels that the settings choose."""
    asked_for(config.loop)
    is_done = resume and is_finished(out, config.loop.steps)
    writes = is_first() and not is_done  # a finished run may lie in a read-only folder
    lock = folder_lock(out, "training this run") if writes else nullcontext()
    with lock, use_setting(config.loop.kernels):
        return _run_stage(config, out, resume, show)


def _run_stage(config: RunConfig, out: Path, resume: bool, show: bool) -> RunResult:
    """Compare with what is there, start or join the processes, and train."""
    began = time.perf_counter()
    provenance = Provenance(config, out, resume=resume)
    if provenance.finished:
        if show and is_first():
            say(f"{out}: {provenance.end}", error=True)
        return RunResult(out, provenance.validation, 0.0)
    fabric = launch(provenance.config.loop)
    with connected(fabric, out):
        return _train_stage(provenance, fabric, out, began, show)


def _train_stage(provenance: Provenance, fabric: Fabric, out: Path, began: float, show: bool) -> RunResult:
    """Select, build, initialise or resume, train, record."""
    config = provenance.config
    is_first = fabric.global_rank == 0

    # Select the rows, and compare them with those of the runs before.
    selection = _select(config)
    selection.store.verify()
    provenance.compare_data(selection)
    if not provenance.resumed:
        selection.check_plausible(_modalities(config))

    # Build the model, start it from another run where asked to, and add the objectives of its stage.
    model = _new_model(config)
    if config.init is not None and not provenance.resumed:
        parts = initialise(model, config.init)
        provenance.about["initialised"] = {"from": str(config.init), "parts": parts}
    stage = _new_stage(config, model, selection)
    if stage.internal:
        with fabric.rank_zero_first():  # one process makes what is missing, the others read it
            selection = replace(selection, store=with_internal(selection.store, show=show))
    provenance.describe(selection, stage.targets)

    # Resume.
    about, run_id = provenance.about, provenance.run_id
    trainer = new_trainer(config, fabric, stage, selection, out, about, show, run_id)
    if provenance.resumed:
        trainer.resume()
    require_agreement(trainer.ranks, out, trainer.step, selection.store.hash)
    if show and is_first:
        _print_start(config, trainer, provenance, selection)

    # Train and record.
    provenance.begin(selection, fabric, trainer.step, trainer.weights())
    if not is_first:
        return RunResult(out, _train(trainer, None), time.perf_counter() - began, fabric.global_rank)
    trackers = open_trackers(asked_for(config.loop), out, trainer.step, run_id, to_dict(config))
    with closing(MetricLog(out, trainer.step, trackers)) as log:
        try:
            metrics = _train(trainer, log)
        except Interrupted:
            provenance.stop(trainer.step)
            raise
    seconds = time.perf_counter() - began
    words = provenance.finish(trainer.step, log.before + seconds, metrics)
    if show:
        _print_errors(stage, selection, metrics)
        say(f"{out}: {words}", error=True)
    return RunResult(out, metrics, seconds)


def _select(config: RunConfig) -> Selection:
    """Split the store into parts whose rows have what the stage trains on."""
    targets: tuple[str, ...] = ()
    if isinstance(config, FinetuneConfig):
        targets = config.labels
    selection = Selection.of(config.data, targets, _modalities(config))
    if isinstance(config, FinetuneConfig):
        selection.check_classes(classes_of(config))
        selection.check_varies(config.targets)
    return selection


def _modalities(config: RunConfig) -> tuple[str, ...]:
    """Return the spectra that the stage trains on."""
    spectra = config.model.spectrum_encoder
    if spectra is None or (isinstance(config, FinetuneConfig) and not config.model.spectrum_input):
        return ()
    return spectra.modalities


def _new_model(config: RunConfig) -> MolSpectra:
    """Build the model with weights that depend on the run's seed alone.

    Raises:
        SettingError: sizes that do not fit into the memory with gradients and the optimizer's averages.
    """
    refusal = SettingError(
        f"{largest_size(config.model)}: such a model cannot be trained in the memory of this machine"
    )
    limit = AllocationLimit(MAX_TENSORS, memory() / 16, refusal)  # four float32 per weight
    with torch.random.fork_rng(devices=[]), limit:
        torch.manual_seed(config.loop.seed)
        return MolSpectra(config.model)


def _new_stage(config: RunConfig, model: MolSpectra, selection: Selection) -> Stage:
    """Put the objectives of the stage around the model."""
    if isinstance(config, PretrainConfig):
        return PretrainStage(model, config)
    standardise(model, selection, config.targets)
    metadata = selection.store.metadata
    numbers = [name for name in config.targets if name not in classes_of(config)]
    quantities = {name: metadata.properties[name] for name in numbers}
    if config.forces and metadata.forces is not None:
        quantities["forces"] = metadata.forces
    return FinetuneStage(model, config, {name: quantity.unit for name, quantity in quantities.items()})


def new_trainer(
    config: RunConfig,
    fabric: Fabric,
    stage: Stage,
    selection: Selection,
    out: Path,
    about: dict[str, Any],
    show: bool,
    run_id: str | None = None,
) -> Trainer:
    """Put together the loop of a run: batches of its training rows, its stage, its settings."""
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
        keep_clean=stage.predicts_spectra,
        edge_budget=loop.edge_budget,
    )
    workers = config.data.workers
    rows, optimizer = selection.val, config.optimizer
    return Trainer(fabric, stage, maker, rows, loop, optimizer, out, about, workers, show, run_id)


def _print_start(config: RunConfig, trainer: Trainer, provenance: Provenance, selection: Selection) -> None:
    """Print to standard error where a resumed run goes on, or what is odd in the target of a new one."""
    if provenance.resumed:
        kernels = provenance.changed_kernels(trainer.fabric)
        say(f"{trainer.directory}: continues from step {trainer.step}{kernels}", error=True)
        if provenance.extended_from is not None:
            say(_on_extension(config, provenance.extended_from), error=True)
    else:
        for remark in _remarks(config, selection):
            say(f"{config.data.store}: {remark}", error=True)
    weights = trainer.weights()
    if weights["frozen"]:
        say(f"{weights['trained']:,} weights are trained and {weights['frozen']:,} are frozen", error=True)


def _remarks(config: RunConfig, selection: Selection) -> list[str]:
    """Return what a user should know of the rows before they are trained on."""
    if isinstance(config, FinetuneConfig):
        remarks = selection.remarks(config.targets, config.forces, classes_of(config))
    else:
        remarks = selection.remarks(())
    edges, budget = most_edges(selection.store)[selection.train], config.loop.edge_budget
    if over := int((edges > budget).sum()) if budget else 0:
        remarks.append(
            f"{over} of its {len(edges)} training rows have more edges than the loop.edge_budget of "
            f"{budget:,} (row {selection.train[edges.argmax()]} has {edges.max():,}) and get a micro-batch "
            "each"
        )
    return remarks


def _on_extension(config: RunConfig, before: int) -> str:
    """Return what more steps mean for the learning rate, in words."""
    schedule, loop = config.optimizer.schedule, config.loop
    words = f"{loop.steps} steps instead of {before}"
    if schedule.kind in ("cosine", "restarts") and not schedule.length:
        kind = f"{schedule.kind} schedule of that length"
        return f"{words}: the learning rate goes on as in a {kind}, and began as in a shorter one"
    return f"{words}: the same as if the run had been one of {loop.steps} from the start"


def _print_errors(stage: Stage, selection: Selection, metrics: Mapping[str, float]) -> None:
    """Print the errors of the last validation to standard error, beside those of the best constant.

    Of classes print the area under the receiver operating characteristic, beside the share of ones.
    """
    for name, unit in stage.units.items():
        if name == "forces" or error_of(name) not in metrics:
            continue
        values = selection.store.column(name)
        constant = np.nanmedian(values[selection.train])
        error = float(np.nanmean(np.abs(values[selection.val] - constant)))
        found = f"{name}: MAE {metrics[error_of(name)]:.4g} {unit}".strip()
        say(f"{found} on the validation part (a constant: {error:.4g})", error=True)
    for name in stage.classes:
        labels = selection.store.column(name)[selection.val]
        labels = labels[~np.isnan(labels)]
        if (area := metrics.get(auroc_of(name))) is not None:
            rate = f"base rate {labels.mean():.3g}"
            say(f"{name}: AUROC {area:.3g} on the validation part ({rate})", error=True)
        else:
            what = (
                f"all {len(labels)} labels of it are {labels[0]:g}" if len(labels) else "no row of it has one"
            )
            say(f"{name}: no AUROC on the validation part: {what}", error=True)


def _train(trainer: Trainer, log: MetricLog | None) -> dict[str, float]:
    """Run to the end; a run that was cut off after its last step is only validated again."""
    return trainer.run(log) or trainer.validate()
