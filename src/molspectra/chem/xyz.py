"""Molecules from and to XYZ and extended XYZ, one frame at a time.

Parsed here and not by ASE, whose reader takes a comment `smiles=F` for the boolean False and drops the
backslashes of E/Z SMILES, and whose messages name neither frame nor line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.elements import MAX_ATOMIC_NUMBER, atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry, Record, failing, text_lines
from molspectra.errors import InputError

_MAX_COUNT = 1_000_000  # atoms of a frame
_STRUCTURE = ("properties", "pbc", "lattice", "charge", "smiles", "name")
_PAIR = re.compile(r"""([^\s="']+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\S+)""")


def xyz_records(path: Path) -> Iterator[Record]:
    """Records of a file of XYZ frames: number of atoms, comment, then `symbol x y z` (Å) for each atom.

    Further columns are ignored unless a `Properties` entry in the comment says where symbols and positions
    are. Entries `charge`, `smiles` and `name` of the comment are read; a comment without any entry is the
    name. A frame whose number of atoms cannot be read ends the reading, since the next one cannot be found.
    """
    for entry in xyz_entries(path):
        yield Record(entry.where, entry.molecule)


def xyz_entries(path: Path) -> Iterator[Entry]:
    """Frames of a file with the entries of their comments and their columns."""
    lines = enumerate(text_lines(path), start=1)
    frame = 0
    for number, line in lines:
        if not line.strip():
            continue
        frame += 1
        where = f"frame {frame} (line {number})"
        if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", line):
            yield _failing(where, f"expected the number of atoms, found {line.strip()[:40]!r}; reading ends")
            return
        count = int(line)
        if not 1 <= count <= _MAX_COUNT:
            yield _failing(where, f"a frame of {count} atoms; reading ends")
            return
        comment = next(lines, (0, ""))[1]
        atoms = [text for _, text in islice(lines, count)]
        if len(atoms) < count:
            yield _failing(where, f"the frame has {count} atoms, but the file ends after {len(atoms)}")
            return
        fields = partial(_fields, comment)
        yield Entry(
            where, _name(comment), partial(_frame, comment, atoms), fields, partial(_vectors, comment, atoms)
        )


def _failing(where: str, reason: str) -> Entry:
    return Entry(where, None, failing(where, reason).build)


def _fields(comment: str) -> dict[str, str]:
    """Entries of a comment that are not part of the structure.

    Raises:
        InputError: if a key occurs twice.
    """
    pairs = [(key, _unquoted(value)) for key, value in _PAIR.findall(comment)]
    fields = {key: value for key, value in pairs if key.lower() not in _STRUCTURE}
    twice = next((key for key in fields if sum(key == other for other, _ in pairs) > 1), None)
    if twice is not None:
        raise InputError(f"the entry {twice[:40]!r} occurs twice in the comment")
    return fields


def _name(comment: str) -> str | None:
    """Name of a frame: the entry `name`, or a comment without entries."""
    entries = {key.lower(): _unquoted(value) for key, value in _PAIR.findall(comment)}
    return (entries.get("name") if entries else comment.strip()) or None


def _vectors(comment: str, atoms: list[str], key: str) -> npt.NDArray[np.float64]:
    """Array [N, 3] of the columns that `Properties` calls `key`.

    Raises:
        InputError: if there are no such columns, or not three numbers in them.
    """
    entries = {name.lower(): _unquoted(value) for name, value in _PAIR.findall(comment)}
    starts = _starts(entries.get("properties", "species:S:1:pos:R:3"))
    if key.lower() not in starts:
        raise InputError(f"the frame has no columns {key!r}; it has: {', '.join(starts)}")
    start, width = starts[key.lower()]
    if width != 3:
        raise InputError(f"{key!r} has {width} columns, not 3")
    try:
        rows = [[float(word) for word in line.split()[start : start + 3]] for line in atoms]
        return np.array(rows, np.float64).reshape(len(atoms), 3)
    except ValueError as error:
        raise InputError(f"the columns {key!r} are not three numbers for each atom") from error


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
    starts = _starts(properties)
    symbol = starts.get("species", starts.get("z"))
    if symbol is None or "pos" not in starts:
        raise InputError(f"Properties={properties[:80]} does not name the columns species and pos")
    return symbol[0], starts["pos"][0]


def _starts(properties: str) -> dict[str, tuple[int, int]]:
    """First column and number of columns by name, from an extended XYZ `Properties` entry."""
    words = properties.split(":")
    starts: dict[str, tuple[int, int]] = {}
    column = 0
    try:
        for name, _, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            starts[name.lower()] = column, int(width)
            column += int(width)
    except ValueError as error:
        raise InputError(f"Properties={properties[:80]} does not name the columns species and pos") from error
    return starts


def _unquoted(value: str) -> str:
    """Value of a comment entry without its quotes or braces."""
    if value[0] in "\"'{" and len(value) > 1:
        return value[1:-1].replace('\\"', '"')
    return value


def xyz_frame(
    molecule: Molecule, entries: Mapping[str, str], forces: npt.NDArray[np.floating] | None = None
) -> str:
    """One extended XYZ frame, which `xyz_entries` reads again; coordinates to 1e-8 Å.

    Args:
        molecule: the structure.
        entries: what the comment says besides SMILES, name and charge.
        forces: [N, 3], columns `forces`; None without.
    """
    facts = {"charge": str(molecule.charge), "smiles": molecule.smiles, "name": molecule.name, **entries}
    columns = "species:S:1:pos:R:3" + ("" if forces is None else ":forces:R:3")
    pairs = (f"{key}={_quoted(text)}" for key, text in facts.items() if text)
    comment = " ".join([f"Properties={columns}", *pairs, 'pbc="F F F"'])
    table = molecule.positions if forces is None else np.concatenate([molecule.positions, forces], axis=1)
    rows = (
        f"{symbol:2s} " + " ".join(f"{value:15.8f}" for value in row)
        for symbol, row in zip(molecule.symbols, table.tolist(), strict=True)
    )
    return "\n".join([str(len(molecule)), comment, *rows]) + "\n"


def _quoted(text: str) -> str:
    """A value of a comment, in quotes where it is more than letters, digits and the like; of one line."""
    plain = " ".join(text.split())
    return plain if re.fullmatch(r"[\w.+-]+", plain) else '"' + plain.replace('"', '\\"') + '"'
