"""The identity of a molecule: a key that is equal for two records of the same compound.

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
from molspectra.chem.sanity import RDKIT_ERRORS, check_rings, covalent_radii
from molspectra.errors import FormatError, InputError, MismatchError, ValueRangeError

GEOMETRY_PREFIX = "geom-"

GEOMETRY_PATTERN = re.compile(f"{GEOMETRY_PREFIX}[0-9a-f]{{16}}")
"""Matches an identity that is a hash of the geometry, used if no bonds were perceived."""

MAX_ATOMS = 400
"""Bonds are not perceived in larger structures, since the worst case takes exponential time."""

_MAX_ITERATIONS = 2_000  # combinations of valences that RDKit tries at most
_BOND_FACTORS = (1.15, 1.25, 1.35)  # multiples of the sum of covalent radii below which atoms count as bonded

_FORMULA = re.compile(r"(\d*)((?:[A-Z][a-z]?\d*)+)")
_ELEMENT = re.compile(r"([A-Z][a-z]?)(\d*)")
_SIGNED = re.compile(r"[+-]?\d+")


class Structure(Protocol):
    """The attributes of `molspectra.chem.molecule.Molecule` that an identity depends on."""

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """[N] atomic numbers."""

    @property
    def positions(self) -> npt.NDArray[np.float64]:
        """[N, 3] coordinates in Å."""

    @property
    def smiles(self) -> str | None:
        """SMILES, if known."""

    @property
    def charge(self) -> int:
        """Total charge in e."""


def identity_of(molecule: Structure) -> str:
    """Return the identity of a structure: 14 capitals, or `geom-` and 16 hexadecimal digits.

    It is derived from `molecule.smiles` if given, else from bonds that RDKit perceives in the geometry, else
    from a hash of the element-labelled contact graph, see `geometry_hash`.

    Raises:
        InputError: if `molecule.smiles` cannot be read.
    """
    mol = perceived_bonds(molecule) if molecule.smiles is None else parsed_smiles(molecule.smiles)
    return _key_of(mol) or geometry_hash(molecule.numbers, molecule.positions)


def identity_from_smiles(smiles: str) -> str:
    """Return the identity of the molecule of a SMILES.

    Raises:
        FormatError: if the SMILES cannot be read.
        ValueRangeError: if it has no InChI, for example because of dummy atoms, or too many rings.
    """
    key = _key_of(parsed_smiles(smiles))
    if key is None:
        raise ValueRangeError(f"no InChI exists for SMILES {smiles!r}")
    return key


def identity_from_inchi(inchi: str, numbers: npt.NDArray[np.integer]) -> str:
    """Return the identity of the molecule of an InChI.

    Args:
        inchi: of one or several fragments.
        numbers: expected atomic numbers [N]. Comparing the formula with them is a hundred times faster than
            reconstructing the molecule from all layers to validate the text.

    Raises:
        FormatError: if the text is not an InChI.
        MismatchError: if it describes other atoms.
    """
    from rdkit import rdBase
    from rdkit.Chem import inchi as rdkit_inchi

    text = inchi.strip()
    # InchiToInchiKey accepts any text that begins like an InChI
    valid = _atoms_of_inchi(text) == dict(Counter(numbers.tolist()))
    if not valid and text.startswith("InChI=1"):
        raise MismatchError(f"{inchi!r} does not describe the {len(numbers)} atoms {hill_formula(numbers)}")
    with rdBase.BlockLogs():
        key = str(rdkit_inchi.InchiToInchiKey(text) or "") if valid else ""
    if not key:
        raise FormatError(f"unreadable InChI {inchi!r}")
    return key[:14]


def _atoms_of_inchi(inchi: str) -> dict[int, int]:
    """Return the number of atoms by atomic number, from formula and proton layer; empty without a formula."""
    layers = inchi.split("/")
    counts: Counter[int] = Counter()
    for fragment in layers[1].split(".") if len(layers) > 1 else ():
        match = _FORMULA.fullmatch(fragment)
        if match is None:
            return {}
        for symbol, number in _ELEMENT.findall(match[2]):
            counts[atomic_number(symbol)] += int(number or 1) * int(match[1] or 1)
    protons = next((layer[1:] for layer in layers[2:] if layer.startswith("p")), "0")
    counts[1] += int(protons) if _SIGNED.fullmatch(protons) else 0
    return {element: number for element, number in counts.items() if number}


def parsed_smiles(smiles: str) -> Any:
    """Return the RDKit molecule of a SMILES.

    Raises:
        FormatError: it cannot be read, or has no atoms.
        ValueRangeError: it has too many rings.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(smiles, sanitize=False)
            if mol is not None:
                check_rings(mol)
                mol = Chem.MolFromSmiles(smiles)
        except InputError as error:
            raise error.with_context(f"SMILES {smiles[:200]!r}") from error
        except RDKIT_ERRORS:
            mol = None
    if mol is None or mol.GetNumAtoms() == 0:
        raise FormatError(f"unreadable SMILES {smiles[:200]!r}")
    return mol


def _key_of(mol: Any) -> str | None:
    """Return the first block of the InChIKey of an RDKit molecule, or None if it has no InChI."""
    from rdkit import rdBase
    from rdkit.Chem import inchi as rdkit_inchi

    if mol is None:
        return None
    with rdBase.BlockLogs():
        try:
            key = str(rdkit_inchi.MolToInchiKey(mol) or "")
        except RDKIT_ERRORS:
            return None
    return key[:14] or None


def perceived_bonds(molecule: Structure) -> Any:
    """Return the RDKit molecule with bonds perceived from the geometry, or None without a Lewis structure.

    There is none either of more atoms than `MAX_ATOMS`, or where the atoms in reach of one another close more
    rings than any drawing may have (`check_rings`).

    Atoms are bonded below a multiple of the sum of their covalent radii. The first multiple is used that
    gives a Lewis structure without separated charges; else the first with separated charges; else the first
    with unpaired electrons. Hydrogens stay explicit and the structure is sanitised.
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
    """Return RDKit's bonds and bond orders for one multiple of the covalent radii, None if it fails."""
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
            linked = Chem.RWMol(mol)
            rdDetermineBonds.DetermineConnectivity(linked, covFactor=factor, useVdw=True)
            check_rings(linked)
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
        except (*RDKIT_ERRORS, ValueRangeError):
            return None
    return mol


def geometry_hash(numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> str:
    """Return a hash of the graph of elements and contacts: `geom-` and 16 hexadecimal digits.

    Atoms nearer than 1.25 times the sum of their covalent radii are linked, and atom labels are refined over
    their neighbours (Weisfeiler-Lehman) until they are stable. The result is invariant under rotation,
    reflection and permutation, and equal for conformers of one molecule, as a split key requires. Limits: a
    distance at the threshold may fall on either side; the charge is ignored; graphs that the refinement
    cannot distinguish (two cyclopropanes and one cyclohexane of bare atoms) share a hash.
    """
    radii = covalent_radii()[numbers]
    distance = np.linalg.norm(positions[:, None, :] - positions[None, :, :], axis=-1)
    linked = distance < _BOND_FACTORS[1] * (radii[:, None] + radii[None, :])
    np.fill_diagonal(linked, False)
    neighbours = [np.flatnonzero(row).tolist() for row in linked]
    labels = [_digest([str(int(number))]) for number in numbers]
    for _ in range(len(labels)):
        refined = [_digest([own, *sorted(labels[j] for j in neighbours[i])]) for i, own in enumerate(labels)]
        is_stable = len(set(refined)) == len(set(labels))
        labels = refined
        if is_stable:
            break
    return GEOMETRY_PREFIX + _digest(sorted(labels))


def _digest(parts: Sequence[str]) -> str:
    """Return a 64-bit hash of a list of words, as 16 hexadecimal digits."""
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
