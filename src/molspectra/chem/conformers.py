"""Three-dimensional structures of molecules that come as a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError

MAX_ATOMS = 400
"""Larger molecules get no conformer: finding one takes minutes."""

_RELAX_STEPS = 2000
_RANDOM_TRIES = 10  # further embeddings, from random coordinates, where the first fails


def conformer(mol: Any, seed: int = 0) -> npt.NDArray[np.float64]:
    """Coordinates [N, 3] in Å of an RDKit molecule whose hydrogens are explicit.

    Embedded by ETKDGv3 from a fixed seed, then relaxed with MMFF94 where it has parameters for all atoms,
    else with UFF, else left as embedded (noble gases and some metals). The same molecule, atom order, seed
    and RDKit version give the same coordinates.

    Raises:
        InputError: the seed is negative, the molecule is too large, or no embedding was found.
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    if seed < 0:
        raise InputError(f"the seed of a conformer must not be negative: {seed}")
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise InputError(f"{mol.GetNumAtoms()} atoms are more than the {MAX_ATOMS} that get a 3D structure")
    mol = type(mol)(mol)
    with rdBase.BlockLogs():
        parameters: Any = rdDistGeom.ETKDGv3()
        parameters.randomSeed = seed
        found = rdDistGeom.EmbedMolecule(mol, parameters)
        for attempt in range(_RANDOM_TRIES):
            if found == 0:
                break
            parameters.useRandomCoords = True
            parameters.randomSeed = seed + attempt
            found = rdDistGeom.EmbedMolecule(mol, parameters)
        if found != 0:
            raise InputError("no 3D structure was found; give coordinates (SDF or XYZ) instead")
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.MMFFOptimizeMolecule(mol, maxIters=_RELAX_STEPS)
        elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
            rdForceFieldHelpers.UFFOptimizeMolecule(mol, maxIters=_RELAX_STEPS)
    positions: npt.NDArray[np.float64] = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
    return positions
