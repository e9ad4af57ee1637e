"""An ASE calculator from a fine-tuned run: energy, forces and, with a second run, the dipole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes

from molspectra.apps.learned import Learned, Precision, Run, dipole_moment, potential_energy
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_ase
from molspectra.data.batch import Batch, batch_of
from molspectra.data.verlet import VerletList
from molspectra.errors import InputError, MolspectraError
from molspectra.models.model import energy_and_forces

Array = npt.NDArray[np.float64]


class EnergiesForces(NamedTuple):
    """Results for several molecules."""

    energies: Array
    """[B] eV."""
    forces: list[Array]
    """[N, 3] eV/Å of each molecule."""


class Calculator(AseCalculator):
    """Energy (eV), forces (eV/Å) and dipole (e·Å) of molecules by fine-tuned models.

    Forces are the exact negative gradient of the energy. Positions are taken about the mean position of a
    molecule before they are rounded to `dtype`, so that results are equally precise everywhere.

    The vectors that a dipole run gives have the lengths that it was trained on. Their sign, and without
    symmetry their direction, were never compared with anything (`PropertyHead.dipole`).

    Args:
        run: run directory or checkpoint of an energy in Hartree, eV, meV, kcal/mol or kJ/mol, or what
            `molspectra.load_model` returns of one.
        dipole: the same of a dipole moment, trained by the dipole head in D, e·Å or e·bohr.
        skin: Å beyond the cutoff in which neighbours are kept until an atom has moved half as far; the result
            does not depend on it.
        dtype: arithmetic, "float64" or "float32".
        device: where to compute.
        checkpoint: weights with the lowest validation loss ("best") or the newest ("last").

    Raises:
        InputError: no such run, one that predicts something else, or a value out of range.
    """

    def __init__(
        self,
        run: Run,
        dipole: Run | None = None,
        *,
        skin: float = 0.5,
        dtype: Precision = "float64",
        device: str = "cpu",
        checkpoint: Literal["best", "last"] = "best",
    ) -> None:
        super().__init__()
        self.implemented_properties = ["energy", "free_energy", "forces"]
        self._energy = potential_energy(run, dtype, device, checkpoint)
        self._dipole: Learned | None = None
        if dipole is not None:
            self.implemented_properties.append("dipole")
            self._dipole = dipole_moment(dipole, dtype, device, checkpoint)
        self._neighbours = VerletList(self._energy.model.encoder.cutoff, skin)

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Do what ASE asks for; `results` then holds it.

        Raises:
            InputError: a periodic structure, unknown elements, atoms that coincide or lie nowhere.
            MolspectraError: the prediction is not finite.
        """
        super().calculate(atoms, properties, system_changes)
        if "dipole" in properties:
            self.results["dipole"] = self.dipoles([self.atoms])[0]
        if {"energy", "free_energy", "forces"} & set(properties):
            energies, forces = self.energies_and_forces([self.atoms])
            energy = float(energies[0])
            self.results |= {"energy": energy, "free_energy": energy, "forces": forces[0]}

    def energies_and_forces(self, replicas: Sequence[Any]) -> EnergiesForces:
        """Energies and forces of several `ase.Atoms` (replicas of a molecule, or different ones) in one pass.

        Raises:
            InputError: as in `calculate`, or no atoms at all.
            MolspectraError: a prediction is not finite.
        """
        batch = self._batch(replicas, self._energy)
        batch = batch.with_edge_list(self._neighbours.edges(batch.positions, batch.ptr))
        result = energy_and_forces(self._energy.model, batch)
        energies = _numbers(result.energy, "energy") * self._energy.factor
        forces = _numbers(result.forces, "forces") * self._energy.factor
        return EnergiesForces(energies, np.split(forces, batch.ptr[1:-1].tolist()))

    def dipoles(self, replicas: Sequence[Any]) -> Array:
        """Dipole moments [B, 3] of several `ase.Atoms` in e·Å.

        Raises:
            InputError: as in `energies_and_forces`, or there is no dipole run.
            MolspectraError: a prediction is not finite.
        """
        if self._dipole is None:
            raise InputError(
                "the calculator has no dipole; give it a second run, Calculator(run, dipole=...)"
            )
        model, batch = self._dipole.model, self._batch(replicas, self._dipole)
        assert model.property_head is not None
        with torch.no_grad():
            vectors = model.property_head.dipole(model.encode(batch), batch)
        return _numbers(vectors, "dipole") * self._dipole.factor

    def _batch(self, replicas: Sequence[Any], learned: Learned) -> Batch:
        """Checked molecules as a batch about their mean positions."""
        if not len(replicas):
            raise InputError("there are no atoms to compute")
        molecules = [_checked(atoms, learned) for atoms in replicas]
        batch = batch_of(molecules, torch.float64)
        centres = [np.broadcast_to(each.positions.mean(0), each.positions.shape) for each in molecules]
        centred = batch.positions - torch.from_numpy(np.concatenate(centres))
        weight = next(learned.model.parameters())
        return replace(batch, positions=centred).to(weight.device, weight.dtype)


def _checked(atoms: Any, learned: Learned) -> Molecule:
    molecule = from_ase(atoms)
    learned.check(molecule)
    return molecule


def _numbers(values: torch.Tensor, what: str) -> Array:
    """Predictions as float64 numbers on the CPU.

    Raises:
        MolspectraError: one is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise MolspectraError(
            f"the predicted {what} is not finite; the structure is far from the training data"
        )
    return values.detach().double().cpu().numpy()
