"""Molecules with their internal coordinates, shared by the tests of this folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch
from molspectra.data.store.internal import with_internal
from molspectra.data.store.store import Metadata, Row, Store, write_store

SMILES = (
    "CCCC",  # 0: one rotatable bond
    "OCC(C)(C)CN",  # 1: several
    "Cc1ccccc1",  # 2: a ring, no rotatable bond
    "O",  # 3
    "CC(=O)NCC#N",  # 4: nearly straight
    "CC1CC1CO",  # 5
    "C1CC12CC2",  # 6: all rings but for the hydrogens
)


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=11) == 0
    return mol


@pytest.fixture(scope="session")
def mols() -> list[Chem.Mol]:
    return [embedded(smiles) for smiles in SMILES]


@pytest.fixture(scope="session")
def internal_store(mols: list[Chem.Mol], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The molecules of SMILES, then a lone atom, as a store with internal coordinates."""
    rows = [
        Row(
            Molecule(
                np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()]), mol.GetConformer().GetPositions()
            ),
            identity=f"ID{number}",
        )
        for number, mol in enumerate(mols)
    ]
    rows.append(Row(Molecule([18], [[0.0, 0.0, 0.0]]), identity="argon"))
    path: Path = tmp_path_factory.mktemp("internal") / "seven.arrow"
    write_store(path, rows, Metadata(source="made up", licence="CC0-1.0", position_dtype="float64"))
    return with_internal(Store(path), show=False)


Take = Callable[[Sequence[int]], Batch]


@pytest.fixture(scope="session")
def take(internal_store: Store) -> Take:
    """The batch of some rows in float64."""
    return lambda rows: internal_store.batch(np.array(rows), dtype=torch.float64)
