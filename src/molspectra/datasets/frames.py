"""Frames of a trajectory as rows of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Row


def frame_row(
    molecule: Molecule,
    number: int,
    positions: npt.NDArray[np.floating],
    energy: float,
    forces: npt.NDArray[np.floating],
) -> Row:
    """Return the row of one frame, named by its number; all frames share the molecule's identity.

    Args:
        molecule: any structure of it, with a name.
        number: number of the frame in its trajectory.
        positions: [N, 3] Å.
        energy: kcal/mol.
        forces: [N, 3] kcal/mol/Å.

    Raises:
        InputError: if the positions are not a valid structure.
    """
    frame = Molecule(
        molecule.numbers,
        np.asarray(positions, np.float64),
        smiles=molecule.smiles,
        charge=molecule.charge,
        name=f"{molecule.name or molecule.formula} frame {number}",
    )
    return Row(frame, {}, {"energy": float(energy)}, forces, molecule.identity)


def frame_rows(
    molecule: Molecule,
    positions: npt.NDArray[np.floating],
    energies: npt.NDArray[np.floating],
    forces: npt.NDArray[np.floating],
) -> Iterator[Row]:
    """Yield the rows of positions [T, N, 3], energies [T] and forces [T, N, 3]; see `frame_row`."""
    for number, frame in enumerate(zip(positions, energies, forces, strict=True)):
        yield frame_row(molecule, number, *frame)


def trajectory_metadata(
    *,
    source: str,
    licence: str,
    level: str,
    labels: str | None = None,
    notes: Mapping[str, str] | None = None,
) -> Metadata:
    """Return the metadata of a store of frames with `energy` in kcal/mol and forces in kcal/mol/Å.

    Args:
        source: origin of the frames.
        licence: terms of use.
        level: level of theory of the dynamics.
        labels: level of theory of energies and forces, None if it is that of the dynamics.
        notes: further facts as text.
    """
    labels = level if labels is None else labels
    return Metadata(
        source=source,
        licence=licence,
        level=level,
        properties={"energy": Quantity("kcal/mol", labels)},
        forces=Quantity("kcal/mol/Å", labels),
        notes=dict(notes or {}),
    )
