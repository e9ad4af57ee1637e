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

POLARISABILITY_UNITS = {"a0^3": BOHR**3, "bohr^3": BOHR**3, "Å^3": 1.0}
"""Å³ per unit of a column."""

SYMMETRIC = [[0, 3, 4], [3, 1, 5], [4, 5, 2]]
"""Place of each element of a symmetric tensor among its six components, see `COMPONENTS`."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A fine-tuned model, ready for predictions.

    Attributes:
        model: without gradients of its weights, in evaluation mode, in its precision, on its device.
        head: place of the head among those of the model.
        factor: eV, e·Å or Å³ per unit of its target.
        elements: atomic numbers of its training set; where they are unknown, all that have an embedding.
    """

    model: MolSpectra
    head: int
    factor: float
    elements: frozenset[int]


def open_learned(
    run: Run,
    quantity: Literal["energy", "dipole", "polarisability"],
    dtype: Precision,
    device: str,
    checkpoint: Literal["best", "last"],
) -> Learned:
    """A copy of a model of an energy, a dipole moment or a polarisability, in a precision and on a device.

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
        article = "an" if quantity == "energy" else "a"
        raise MismatchError(f"{where}: has no property head; fine-tune it on {article} {quantity} first")
    if model.input_spectra:
        raise MismatchError(f"{where}: takes spectra as input, which no moving molecule has")
    kinds = [head.property for head in property_heads(model.config)]
    # forces are the gradient of the first property; a dipole or a polarisability may be any other
    wanted = {"energy": (), "dipole": ("vector", "dipole"), "polarisability": ("tensor",)}[quantity]
    place = next((kinds.index(kind) for kind in wanted if kind in kinds), 0)
    column = sum(one.width for one in model.property_heads[:place])
    head, (target, quantity_of_target) = kinds[place], list(quantities_of(about).items())[column]
    unit = quantity_of_target.unit
    if quantity == "energy" and (head != "scalar" or target in NO_SURFACE or unit not in UNITS):
        raise MismatchError(
            f"{where}: predicts {target!r} in {unit!r}, which is no potential energy; "
            f"fine-tune on a total energy in {', '.join(UNITS)}, with forces"
        )
    if quantity == "dipole" and (head not in wanted or unit not in DIPOLE_UNITS):
        raise MismatchError(
            f"{where}: predicts {target!r} in {unit!r} by the {head} head, which is no dipole; fine-tune on "
            f"one in {', '.join(DIPOLE_UNITS)} with --vectors, or on its length with model.property dipole"
        )
    if quantity == "polarisability" and (head not in wanted or unit not in POLARISABILITY_UNITS):
        raise MismatchError(
            f"{where}: predicts {target!r} in {unit!r} by the {head} head, which is no polarisability; "
            f"fine-tune on one in {', '.join(POLARISABILITY_UNITS)} with --tensors"
        )
    copy = deepcopy(model).eval().requires_grad_(False).to(getattr(torch, dtype))
    for mine, theirs in zip(copy.property_heads, model.property_heads, strict=True):
        mine.references = deepcopy(theirs.references)  # energies need float64
    elements = trained_elements(about)
    if elements is None:
        elements = frozenset(range(1, model.config.encoder.max_number + 1))
    factors = {"dipole": DIPOLE_UNITS, "polarisability": POLARISABILITY_UNITS}
    factor = HARTREE / UNITS[unit] if quantity == "energy" else factors[quantity][unit]
    return Learned(moved(copy, device), place, factor, elements)
