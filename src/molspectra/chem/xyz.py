"""Molecules from XYZ and extended XYZ files, one frame at a time.

Parsed here and not by ASE, whose reader takes a comment `smiles=F` for the boolean False and drops the
backslashes of E/Z SMILES, and whose messages name neither frame nor line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from molspectra.chem.elements import MAX_ATOMIC_NUMBER, atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Record, failing, text_lines
from molspectra.errors import InputError

_PAIR = re.compile(r"""([^\s="']+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\S+)""")


def xyz_records(path: Path) -> Iterator[Record]:
    """Records of a file of XYZ frames: number of atoms, comment, then `symbol x y z` (Å) for each atom.

    Further columns are ignored unless a `Properties` entry in the comment says where symbols and positions
    are. Entries `charge`, `smiles` and `name` of the comment are read; a comment without any entry is the
    name. A frame whose number of atoms cannot be read ends the reading, since the next one cannot be found.
    """
    lines = enumerate(text_lines(path), start=1)
    frame = 0
    for number, line in lines:
        if not line.strip():
            continue
        frame += 1
        where = f"frame {frame} (line {number})"
        try:
            count = int(line)
        except ValueError:
            yield failing(where, f"expected the number of atoms, found {line.strip()[:40]!r}; reading ends")
            return
        if count < 1:
            yield failing(where, f"a frame of {count} atoms; reading ends")
            return
        comment = next(lines, (0, ""))[1]
        atoms = [text for _, text in (next(lines, (0, None)) for _ in range(count)) if text is not None]
        if len(atoms) < count:
            yield failing(where, f"the frame has {count} atoms, but the file ends after {len(atoms)}")
            return
        yield Record(where, partial(_frame, comment, atoms))


def _frame(comment: str, atoms: list[str]) -> Molecule:
    """One molecule from the comment and the atom lines of a frame."""
    entries = {key.lower(): _unquoted(value) for key, value in _PAIR.findall(comment)}
    periodic = entries.get("pbc", "T T T" if "lattice" in entries else "F F F")
    if "T" in periodic.upper():
        raise InputError("a periodic structure is not a molecule; cut out the molecule and set pbc to F")
    symbol_at, position_at = _columns(entries.get("properties", "species:S:1:pos:R:3"))
    numbers, positions = [], []
    for index, line in enumerate(atoms, start=1):
        words = line.split()
        if len(words) < max(symbol_at + 1, position_at + 3):
            raise InputError(f"atom {index}: expected symbol, x, y, z, found {line.strip()[:60]!r}")
        label, xyz = words[symbol_at], words[position_at : position_at + 3]
        try:
            numbers.append(int(label) if label.isdecimal() else atomic_number(label.capitalize()))
            if not 1 <= numbers[-1] <= MAX_ATOMIC_NUMBER:
                raise InputError(f"{label} is not an atomic number")
            positions.append([float(word) for word in xyz])
        except InputError as error:
            raise InputError(f"atom {index}: {error}") from error
        except ValueError as error:
            raise InputError(f"atom {index}: {' '.join(xyz)!r} are not three numbers") from error
    name = entries.get("name") if entries else comment.strip()
    charge = entries.get("charge", "0")
    try:
        whole = round(float(charge))
    except (ValueError, OverflowError) as error:
        raise InputError(f"charge={charge} is not a number") from error
    return Molecule(np.array(numbers), np.array(positions), entries.get("smiles"), whole, name or None)


def _columns(properties: str) -> tuple[int, int]:
    """Columns where the symbol and the first coordinate stand, from an extended XYZ `Properties` entry."""
    words = properties.split(":")
    starts: dict[str, int] = {}
    column = 0
    try:
        for name, _, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            starts[name.lower()] = column
            column += int(width)
        symbol = starts["species"] if "species" in starts else starts["z"]
        return symbol, starts["pos"]
    except (ValueError, KeyError) as error:
        raise InputError(f"Properties={properties} does not name the columns species and pos") from error


def _unquoted(value: str) -> str:
    """Value of a comment entry without its quotes or braces."""
    if value[0] in "\"'{" and len(value) > 1:
        return value[1:-1].replace('\\"', '"')
    return value
