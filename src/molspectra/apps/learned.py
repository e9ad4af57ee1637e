"""Fine-tuned models as potential energies and dipole moments in ASE's units."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from molspectra.errors import MismatchError, SettingError
from molspectra.evaluation.embedding import trained_elements
from molspectra.evaluation.predict import moved
from molspectra.models.model import MolSpectra, property_heads
from molspectra.simulation.units import BOHR, DEBYE, HARTREE
from molspectra.training.checkpoint import load_model
from molspectra.training.targets import UNITS, quantities_of

Run = str | Path | tuple[MolSpectra, Mapping[str, Any]]
"""A run directory, a checkpoint, or the pair that `load_model` returns."""

Precision = Literal["float32", "float64"]

NO_SURFACE = ("homo", "lumo", "gap", "zpve", "u298", "h298", "g298", "u298_atom", "h298_atom", "g298_atom")
"""Properties in units of energy whose gradients are no forces: orbitals, and averages over vibrations."""

DIPOLE_UNITS = {"D": BOHR / DEBYE, "e·Å": 1.0, "e·bohr": BOHR}
"""e·Å, the unit of ASE, per unit of a column."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A fine-tuned model, ready for predictions.

    Attributes:
        model: without gradients of its weights, in evaluation mode, in its precision, on its device.
        head: place of the head among those of the model.
        factor: eV or e·Å per unit of its target.
        elements: atomic numbers of its training set; where they are unknown, all that have an embedding.
    """

    model: MolSpectra
    head: int
    factor: float
    elements: frozenset[int]


def open_learned(
    run: Run,
    quantity: Literal["energy", "dipole"],
    dtype: Precision,
    device: str,
    checkpoint: Literal["best", "last"],
) -> Learned:
    """A copy of a model of a potential energy or a dipole moment, in a precision and on a device.

    Raises:
        InputError: no model there, one that predicts another property, or an unknown precision or device.
    """
    if dtype not in get_args(Precision):
        raise SettingError(f"dtype must be one of {', '.join(get_args(Precision))}, not {dtype!r}")
    if isinstance(run, tuple):
        (model, about), where = run, "the model"
    else:
        (model, about), where = load_model(run, checkpoint), str(run)
    if model.property_head is None:
        raise MismatchError(f"{where}: has no property head; fine-tune it on an energy first")
    if model.input_spectra:
        raise MismatchError(f"{where}: takes spectra as input, which no moving molecule has")
    kinds = [head.property for head in property_heads(model.config)]
    # forces are the gradient of the first property; a dipole may be any other
    place = kinds.index("dipole") if quantity == "dipole" and "dipole" in kinds else 0
    head, (target, quantity_of_target) = kinds[place], list(quantities_of(about).items())[place]
    unit = quantity_of_target.unit
    if quantity == "energy" and (head != "scalar" or target in NO_SURFACE or unit not in UNITS):
        raise MismatchError(
            f"{where}: predicts {target!r} in {unit!r}, which is no potential energy; "
            f"fine-tune on a total energy in {', '.join(UNITS)}, with forces"
        )
    if quantity == "dipole" and (head != "dipole" or unit not in DIPOLE_UNITS):
        raise MismatchError(
            f"{where}: predicts {target!r} in {unit!r} by the {head} head, which is no "
            f"dipole; fine-tune on one in {', '.join(DIPOLE_UNITS)} with model.property dipole"
        )
    copy = deepcopy(model).eval().requires_grad_(False).to(getattr(torch, dtype))
    for mine, theirs in zip(copy.property_heads, model.property_heads, strict=True):
        mine.references = deepcopy(theirs.references)  # energies need float64
    elements = trained_elements(about)
    if elements is None:
        elements = frozenset(range(1, model.config.encoder.max_number + 1))
    factor = HARTREE / UNITS[unit] if quantity == "energy" else DIPOLE_UNITS[unit]
    return Learned(moved(copy, device), place, factor, elements)
