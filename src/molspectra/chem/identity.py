"""The identity of a molecule: what two records share when they are the same compound.

The key is the first block of the InChIKey, which hashes formula, connectivity, hydrogens and the `/q` charge
layer. Stereochemistry, isotopes and added or removed protons (`/p`) are in the other blocks, so that mirror
images, E/Z isomers and an acid with its conjugate base share one identity, as do most tautomers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from molspectra.chem.elements import atomic_number, hill_formula
from molspectra.errors import InputError

GEOMETRY_PREFIX = "geom-"

GEOMETRY_PATTERN = f"{GEOMETRY_PREFIX}[0-9a-f]{{16}}"
"""Regular expression of an identity that is a hash of the geometry."""

MAX_ATOMS = 400
"""Larger structures get no bond perception, whose worst case grows exponentially."""

_MAX_ITERATIONS = 2_000  # combinations of valences tried by RDKit before it gives up
_BOND_FACTORS = (1.15, 1.25, 1.35)  # multiples of the sum of covalent radii below which atoms count as bonded

_FORMULA = re.compile(r"(\d*)((?:[A-Z][a-z]?\d*)+)")
_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d*)")
_SIGNED = re.compile(r"[+-]?\d+")


class Structure(Protocol):
    """What an identity is made from; `molspectra.chem.molecule.Molecule` is one."""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """[N] atomic numbers."""

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """[N, 3] coordinates in Å."""

    @property
    def smiles(self) -> str | None:
        """SMILES of the molecule, if known."""

    @property
    def charge(self) -> int:
        """Total charge in elementary charges."""


def identity_of(molecule: Structure) -> str:
    """Identity of a structure: 14 capitals, or `geom-` and 16 hexadecimal digits.

    From `molecule.smiles` if given, else from bonds that RDKit perceives in the geometry, else, where that
    fails, from a hash of the element-labelled contact graph, see `geometry_hash`.

    Raises:
        InputError: `molecule.smiles` cannot be read.
    """
    if molecule.smiles is not None:
        key = _key_of(_parsed(molecule.smiles))
    else:
        key = _key_of(perceived_bonds(molecule))
    return key or geometry_hash(molecule.numbers, molecule.positions)


def identity_from_smiles(smiles: str) -> str:
    """Identity of the molecule that a SMILES describes.

    Raises:
        InputError: the SMILES cannot be read, or has no InChI (dummy atoms, for one).
    """
    key = _key_of(_parsed(smiles))
    if key is None:
        raise InputError(f"no InChI exists for SMILES {smiles!r}")
    return key


def identity_from_inchi(inchi: str, numbers: npt.NDArray[np.integer] | None = None) -> str:
    """Identity of the molecule that an InChI describes.

    Args:
        inchi: of one or several fragments.
        numbers: atomic numbers of the structure that it should describe. Its formula is then compared with
            them, in place of the hundred times slower reconstruction of the molecule from all its layers.

    Raises:
        InputError: the text is not an InChI, or not one of these atoms.
    """
    from rdkit import rdBase
    from rdkit.Chem import inchi as rdkit_inchi

    text = inchi.strip()
    with rdBase.BlockLogs():
        # the hash itself takes any text that begins like an InChI
        if numbers is None:
            valid = rdkit_inchi.MolFromInchi(text, sanitize=False) is not None
        else:
            valid = _atoms_of_inchi(text) == dict(Counter(numbers.tolist()))
            if not valid and text.startswith("InChI=1"):
                raise InputError(
                    f"{inchi!r} does not describe the {len(numbers)} atoms {hill_formula(numbers)}"
                )
        key = str(rdkit_inchi.InchiToInchiKey(text) or "") if valid else ""
    if not key:
        raise InputError(f"unreadable InChI {inchi!r}")
    return key[:14]


def _atoms_of_inchi(inchi: str) -> dict[int, int]:
    """Number of atoms of each element, from formula and proton layer; empty if there is no formula."""
    layers = inchi.split("/")
    counts: Counter[int] = Counter()
    for fragment in layers[1].split(".") if len(layers) > 1 else ():
        found = _FORMULA.fullmatch(fragment)
        if found is None:
            return {}
        for symbol, number in _ELEMENT.findall(found[2]):
            counts[atomic_number(symbol)] += int(number or 1) * int(found[1] or 1)
    protons = next((layer[1:] for layer in layers[2:] if layer.startswith("p")), "0")
    counts[1] += int(protons) if _SIGNED.fullmatch(protons) else 0
    return {element: number for element, number in counts.items() if number}


def is_geometry_hash(identity: str) -> bool:
    """Whether an identity is the geometry hash, used where no bonds were perceived."""
    return re.fullmatch(GEOMETRY_PATTERN, identity) is not None


def _parsed(smiles: str) -> Any:
    """RDKit molecule of a SMILES."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise InputError(f"unreadable SMILES {smiles!r}")
    return mol


def _key_of(mol: Any) -> str | None:
    """First block of the InChIKey of an RDKit molecule, or None where there is none."""
    from rdkit import rdBase
    from rdkit.Chem import inchi as rdkit_inchi

    if mol is None:
        return None
    with rdBase.BlockLogs():
        key = str(rdkit_inchi.MolToInchiKey(mol) or "")
    return key[:14] or None


def perceived_bonds(molecule: Structure) -> Any:
    """RDKit molecule with bonds perceived from the geometry, or None where no Lewis structure is found.

    Atoms are linked below a multiple of the sum of their covalent radii. The first multiple that gives a
    Lewis structure without separated charges is taken; failing that, the first with separated charges;
    failing that, the first with unpaired electrons. Hydrogens stay explicit and the structure is sanitised.
    """
    if len(molecule.numbers) > MAX_ATOMS:
        return None
    zwitterion = None
    for factor in _BOND_FACTORS:
        mol = _lewis_structure(molecule, factor, charged_fragments=True)
        if mol is not None:
            charged = sum(atom.GetFormalCharge() != 0 for atom in mol.GetAtoms())
            if charged <= abs(molecule.charge):
                return mol
        zwitterion = zwitterion or mol
    if zwitterion is not None:
        return zwitterion
    radicals = (_lewis_structure(molecule, factor, charged_fragments=False) for factor in _BOND_FACTORS)
    return next((mol for mol in radicals if mol is not None), None)


def _lewis_structure(molecule: Structure, factor: float, charged_fragments: bool) -> Any:
    """One attempt of RDKit to find bonds and their orders; None where it finds none."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDetermineBonds
    from rdkit.Geometry import Point3D

    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(molecule.numbers))
    for index, (number, position) in enumerate(zip(molecule.numbers, molecule.positions, strict=True)):
        atom = Chem.Atom(int(number))
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
        conformer.SetAtomPosition(index, Point3D(*position.tolist()))
    mol.AddConformer(conformer)
    with rdBase.BlockLogs():
        try:
            rdDetermineBonds.DetermineBonds(
                mol,
                charge=molecule.charge,
                allowChargedFragments=charged_fragments,
                covFactor=factor,
                useVdw=True,
                embedChiral=False,
                maxIterations=_MAX_ITERATIONS,
            )
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError):
            return None
    return mol


def geometry_hash(numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> str:
    """Hash of the graph of elements and contacts: `geom-` and 16 hexadecimal digits.

    Atoms nearer than 1.25 times the sum of their covalent radii are linked, and atom labels are refined over
    their neighbours (Weisfeiler-Lehman) until they settle. The result is invariant under rotation, reflection
    and permutation, and conformers of one molecule share it, as a split key should. Limits: a distance that
    lies on the threshold may fall on either side; charge is not part of it; graphs that the refinement cannot
    tell apart (two cyclopropanes and one cyclohexane of bare atoms) share a hash.
    """
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    radii = np.array([table.GetRcovalent(int(number)) for number in numbers])
    distance = np.linalg.norm(positions[:, None, :] - positions[None, :, :], axis=-1)
    linked = distance < _BOND_FACTORS[1] * (radii[:, None] + radii[None, :])
    np.fill_diagonal(linked, False)
    neighbours = [np.flatnonzero(row).tolist() for row in linked]
    labels = [_digest([str(int(number))]) for number in numbers]
    for _ in range(len(labels)):
        refined = [_digest([own, *sorted(labels[j] for j in neighbours[i])]) for i, own in enumerate(labels)]
        settled = len(set(refined)) == len(set(labels))
        labels = refined
        if settled:
            break
    return GEOMETRY_PREFIX + _digest(sorted(labels))


def _digest(parts: Sequence[str]) -> str:
    """64-bit hash of a list of words, as 16 hexadecimal digits."""
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
