"""The scaffold of a molecule: its rings and the chains between them (Bemis & Murcko 1996)."""

from functools import lru_cache

from molspectra.chem.identity import identity_from_smiles, parsed_smiles
from molspectra.chem.sanity import RDKIT_ERRORS
from molspectra.errors import FormatError, InputError


@lru_cache(maxsize=1 << 20)
def scaffold_of(smiles: str) -> str:
    """Return the key of the Bemis-Murcko scaffold of a SMILES, without stereochemistry; "" without a ring.

    The key is the identity of the scaffold as a molecule, so that it does not depend on how RDKit writes a
    SMILES; a scaffold without an InChI is known by its SMILES.

    Raises:
        InputError: if the SMILES cannot be read.
    """
    from rdkit import rdBase
    from rdkit.Chem.Scaffolds.MurckoScaffold import MurckoScaffoldSmiles

    mol = parsed_smiles(smiles)
    with rdBase.BlockLogs():
        try:
            scaffold = str(MurckoScaffoldSmiles(mol=mol, includeChirality=False))
        except RDKIT_ERRORS as error:
            raise FormatError(f"RDKit finds no scaffold of the SMILES {smiles[:200]!r}") from error
    return _key(scaffold) if scaffold else ""


@lru_cache(maxsize=1 << 16)
def _key(scaffold: str) -> str:
    try:
        return identity_from_smiles(scaffold)
    except InputError:
        return scaffold
