"""Fine-tuned models as potential energies and dipoles: what they predict, of what, in which unit."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from molspectra.chem.elements import SYMBOLS
from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError
from molspectra.evaluation.predict import moved
from molspectra.models.model import MolSpectra
from molspectra.simulation.units import BOHR, DEBYE, HARTREE
from molspectra.training.checkpoint import load_model
from molspectra.training.targets import UNITS

Run = str | Path | tuple[MolSpectra, Mapping[str, Any]]
"""A run directory, a checkpoint, or what `load_model` returns of one."""

Precision = Literal["float32", "float64"]

NO_SURFACE = ("homo", "lumo", "gap", "zpve", "u298", "h298", "g298", "u298_atom", "h298_atom", "g298_atom")
"""Properties in units of energy whose gradients are no forces: orbitals, and averages over vibrations."""

DIPOLE_UNITS = {"D": BOHR / DEBYE, "e·Å": 1.0, "e·bohr": BOHR}
"""e·Å, the unit of ASE, per unit of a column."""


@dataclass(frozen=True, eq=False)
class Learned:
    """A model ready to predict.

    Attributes:
        model: without gradients of its weights, in evaluation mode, in its precision, on its device.
        factor: what one unit of its target is, in eV or e·Å.
        elements: symbols of the elements that it was trained on; None if unknown.
    """

    model: MolSpectra
    factor: float
    elements: frozenset[str] | None

    def check(self, molecule: Molecule) -> None:
        """Refuse what the model has never seen.

        Raises:
            InputError: an element that is not in its training set, or has no embedding.
        """
        largest = self.model.config.encoder.max_number
        known = frozenset(SYMBOLS[1 : largest + 1]) if self.elements is None else self.elements
        for number, symbol in enumerate(molecule.symbols, start=1):
            if symbol not in known:
                trained = "" if self.elements is None else f", only {', '.join(sorted(known))}"
                raise InputError(f"atom {number} is {symbol}, which the model was not trained on{trained}")


def potential_energy(run: Run, dtype: Precision, device: str, checkpoint: Literal["best", "last"]) -> Learned:
    """A model of a potential energy; its `factor` leads to eV.

    Raises:
        InputError: no model there, or one that predicts something else.
    """
    model, about, where = _opened(run, checkpoint)
    target, unit = about.get("target"), str(about.get("unit"))
    if model.config.property != "scalar" or target in NO_SURFACE or unit not in UNITS:
        raise InputError(
            f"{where}: predicts {target!r} in {unit!r}, which is no potential energy; "
            f"fine-tune on a total energy in {', '.join(UNITS)}, with forces"
        )
    return _ready(model, about, HARTREE / UNITS[unit], dtype, device)


def dipole_moment(run: Run, dtype: Precision, device: str, checkpoint: Literal["best", "last"]) -> Learned:
    """A model of a dipole moment; its `factor` leads to e·Å.

    Raises:
        InputError: no model there, or one that predicts something else.
    """
    model, about, where = _opened(run, checkpoint)
    target, unit = about.get("target"), str(about.get("unit"))
    if model.config.property != "dipole" or unit not in DIPOLE_UNITS:
        raise InputError(
            f"{where}: predicts {target!r} in {unit!r} by the {model.config.property} head, which is no "
            f"dipole; fine-tune on one in {', '.join(DIPOLE_UNITS)} with model.property dipole"
        )
    return _ready(model, about, DIPOLE_UNITS[unit], dtype, device)


def _opened(run: Run, checkpoint: Literal["best", "last"]) -> tuple[MolSpectra, Mapping[str, Any], str]:
    """A model, what is known of it, and how to call it in a message."""
    model, about, where = (
        (*run, "the model") if isinstance(run, tuple) else (*load_model(run, checkpoint), str(run))
    )
    if model.property_head is None:
        raise InputError(f"{where}: has no property head; fine-tune it on an energy first")
    if model.input_spectra:
        raise InputError(f"{where}: takes spectra as input, which no moving molecule has")
    return model, about, where


def _ready(
    model: MolSpectra, about: Mapping[str, Any], factor: float, dtype: Precision, device: str
) -> Learned:
    """A copy of a model, to predict with."""
    if dtype not in get_args(Precision):
        raise InputError(f"dtype must be one of {', '.join(get_args(Precision))}, not {dtype!r}")
    copy = deepcopy(model).eval().requires_grad_(False)
    copy = copy.to(getattr(torch, dtype))
    if model.property_head is not None and copy.property_head is not None:  # energies need float64
        copy.property_head.references = deepcopy(model.property_head.references)
    elements = about.get("elements")
    return Learned(moved(copy, device), factor, None if elements is None else frozenset(elements))
