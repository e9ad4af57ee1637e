"""Three-dimensional structures of molecules given as a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import SettingError, ValueRangeError

MAX_ATOMS = 400
"""Larger molecules get no conformer, since embedding takes minutes."""

_RELAX_STEPS = 2000
_RANDOM_TRIES = 10  # further embeddings from random coordinates if the first fails


def conformer(mol: Any, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return coordinates [N, 3] in Å of an RDKit molecule with explicit hydrogens.

    They are embedded by ETKDGv3 from a fixed seed, then relaxed with MMFF94 if it has parameters for all
    atoms, else with UFF, else left as embedded (noble gases and some metals). The same molecule, atom order,
    seed and RDKit version give the same coordinates.

    Raises:
        SettingError: if the seed is negative.
        ValueRangeError: if the molecule is too large, or no embedding was found.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    if seed < 0:
        raise SettingError(f"the seed of a conformer must not be negative: {seed}")
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise ValueRangeError(
            f"{mol.GetNumAtoms()} atoms are more than the {MAX_ATOMS} that get a 3D structure"
        )
    mol = type(mol)(mol)
    with rdBase.BlockLogs():
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        status = rdDistGeom.EmbedMolecule(mol, parameters)
        for attempt in range(_RANDOM_TRIES):
            if status == 0:
                break
            parameters.useRandomCoords = True
            parameters.randomSeed = seed + attempt
            status = rdDistGeom.EmbedMolecule(mol, parameters)
        if status != 0:
            raise ValueRangeError("no 3D structure was found; give coordinates (SDF or XYZ) instead")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=_RELAX_STEPS)
        elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.UFFOptimizeMolecule(mol, maxIters=_RELAX_STEPS)
    positions: npt.NDArray[np.float64] = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
    return positions
