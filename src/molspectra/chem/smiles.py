"""Molecules from a SMILES, a `.smi` list or a CSV table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.charges import check_charge
from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry, text_lines
from molspectra.chem.sanity import RDKIT_ERRORS, check_rings
from molspectra.errors import ElementError, FormatError, InputError, NotFoundError, ValueRangeError

_NAME_COLUMNS = ("name", "id", "title")


def from_smiles(smiles: str, name: str | None = None, seed: int = 0) -> Molecule:
    """Return the molecule with hydrogens and the conformer of `molspectra.chem.conformers.conformer`.

    Formal charges set `charge`; radicals are allowed. Salts and mixtures raise, since a SMILES does not
    describe how fragments are arranged (give their coordinates instead). Isotope labels raise, since masses
    are always those of the most abundant isotopes.

    Args:
        smiles: SMILES of one molecule; stored unchanged in `Molecule.smiles`.
        name: label of the molecule.
        seed: seed of the conformer, not negative.

    Raises:
        InputError: unreadable SMILES, dummy atoms, several fragments, isotopes, or no conformer.
    """
    from rdkit import Chem, rdBase

    from molspectra.chem.conformers import conformer

    smiles = smiles.strip()
    mol = _parsed(smiles)
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 0:
            raise ElementError(f"SMILES {_short(smiles)} has a dummy atom; name an element in its place")
        if atom.GetIsotope():
            raise ElementError(
                f"SMILES {_short(smiles)} has an isotope label, which is not supported; remove it"
            )
    fragments = len(Chem.GetMolFrags(mol))
    if fragments > 1:
        raise ValueRangeError(
            f"SMILES {_short(smiles)} has {fragments} fragments; give one connected molecule"
        )
    try:
        with rdBase.BlockLogs():
            mol = Chem.AddHs(mol)
        positions = conformer(mol, seed)
    except InputError as error:
        raise error.with_context(f"SMILES {_short(smiles)}") from error
    except RDKIT_ERRORS as error:
        raise _impossible(smiles, error) from error
    numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    return Molecule(numbers, positions, smiles, Chem.GetFormalCharge(mol), name)


def _short(smiles: str) -> str:
    """Return a SMILES in quotes, shortened for a message."""
    return repr(smiles if len(smiles) <= 200 else f"{smiles[:200]}…")


def _parsed(smiles: str) -> Any:
    """Return the RDKit molecule of a SMILES; raise with the reason if there is none."""
    from rdkit import Chem, rdBase

    if not smiles:
        raise FormatError("empty SMILES")
    if "|" in smiles:
        raise FormatError(f"SMILES {_short(smiles)} has an extension between bars (CXSMILES); remove it")
    if len(smiles.split()) > 1:
        raise FormatError(f"unreadable SMILES {_short(smiles)}: it contains a space")
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromSmiles(smiles, sanitize=False)
        except RDKIT_ERRORS:
            mol = None
        if mol is None or mol.GetNumAtoms() == 0:
            advice = "; a name stands after white space, not a comma" if "," in smiles else ""
            raise FormatError(f"unreadable SMILES {_short(smiles)}{advice}")
        try:
            check_rings(mol)
            Chem.SanitizeMol(mol)
        except InputError as error:
            raise error.with_context(f"SMILES {_short(smiles)}") from error
        except RDKIT_ERRORS as error:
            raise _impossible(smiles, error) from error
    return mol


def _impossible(smiles: str, error: Exception) -> ValueRangeError:
    """Return the error of a SMILES that RDKit can parse but not treat, with RDKit's reason."""
    reason = " ".join(str(error).split("Violation occurred")[0].split())
    return ValueRangeError(f"impossible molecule in SMILES {_short(smiles)}: {reason}")


def smi_entries(path: Path) -> Iterator[Entry]:
    """Yield the molecules of a `.smi` file: a SMILES and, after white space, an optional name on each line.

    Blank lines, lines that begin with `#`, and a first line that begins with the word "smiles" are skipped.
    """
    for number, line in enumerate(text_lines(path), start=1):
        smiles, _, name = line.strip().partition(" " if "\t" not in line else "\t")
        if not smiles or smiles.startswith("#") or (number == 1 and smiles.lower() == "smiles"):
            continue
        name = name.strip()
        if name.startswith("|"):  # a part of the SMILES, not a name
            smiles, name = f"{smiles} {name}", ""
        yield Entry(f"line {number}", name or None, partial(from_smiles, smiles, name or None))


def csv_entries(path: Path) -> Iterator[Entry]:
    """Yield the rows of a CSV table with a column `smiles` and optionally `name` (or `id`, `title`).

    The separator is a comma, semicolon or tab.

    Raises:
        InputError: if there is no column `smiles`, a column twice, or broken quoting.
    """
    lines = text_lines(path)
    head = next(lines, "")
    separator = max(",;\t", key=head.count)
    rows = csv.reader(chain([head], lines), strict=True, delimiter=separator)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        lower = [cell.lower() for cell in header]
        if "smiles" not in lower:
            columns = ", ".join(header)[:200]
            raise NotFoundError(f"{path}, line 1: the header has no column 'smiles' but {columns!r}")
        repeated = next((cell for cell, count in Counter(header).items() if cell and count > 1), None)
        if repeated is not None:
            raise FormatError(f"{path}, line 1: the column {repeated[:40]!r} occurs twice")
        smiles_column = lower.index("smiles")
        name_column = next((lower.index(key) for key in _NAME_COLUMNS if key in lower), None)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            smiles = row[smiles_column] if smiles_column < len(row) else ""
            name = row[name_column].strip() if name_column is not None and name_column < len(row) else ""
            fields = partial(_cells, header, row, (smiles_column, name_column))
            build = partial(_of_row, header, row, smiles, name or None)
            yield Entry(f"line {rows.line_num}", name or None, build, fields)
    except csv.Error as error:
        raise FormatError(f"{path}, line {rows.line_num}: broken CSV ({error})") from error


def _of_row(header: list[str], row: list[str], smiles: str, name: str | None) -> Molecule:
    """Return the molecule of a row, whose charge must be the one that a column may state."""
    molecule = from_smiles(smiles, name)
    check_charge(dict(zip(header, row, strict=False)), molecule.charge)
    return molecule


def _cells(header: list[str], row: list[str], structure: tuple[int | None, ...]) -> dict[str, str]:
    """Return the cells of a row by column name, except those of the structure; a row may end early."""
    if len(row) > len(header):
        raise FormatError(f"the row has {len(row)} cells, the header {len(header)}")
    pairs = enumerate(zip(header, row, strict=False))
    return {key: cell for column, (key, cell) in pairs if key and column not in structure}
