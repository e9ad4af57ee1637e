"""Infrared and Raman lines: normal modes of GFN2-xTB, intensities by a learned dipole or polarisability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from molspectra.apps.learned import SYMMETRIC, Learned, Run, open_learned
from molspectra.chem.molecule import Molecule
from molspectra.errors import MismatchError, MolspectraError
from molspectra.evaluation.embedding import batch_on_device
from molspectra.simulation.api import check_supported, levels_of_theory, minimum
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR
from molspectra.spectra.spectrum import LineSpectrum

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-12  # km/mol or Å⁴/amu, below which a mode that symmetry forbids is only rounding


def open_vector(
    run: Run, quantity: Literal["dipole", "polarisability"], device: str, checkpoint: Literal["best", "last"]
) -> Learned:
    """A model of a dipole moment or a polarisability with its direction, in float64.

    Raises:
        InputError: as in `open_learned`, or a dipole that was learnt as a length.
    """
    learned = open_learned(run, quantity, "float64", device, checkpoint)
    if learned.model.property_heads[learned.head].kind == "dipole":
        where = "the model" if isinstance(run, tuple) else run
        raise MismatchError(
            f"{where}: has learnt the length of the dipole alone; infrared intensities need its direction: "
            "fine-tune on dipole_x, dipole_y, dipole_z with --vectors dipole"
        )
    return learned


def derivatives(learned: Learned, molecule: Molecule) -> Array:
    """Derivatives of a learned dipole ∂μ_i/∂R [3N, 3], e, or polarisability ∂α_ij/∂R [3N, 3, 3], bohr².

    By automatic differentiation, a backward pass for each of the three or six components. The model's dipole
    is about the centre of mass, so that the derivatives with respect to the atoms add up to zero, as they do
    in neutral molecules; those of an ion about a fixed point add up to its charge, which no vibration sees.

    Raises:
        MolspectraError: a derivative is not finite.
    """
    model = learned.model
    centred = molecule.with_positions(molecule.positions - molecule.positions.mean(0))
    batch = batch_on_device([centred], model)
    with torch.enable_grad():
        positions = batch.positions.detach().requires_grad_(True)
        moved = batch.with_positions(positions).with_edges(model.encoder.cutoff)
        values = model.property_heads[learned.head](model.encode(moved), moved)[0]
        rows = [torch.autograd.grad(value, positions, retain_graph=True)[0] for value in values]
    found = torch.stack(rows, dim=-1).double().cpu().numpy().reshape(3 * len(molecule), -1) * learned.factor
    if not np.isfinite(found).all():
        raise MolspectraError(
            "a predicted derivative is not finite; the structure is far from the training data"
        )
    return found if found.shape[1] == 3 else found[:, SYMMETRIC] / BOHR**2


class LearnedVibrations:
    """Predicts lines of molecules at their GFN2-xTB minimum.

    Args:
        runs: by modality: of "ir" a run of the dipole, of "raman" one of the polarisability.
        device: where the networks compute.
        checkpoint: weights with the lowest validation loss ("best") or the newest ("last").

    Attributes:
        levels: level of the lines, by modality.
        first: one of the models, with the elements that all know.

    Raises:
        InputError: a run of another property, or the `simulate` extra is not installed.
    """

    def __init__(self, runs: Mapping[str, Run], device: str, checkpoint: Literal["best", "last"]) -> None:
        program = levels_of_theory(tuple(runs))["geometry"]
        quantities: dict[str, Literal["dipole", "polarisability"]] = {
            "ir": "dipole",
            "raman": "polarisability",
        }
        self._models = {
            name: open_vector(run, quantities[name], device, checkpoint) for name, run in runs.items()
        }
        self.levels = {
            name: f"{program} modes, {quantities[name]} derivatives by "
            f"{'a model' if isinstance(run, tuple) else run}"
            for name, run in runs.items()
        }
        known = frozenset.intersection(*(learned.elements for learned in self._models.values()))
        self.first = replace(next(iter(self._models.values())), elements=known)

    def lines_of(self, molecule: Molecule) -> tuple[Molecule, dict[str, LineSpectrum]]:
        """The molecule at the minimum next to its structure, and its lines by modality.

        Raises:
            InputError: a molecule outside GFN2-xTB.
            MolspectraError: no minimum is found, or a derivative is not finite.
        """
        check_supported(molecule)
        with one_thread():
            from molspectra.simulation.vibrations import infrared, masses_of, normal_modes, raman
            from molspectra.simulation.xtb import FieldDerivatives

            positions, hessian, _ = minimum(molecule, molecule.positions / BOHR)
            modes = normal_modes(masses_of(molecule.numbers), positions, hessian)
        molecule = molecule.with_positions(positions * BOHR)
        none = {"ir": np.zeros((len(hessian), 3)), "raman": np.zeros((len(hessian), 3, 3))}
        found = none | {name: derivatives(learned, molecule) for name, learned in self._models.items()}
        both = FieldDerivatives(found["ir"], found["raman"])
        intensities = {"ir": infrared(modes, both), "raman": raman(modes, both)}
        return molecule, {
            name: LineSpectrum(
                name,
                modes.wavenumbers,
                np.where(intensities[name] < _ROUNDING, 0, intensities[name]),
                self.levels[name],
            )
            for name in self._models
        }
