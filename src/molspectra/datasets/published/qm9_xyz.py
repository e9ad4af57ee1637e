"""QM9 as first published: `dsgdb9nsd.xyz.tar.bz2`, one small file per molecule."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from molspectra.chem.elements import atomic_number
from molspectra.chem.identity import identity_from_inchi
from molspectra.chem.molecule import Molecule
from molspectra.datasets.formats.archives import small_files
from molspectra.datasets.importer import Candidate, Excluded, Row
from molspectra.datasets.published.qm9_targets import PUBLISHED, targets
from molspectra.errors import FormatError, MismatchError

_INDEX = re.compile(r"(?<!\d)(\d{1,18})\.xyz")


def is_molecule(name: str) -> bool:
    """Return whether a file of that name holds a molecule; the `._` files that macOS adds do not."""
    return name.endswith(".xyz") and not name.startswith("._")


def candidates(raw: Path, excluded: Collection[int], start: int) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on; QM9 indices among `excluded` are left out."""
    seen = set[int]()
    for number, (name, read) in enumerate(small_files(raw, is_molecule)):
        match = _INDEX.search(name)
        index = int(match[1]) if match else None
        repeated = index in seen
        if index is not None:
            seen.add(index)
        if number >= start:  # those before tell which index is repeated
            yield Candidate(name, partial(_row, index, repeated, read, excluded))


def _row(index: int | None, repeated: bool, read: Callable[[], bytes], excluded: Collection[int]) -> Row:
    if index is None:
        raise FormatError("the name of the file does not end with an index, as in dsgdb9nsd_000001.xyz")
    if index in excluded:
        raise Excluded("uncharacterised")
    if repeated:
        raise MismatchError(f"index {index} occurs a second time")
    return row_of(read().decode(errors="replace"), index)


def row_of(text: str, index: int) -> Row:
    """Return the row of one file.

    Line 1 is the number of atoms n, line 2 `gdb`, the index and 15 scalars; n lines `symbol x y z charge`
    follow, then the frequencies, two SMILES and two InChI, each pair for the GDB-17 molecule (or its Corina
    geometry) and for the relaxed geometry. SMILES and identity are taken from the second of each, which
    belongs to the structure that is stored.

    Args:
        text: content of the file.
        index: QM9 index in the name of the file.
    """
    lines = text.replace("*^", "e").split("\n")
    try:
        n_atoms = int(lines[0])
    except ValueError as error:
        raise FormatError(f"line 1 is {lines[0].strip()[:40]!r}, not the number of atoms") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if n_atoms < 1 or len(lines) != n_atoms + 5:
        raise FormatError(f"{n_atoms} atoms need {n_atoms + 5} lines, the file has {len(lines)}")
    scalars = _scalars(lines[1], index)
    words = [line.split() for line in lines[2 : 2 + n_atoms]]
    wrong = next((atom for atom, cells in enumerate(words) if len(cells) != 5), None)
    if wrong is not None:
        raise FormatError(
            f"line {wrong + 3} is {lines[wrong + 2].strip()[:60]!r}, not symbol, x, y, z, charge"
        )
    try:
        positions = np.array([[float(x), float(y), float(z)] for _, x, y, z, _ in words])
    except ValueError as error:
        raise FormatError(f"a coordinate is not a number ({error})") from error
    numbers = np.array([atomic_number(symbol) for symbol, *_ in words])
    frequencies = len(lines[2 + n_atoms].split())
    if frequencies not in (3 * n_atoms - 6, 3 * n_atoms - 5):
        raise FormatError(f"{n_atoms} atoms cannot have {frequencies} vibrations (line {n_atoms + 3})")
    smiles, inchi = lines[-2].split(), lines[-1].split()
    if len(smiles) != 2 or len(inchi) != 2:
        raise FormatError("the last two lines are not two SMILES and two InChI")
    molecule = Molecule(numbers, positions, smiles[1], name=f"gdb_{index}")
    identity = identity_from_inchi(inchi[1], numbers)
    return Row(molecule, properties=targets(scalars, numbers), identity=identity)


def _scalars(line: str, index: int) -> list[float]:
    words = line.split()
    if len(words) != 2 + len(PUBLISHED) or words[0] != "gdb":
        raise FormatError(f"line 2 is not 'gdb', the index and 15 numbers, but {len(words)} words")
    if words[1] != str(index):
        raise MismatchError(f"line 2 has index {words[1][:20]}, the name of the file {index}")
    try:
        return [float(word) for word in words[2:]]
    except ValueError as error:
        raise FormatError(f"line 2 has a word that is not a number ({error})") from error
