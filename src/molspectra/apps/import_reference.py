"""Converts a checkpoint of the reference implementation to a run directory of this package."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molspectra.apps.reference import (
    ReferenceCheckpoint,
    config_from,
    convert_state,
    read_checkpoint,
    their_name,
)
from molspectra.data.atomic import naming
from molspectra.data.store.schema import Quantity
from molspectra.datasets.published.qm9_targets import quantities
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    SettingError,
    ValueRangeError,
)
from molspectra.models.config import ModelConfig
from molspectra.models.model import MolSpectra
from molspectra.objectives.config import AlignmentConfig, DenoisingConfig, ReconstructionConfig
from molspectra.objectives.denoising import RunningNormaliser
from molspectra.training.checkpoint import load_exactly, save_checkpoint
from molspectra.training.config import FinetuneConfig, PretrainConfig, PretrainWeights
from molspectra.training.record import commit, machine, versions, write_json
from molspectra.training.seen import SEEN, Seen
from molspectra.training.settings import to_dict

TARGETS = {
    "dipole_moment": "mu",
    "isotropic_polarizability": "alpha",
    "electronic_spatial_extent": "r2",
    "energy_U0": "u0",
    "energy_U": "u298",
    "enthalpy_H": "h298",
    "free_energy": "g298",
    "heat_capacity": "cv",
    "U0": "u0",
    "U": "u298",
    **{name: name for name in ("homo", "lumo", "gap", "zpve", "alpha", "mu", "r2", "cv")},
}
"""Columns of a store of QM9 by the reference's names of the targets."""

UNKNOWN = "not known (imported)"
_NORMALISER = "normaliser."
_PLAIN = (int, float, str, type(None))


@dataclasses.dataclass(frozen=True)
class Imported:
    """A run directory that was written from a checkpoint.

    Attributes:
        out: the run directory.
        stage: "stage1", "stage2" or "finetune".
        tensors: number of tensors of the checkpoint, all of which were used or checked.
        left_behind: parts of the file that are neither weights nor settings.
    """

    out: Path
    stage: str
    tensors: int
    left_behind: tuple[str, ...]


def import_reference(checkpoint: str | Path, out: str | Path, *, target: str | None = None) -> Imported:
    """Write a run directory with the weights and settings of a reference-layout checkpoint.

    `finetune --init`, `evaluate` (with a store) and `molspectra.load_model` read it. The state of the
    optimizer and other callbacks are left behind: training cannot be resumed, only started from it.

    Args:
        checkpoint: file of the reference implementation, or of coordinate denoising in the same layout.
        out: directory to make; it appears complete or not at all.
        target: column that a fine-tuned model predicts; None takes it from the file.

    Raises:
        InputError: not such a file; a key that is missing, left over or of another shape; settings that this
            package does not have; or `out` exists already.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    if out.exists():
        raise ExistsError(f"{out}: exists already; choose another directory")
    source = read_checkpoint(checkpoint)
    try:
        model, noise = build_model(source)
        stage = "stage1" if source.settings.get("spectra_model") is None else "stage2"
        if not source.settings.get("denoising_only", False):
            stage = "finetune"
        config = _config(source.settings, model.config, stage, target)
    except InputError as error:
        raise error.with_context(checkpoint) from error
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        raise FormatError(
            f"{checkpoint}: a hyper-parameter or tensor is missing or not of the form "
            f"that the reference writes ({reason})"
        ) from error
    hidden = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        _write(hidden, model, noise, config, stage, _about(checkpoint, source))
        with naming(out):
            hidden.rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Imported(out, stage, len(source.state), tuple(sorted(map(str, source.rest))))


def build_model(checkpoint: ReferenceCheckpoint) -> tuple[MolSpectra, dict[str, Tensor]]:
    """The model with the weights of a checkpoint, and the running statistics of its noise.

    Raises:
        InputError: naming a key that is missing, left over, of another shape or not finite.
    """
    config = config_from(checkpoint)
    state = convert_state(checkpoint.state, config.spectrum_encoder)
    model, normaliser = MolSpectra(config), RunningNormaliser()
    _check_masses(model, state)
    for name in ("property_head.mean", "property_head.std"):  # one number, as [] or [1]
        if name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(())
    if "log_scale" in model.state_dict():
        state["log_scale"] = model.log_scale.detach()  # theirs is fixed at the configured temperature
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueRangeError(f"{_key(name)} holds a value that is not a finite number")
    noise = {
        name.removeprefix(_NORMALISER): state.pop(name)
        for name in list(state)
        if name.startswith(_NORMALISER)
    }
    load_exactly(normaliser, noise, lambda name: _key(f"{_NORMALISER}{name}"))
    load_exactly(model, state, _key)
    return model, normaliser.state_dict()


def _key(name: str) -> str:
    """A tensor of our name as the checkpoint calls it, for messages."""
    return f"checkpoint key 'model.{their_name(name)}'"


def _check_masses(model: MolSpectra, state: dict[str, Tensor]) -> None:
    """Remove the atomic masses of a property head from the state after comparing them with ours."""
    masses = state.pop("property_head.masses", None)
    if masses is None or model.property_head is None:
        return
    own = model.property_head.masses[1 : len(masses)]
    theirs = masses.double()[1 : len(own) + 1]
    light = min(len(own), 54)  # later elements have no stable isotope in some tables
    if masses.ndim != 1 or not torch.allclose(theirs[:light], own[:light], rtol=2e-3):
        raise MismatchError("checkpoint key 'model.output_model.atomic_mass' differs from the atomic masses")


def _config(
    settings: Mapping[str, Any], model: ModelConfig, stage: str, target: str | None
) -> PretrainConfig | FinetuneConfig:
    """Settings of the checkpoint's run, as far as they decide how it is tested."""
    sigma = float(settings.get("position_noise_scale") or (0.04 if stage != "finetune" else 0.005))
    denoising = DenoisingConfig(sigma=sigma, centred=False, normalise="running")
    if stage != "finetune":
        ratios = settings.get("mask_ratios") or [0.1]
        return PretrainConfig(
            model=model,
            denoising=denoising,
            reconstruction=ReconstructionConfig(mask_ratio=float(ratios[0])),
            alignment=AlignmentConfig(form="reference", temperature="fixed", masked=True),
            weights=PretrainWeights(
                denoising=float(settings.get("denoising_weight", 1.0)),
                reconstruction=float(settings.get("reconstruct_weight", 1.0)),
                alignment=float(settings.get("contrastive_weight", 1.0)),
            ),
        )
    forces = bool(settings.get("derivative", False))
    own_target = "energy" if forces else TARGETS.get(str(settings.get("dataset_arg")))
    if target is None and own_target is None:
        raise SettingError(
            f"the file names the target {settings.get('dataset_arg')!r}; say with --target which column it is"
        )
    return FinetuneConfig(
        target=target or str(own_target),
        forces=forces,
        model=model,
        denoising=denoising,
        energy_weight=float(settings.get("energy_weight", 1.0)),
        force_weight=float(settings.get("force_weight", 1.0)),
        denoising_weight=float(settings.get("denoising_weight", 0.0)),
    )


def _about(checkpoint: Path, source: ReferenceCheckpoint) -> dict[str, Any]:
    """The source of the weights, for the run's record: file, progress and plain hyper-parameters."""
    plain = {
        name: value
        for name, value in source.settings.items()
        if all(isinstance(item, _PLAIN) for item in (value if isinstance(value, list) else [value]))
        and name not in ("job_id", "wandb_notes")
    }
    return {
        "file": checkpoint.name,
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        **{name: _count(source.rest.get(name)) for name in ("epoch", "global_step")},
        "hyper_parameters": plain,
        "left_behind": sorted(map(str, source.rest)),
    }


def _count(value: object) -> int | None:
    """The value if it is a whole number from 0 up, else None."""
    return value if isinstance(value, int) and value >= 0 else None


def _write(
    out: Path,
    model: MolSpectra,
    noise: Mapping[str, Tensor],
    config: PretrainConfig | FinetuneConfig,
    stage: str,
    imported: Mapping[str, Any],
) -> None:
    """Write the run directory."""
    about: dict[str, Any] = {"stage": stage, "imported": dict(imported)}
    if isinstance(config, FinetuneConfig):
        unit = quantities().get(config.target, Quantity("kcal/mol" if config.forces else UNKNOWN)).unit
        about |= {"target": config.target, "unit": unit}
        if config.forces:
            about["forces"] = {"unit": f"{unit}/Å", "level": ""}
    step = imported["global_step"] or 0
    resume = {"stage": {f"denoising.{_NORMALISER}{name}": value for name, value in noise.items()}}
    with naming(out):
        out.mkdir(parents=True)
    save_checkpoint(out / "checkpoints", "step", min(step, 999_999_999), model, about, resume)
    record = {
        "config": to_dict(config),
        "about": about,
        "seed": config.loop.seed,
        "data": {"store": UNKNOWN, "hash": UNKNOWN, "rows": {"train": 0, "val": 0, "test": 0}},
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "device": UNKNOWN,
        "processes": 1,
        "steps": step,
        "seconds": None,
        "validation": {},
        "finished": True,
    }
    write_json(out / "record.json", record)
    write_json(out / "config.json", to_dict(config))
    Seen(unknown=(f"{imported['file']} (imported)",)).save(out / SEEN)
