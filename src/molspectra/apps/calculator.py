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

from molspectra.apps.learned import Learned, Precision, Run, open_learned
from molspectra.chem.readers import from_ase
from molspectra.chem.sanity import check_elements
from molspectra.data.batch import Batch, batch_of
from molspectra.data.verlet import VerletList
from molspectra.errors import MolspectraError, NotFoundError, SettingError
from molspectra.evaluation.predict import on_device
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

    A dipole run is trained on the lengths of dipole moments. The sign of its vectors, and their direction in
    molecules without symmetry, are not trained (`PropertyHead.dipole`).

    Args:
        run: run directory or checkpoint of an energy in Hartree, eV, meV, kcal/mol or kJ/mol, or the
            pair that `molspectra.load_model` returns.
        dipole: the same of a dipole moment, trained by the dipole head in D, e·Å or e·bohr; a run of several
            targets may be both.
        skin: Å beyond the cutoff in which neighbours are kept until an atom has moved half of it; the
            result does not depend on it.
        dtype: arithmetic, "float64" or "float32".
        device: where to compute.
        checkpoint: weights with the lowest validation loss ("best") or the newest ("last").

    Raises:
        InputError: no such run, one that predicts another property, or a value out of range.
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
        self._energy = open_learned(run, "energy", dtype, device, checkpoint)
        self._dipole: Learned | None = None
        if dipole is not None:
            self.implemented_properties.append("dipole")
            self._dipole = open_learned(dipole, "dipole", dtype, device, checkpoint)
        self._neighbours = VerletList(self._energy.model.encoder.cutoff, skin)

    def calculate(
        self, atoms: Any = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Compute the properties and put them into `results`, as ASE asks.

        Raises:
            InputError: a periodic structure, unknown elements, or positions that coincide or are not finite.
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
            raise SettingError(
                "the calculator has no dipole; give it a second run, Calculator(run, dipole=...)"
            )
        model, batch = self._dipole.model, self._batch(replicas, self._dipole)
        with torch.no_grad():
            vectors = model.property_heads[self._dipole.head].dipole(model.encode(batch), batch)
        return _numbers(vectors, "dipole") * self._dipole.factor

    def _batch(self, replicas: Sequence[Any], learned: Learned) -> Batch:
        """The batch of checked molecules, with positions relative to the mean of each."""
        if not len(replicas):
            raise NotFoundError("there are no atoms to compute")
        molecules = [from_ase(atoms) for atoms in replicas]
        for molecule in molecules:
            check_elements(molecule.numbers, learned.elements)
        batch = batch_of(molecules, torch.float64)
        positions = [molecule.positions - molecule.positions.mean(0) for molecule in molecules]
        centred = replace(batch, positions=torch.from_numpy(np.concatenate(positions)))
        return on_device(centred, learned.model)


def _numbers(values: torch.Tensor, quantity: str) -> Array:
    """Predictions as a float64 array, refused where one is not finite."""
    if not bool(torch.isfinite(values).all()):
        raise MolspectraError(
            f"the predicted {quantity} is not finite; the structure is far from the training data"
        )
    return values.detach().double().cpu().numpy()
