"""Molecules from SDF and MOL files (V2000 and V3000), one record at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.charges import check_charge
from molspectra.chem.elements import atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry, text_lines
from molspectra.chem.sanity import RDKIT_ERRORS, check_rings, check_size
from molspectra.errors import ElementError, FormatError, InputError, ValueRangeError

_FIELD = re.compile(r">[^<]*<([^>]+)>")
_FLAT = 1e-3  # Å; a structure with every |z| below this is flat


def sdf_entries(path: Path) -> Iterator[Entry]:
    """Yield the records of an SDF or MOL file; `$$$$` ends a record, and the title line is the name."""
    block: list[str] = []
    record, first = 0, 1
    for number, line in enumerate(text_lines(path), start=1):
        if not line.startswith("$$$$"):
            block.append(line)
            continue
        record += 1
        yield _entry(record, first, block)
        block, first = [], number + 1
    if any(line.strip() for line in block):
        yield _entry(record + 1, first, block)


def _entry(record: int, first: int, block: list[str]) -> Entry:
    title = block[0].strip() if block else ""
    where = f"record {record} (line {first}{f', {title!r}' if title else ''})"
    build = partial(_molecule, block, title or None)
    return Entry(where, title or None, build, partial(data_fields, block))


def _molecule(block: list[str], name: str | None) -> Molecule:
    """Return the molecule of a record, whose charge must be the one that a data field may state."""
    molecule = molecule_from_block("\n".join(block) + "\n", name)
    check_charge(data_fields(block), molecule.charge)
    return molecule


def data_fields(block: list[str]) -> dict[str, str]:
    """Return the data fields of a record: the lines below `> <NAME>` up to the next empty one.

    Raises:
        FormatError: if a field occurs twice.
    """
    fields: dict[str, str] = {}
    lines = iter(block)
    for line in lines:
        match = _FIELD.match(line)
        if match is None:
            continue
        key = match[1]
        if key in fields:
            raise FormatError(f"the data field {key[:40]!r} occurs twice")
        value = []
        for text in lines:
            if not text.strip():
                break
            value.append(text.strip())
        fields[key] = " ".join(value)
    return fields


def molecule_from_block(block: str, name: str | None = None, *, complete: bool = False) -> Molecule:
    """Return the molecule of one MOL block with three-dimensional coordinates and explicit hydrogens.

    Its bonds determine the SMILES; if RDKit finds their valences impossible, there is no SMILES and the bonds
    will be perceived from the geometry. Several fragments are allowed.

    Args:
        block: the lines up to `M  END`.
        name: of the molecule.
        complete: whether all hydrogens are known to be present, so that bonds which leave valences open are
            wrong and are ignored in the same way.

    Raises:
        InputError: truncated or unreadable block, dummy atoms, isotopes, a flat drawing instead of a
            structure, or missing hydrogens.
    """
    from rdkit import Chem, rdBase

    if "M  END" not in block:
        raise FormatError("the record ends before its 'M  END' line: the file is truncated or not an SDF")
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromMolBlock(block, sanitize=False, removeHs=False)
        except RDKIT_ERRORS:  # such as an element unknown to RDKit
            mol = None
    if mol is None:
        raise _reading_error(block)
    return molecule_of_graph(mol, name, drawing=block.split("\n")[1][20:22] == "2D", complete=complete)


def molecule_of_graph(
    mol: Any, name: str | None = None, *, drawing: bool = False, complete: bool = False
) -> Molecule:
    """Return the molecule of an RDKit molecule with coordinates and explicit hydrogens, and sanitise that.

    Args:
        mol: atoms, bonds and a conformer.
        name: of the molecule.
        drawing: whether its source calls the coordinates two-dimensional.
        complete: see `molecule_from_block`.

    Raises:
        InputError: as `molecule_from_block`.
    """
    from rdkit import Chem

    check_size(mol.GetNumAtoms())
    check_rings(mol)
    atoms = [mol.GetAtomWithIdx(index) for index in range(mol.GetNumAtoms())]  # faster than GetAtoms()
    for atom in atoms:
        if atom.GetAtomicNum() and not atom.GetIsotope():
            continue
        label = f"atom {atom.GetIdx() + 1} ({atom.GetSymbol()})"
        if atom.GetAtomicNum() == 0:
            raise ElementError(f"{label} is a dummy or query atom, not an element")
        raise ElementError(f"{label} has an isotope label, which is not supported")
    if not atoms:
        raise FormatError("the record has no atoms")
    positions = np.array(mol.GetConformer().GetPositions(), dtype=np.float64)
    numbers = np.array([atom.GetAtomicNum() for atom in atoms])
    charge = Chem.GetFormalCharge(mol)
    smiles = _smiles_and_checks(mol, atoms, positions, drawing, complete)
    return Molecule(numbers, positions, smiles, charge, name)


def _smiles_and_checks(
    mol: Any, atoms: list[Any], positions: npt.NDArray[np.float64], drawing: bool, complete: bool
) -> str | None:
    """Return the SMILES of the bonds, if valid; raise for a flat drawing or missing hydrogens.

    Sanitises `mol`. `drawing` is whether the block's header calls it two-dimensional.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        try:
            Chem.SanitizeMol(mol)
        except RDKIT_ERRORS:
            return None
        flat = (np.abs(positions[:, 2]) < _FLAT).all()
        # an atom with four neighbours cannot lie in one plane with them
        if flat and (drawing or any(atom.GetTotalDegree() >= 4 for atom in atoms)):
            raise ValueRangeError(
                "the coordinates are a flat drawing; give a 3D structure, or the SMILES alone"
            )
        missing = sum(atom.GetTotalNumHs() for atom in atoms)
        if missing and complete:
            return None
        if missing:
            raise ValueRangeError(
                f"{missing} hydrogen atoms have no coordinates; add explicit hydrogens in 3D"
            )
        return str(Chem.MolToSmiles(Chem.RemoveHs(mol)))


def _reading_error(block: str) -> InputError:
    """Return why RDKit cannot read a block: the first invalid atom line of a V2000 block, if there is one."""
    lines = block.split("\n")
    counts = lines[3] if len(lines) > 3 else ""
    if "V3000" not in counts and counts[:3].strip().isdecimal():
        for index, line in enumerate(lines[4 : 4 + int(counts[:3])], start=1):
            try:
                finite = all(math.isfinite(float(line[start : start + 10])) for start in (0, 10, 20))
                atomic_number(line[31:34].strip())
            except InputError as error:
                return error.with_context(f"atom {index}")
            except ValueError:
                finite = False
            if not finite:
                return FormatError(f"atom {index}: {line[:30].strip()!r} are not three coordinates")
    return FormatError("RDKit cannot read the atom and bond lines")
