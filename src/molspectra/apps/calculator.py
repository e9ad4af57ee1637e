"""An ASE calculator from a fine-tuned run: energy, forces and, with a second run, the dipole."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes

from molspectra.apps.learned import SYMMETRIC, Learned, Precision, Run, open_learned
from molspectra.chem.readers import from_ase
from molspectra.chem.sanity import check_elements
from molspectra.data.batch import Batch, batch_of
from molspectra.data.verlet import VerletList
from molspectra.errors import MolspectraError, NotFoundError, SettingError
from molspectra.evaluation.ensemble import is_ensemble, mean_and_spread, read_ensemble
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.uncertainty import Calibration
from molspectra.models.model import energy_and_forces

Array = npt.NDArray[np.float64]


MAX_FORCE_SPREAD = 0.5
"""Default spread of the members' forces, eV/Å, beyond which a structure is far from the training data."""


class EnergiesForces(NamedTuple):
    """Results for several molecules."""

    energies: Array
    """[B] eV."""
    forces: list[Array]
    """[N, 3] eV/Å of each molecule."""


class Disagreement(NamedTuple):
    """How much the members of an ensemble differ, for several molecules."""

    energy_uncertainties: Array
    """[B] eV, calibrated standard deviations."""
    force_spreads: list[Array]
    """[N] eV/Å of each molecule: how far the members' forces on an atom are from their mean."""


class Calculator(AseCalculator):
    """Energy (eV), forces (eV/Å) and dipole (e·Å) of molecules by fine-tuned models.

    Forces are the exact negative gradient of the energy. Positions are taken about the mean position of a
    molecule before they are rounded to `dtype`, so that results are equally precise everywhere.

    A dipole run that was trained on vectors (`finetune --vectors`) gives the dipole with its direction. One
    that was trained on lengths does not know the sign, and the direction only as far as symmetry dictates it
    (`PropertyHead.dipole`). With a polarisability run, `results` also has "polarisability", [3, 3] in Å³.

    With an ensemble, energies and forces are means over the members; `results` then also has
    "energy_uncertainty" (eV, calibrated) and "force_spread" ([N] eV/Å: the root mean square distance of the
    members' forces on an atom from their mean, times √(M/(M - 1)) of M members), and a `UserWarning` is given
    the first time that it passes `max_force_spread`.

    Args:
        run: run directory or checkpoint of an energy in Hartree, eV, meV, kcal/mol or kJ/mol, the directory
            of an ensemble, or the pair that `molspectra.load_model` returns.
        dipole: the same of a dipole moment in D, e·Å or e·bohr; a run of several targets may be both.
        polarisability: the same of a polarisability in a0^3 or Å^3 (`finetune --tensors`).
        skin: Å beyond the cutoff in which neighbours are kept until an atom has moved half of it; the
            result does not depend on it.
        dtype: arithmetic, "float64" or "float32".
        device: where to compute.
        checkpoint: weights with the lowest validation loss ("best") or the newest ("last").
        max_force_spread: of an ensemble: spread of the forces, eV/Å, beyond which a structure is far from
            the training data.

    Raises:
        InputError: no such run, one that predicts another property, or a value out of range.
    """

    def __init__(
        self,
        run: Run,
        dipole: Run | None = None,
        polarisability: Run | None = None,
        *,
        skin: float = 0.5,
        dtype: Precision = "float64",
        device: str = "cpu",
        checkpoint: Literal["best", "last"] = "best",
        max_force_spread: float = MAX_FORCE_SPREAD,
    ) -> None:
        super().__init__()
        self.implemented_properties = ["energy", "free_energy", "forces"]
        if not max_force_spread > 0:
            raise SettingError(f"max_force_spread: must be above 0 eV/Å, not {max_force_spread:g}")
        self.max_force_spread, self._has_warned = max_force_spread, False
        runs: tuple[Run, ...] = (run,)
        self._calibration: Calibration | None = None
        if isinstance(run, str | Path) and is_ensemble(run):
            ensemble = read_ensemble(run)
            runs, self._calibration = ensemble.members, next(iter(ensemble.calibrations.values()))
        self._members = [open_learned(one, "energy", dtype, device, checkpoint) for one in runs]
        self._energy = self._members[0]
        self._dipole: Learned | None = None
        if dipole is not None:
            self.implemented_properties.append("dipole")
            self._dipole = open_learned(dipole, "dipole", dtype, device, checkpoint)
        self._polarisability: Learned | None = None
        if polarisability is not None:
            self.implemented_properties.append("polarisability")
            self._polarisability = open_learned(polarisability, "polarisability", dtype, device, checkpoint)
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
        if "polarisability" in properties:
            self.results["polarisability"] = self.polarisabilities([self.atoms])[0]
        if {"energy", "free_energy", "forces"} & set(properties):
            (energies, forces), disagreement = self._compute([self.atoms])
            energy = float(energies[0])
            self.results |= {"energy": energy, "free_energy": energy, "forces": forces[0]}
            if disagreement is not None:
                self.results["energy_uncertainty"] = float(disagreement.energy_uncertainties[0])
                self.results["force_spread"] = disagreement.force_spreads[0]

    def energies_and_forces(self, replicas: Sequence[Any]) -> EnergiesForces:
        """Energies and forces of several `ase.Atoms` (replicas of a molecule, or different ones) in one pass.

        Raises:
            InputError: as in `calculate`, or no atoms at all.
            MolspectraError: a prediction is not finite.
        """
        return self._compute(replicas)[0]

    def _compute(self, replicas: Sequence[Any]) -> tuple[EnergiesForces, Disagreement | None]:
        """Energies and forces, and of an ensemble how much its members differ."""
        batch = self._batch(replicas, self._energy)
        batch = batch.with_edge_list(self._neighbours.edges(batch.positions, batch.ptr))
        energies, forces = [], []
        for member in self._members:
            result = energy_and_forces(member.model, batch)
            energies.append(_numbers(result.energy, "energy") * member.factor)
            forces.append(_numbers(result.forces, "forces") * member.factor)
        ends = batch.ptr[1:-1].tolist()
        if self._calibration is None:
            return EnergiesForces(energies[0], np.split(forces[0], ends)), None
        energy, energy_spread = mean_and_spread(energies)
        force, force_spread = mean_and_spread(forces)
        distance = np.linalg.norm(force_spread, axis=1)
        self._warn(float(distance.max()))
        factor = self._energy.factor  # a calibration knows the unit of the target
        uncertainties = factor * self._calibration.uncertainty(energy_spread / factor)
        disagreement = Disagreement(uncertainties, np.split(distance, ends))
        return EnergiesForces(energy, np.split(force, ends)), disagreement

    def _warn(self, spread: float) -> None:
        """Warn the first time that the spread of the forces is too large."""
        if spread > self.max_force_spread and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the members' forces differ by {spread:.2g} eV/Å (max_force_spread "
                f"{self.max_force_spread:g}): the structure is far from the training data",
                stacklevel=2,
            )

    def dipoles(self, replicas: Sequence[Any]) -> Array:
        """Dipole moments [B, 3] of several `ase.Atoms` in e·Å.

        Raises:
            InputError: as in `energies_and_forces`, or there is no dipole run.
            MolspectraError: a prediction is not finite.
        """
        return self._predicted(self._dipole, "dipole", replicas)

    def polarisabilities(self, replicas: Sequence[Any]) -> Array:
        """Polarisabilities [B, 3, 3] of several `ase.Atoms` in Å³.

        Raises:
            InputError: as in `energies_and_forces`, or there is no polarisability run.
            MolspectraError: a prediction is not finite.
        """
        six = self._predicted(self._polarisability, "polarisability", replicas)
        return six[:, SYMMETRIC]

    def _predicted(self, learned: Learned | None, quantity: str, replicas: Sequence[Any]) -> Array:
        """Components [B, 3] of a dipole or [B, 6] of a polarisability in ASE's units."""
        if learned is None:
            raise SettingError(
                f"the calculator has no {quantity}; give it a second run, Calculator(run, {quantity}=...)"
            )
        model, batch = learned.model, self._batch(replicas, learned)
        head = model.property_heads[learned.head]
        read = head.dipole if quantity == "dipole" else head
        with torch.no_grad():
            values = read(model.encode(batch), batch)
        return _numbers(values, quantity) * learned.factor

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
