"""Reading and writing of XYZ and extended XYZ, one frame at a time.

ASE's reader is not used because it parses a comment `smiles=F` as the boolean False, drops the backslashes of
E/Z SMILES, and names neither frame nor line in its messages.
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
from molspectra.chem.records import Entry, text_lines
from molspectra.errors import ElementError, FormatError, InputError, NotFoundError, ValueRangeError

_MAX_COUNT = 1_000_000  # atoms of a frame
_PLAIN_COLUMNS = "species:S:1:pos:R:3"
_STRUCTURE = ("properties", "pbc", "lattice", "charge", "smiles", "name")
_PAIR = re.compile(r"""([^\s="']+)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\S+)""")


def xyz_entries(path: Path) -> Iterator[Entry]:
    """Yield the frames of a file of XYZ frames: number of atoms, comment, `symbol x y z` (Å) for each atom.

    Further columns are ignored unless a `Properties` entry in the comment names the columns. Entries
    `charge`, `smiles` and `name` of the comment are read; a comment without any entry is the name. Reading
    ends at a frame whose number of atoms cannot be read, since the start of the next one is unknown.
    """
    lines = enumerate(text_lines(path), start=1)
    frame = 0
    for number, line in lines:
        if not line.strip():
            continue
        frame += 1
        where = f"frame {frame} (line {number})"
        if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", line):
            yield _invalid(where, f"expected the number of atoms, found {line.strip()[:40]!r}; reading ends")
            return
        count = int(line)
        if not 1 <= count <= _MAX_COUNT:
            yield _invalid(where, f"a frame of {count} atoms; reading ends")
            return
        comment = next(lines, (0, ""))[1]
        atoms = [text for _, text in islice(lines, count)]
        if len(atoms) < count:
            yield _invalid(where, f"the frame has {count} atoms, but the file ends after {len(atoms)}")
            return
        fields = partial(_fields, comment)
        yield Entry(
            where, _name(comment), partial(_frame, comment, atoms), fields, partial(_vectors, comment, atoms)
        )


def _invalid(where: str, reason: str) -> Entry:
    """Return an entry whose structure raises."""

    def build() -> Molecule:
        raise FormatError(reason)

    return Entry(where, None, build)


def _fields(comment: str) -> dict[str, str]:
    """Return the entries of a comment that are not part of the structure; raise if one occurs twice."""
    pairs = [(key, _unquoted(value)) for key, value in _PAIR.findall(comment)]
    fields = {key: value for key, value in pairs if key.lower() not in _STRUCTURE}
    repeated = next((key for key in fields if sum(key == other for other, _ in pairs) > 1), None)
    if repeated is not None:
        raise FormatError(f"the entry {repeated[:40]!r} occurs twice in the comment")
    return fields


def _name(comment: str) -> str | None:
    """Return the name of a frame: the entry `name`, or a comment without entries."""
    entries = _entries(comment)
    return (entries.get("name") if entries else comment.strip()) or None


def _vectors(comment: str, atoms: list[str], key: str) -> npt.NDArray[np.float64]:
    """Return the array [N, 3] of the columns that `Properties` calls `key`."""
    starts = _starts(_entries(comment).get("properties", _PLAIN_COLUMNS))
    if key.lower() not in starts:
        raise NotFoundError(f"the frame has no columns {key!r}; it has: {', '.join(starts)}")
    start, width = starts[key.lower()]
    if width != 3:
        raise FormatError(f"{key!r} has {width} columns, not 3")
    try:
        rows = [[float(word) for word in line.split()[start : start + 3]] for line in atoms]
        return np.array(rows, np.float64).reshape(len(atoms), 3)
    except ValueError as error:
        raise FormatError(f"the columns {key!r} are not three numbers for each atom") from error


def _frame(comment: str, atoms: list[str]) -> Molecule:
    """Return the molecule of a frame from its comment and its atom lines."""
    entries = _entries(comment)
    periodic = entries.get("pbc", "T T T" if "lattice" in entries else "F F F")
    if "T" in periodic.upper():
        raise ValueRangeError("a periodic structure is not a molecule; cut out the molecule and set pbc to F")
    properties = entries.get("properties", _PLAIN_COLUMNS)
    starts = _starts(properties)
    symbol = starts.get("species", starts.get("z"))
    if symbol is None or "pos" not in starts:
        raise FormatError(f"Properties={properties[:80]} does not name the columns species and pos")
    symbol_column, first_column = symbol[0], starts["pos"][0]
    numbers, positions = [], []
    for index, line in enumerate(atoms, start=1):
        words = line.split()
        if len(words) < max(symbol_column + 1, first_column + 3):
            raise FormatError(f"atom {index}: expected symbol, x, y, z, found {line.strip()[:60]!r}")
        label, xyz = words[symbol_column], words[first_column : first_column + 3]
        try:
            numbers.append(int(label) if label.isdecimal() else atomic_number(label.capitalize()))
            if not 1 <= numbers[-1] <= MAX_ATOMIC_NUMBER:
                raise ElementError(f"{label} is not an atomic number")
            positions.append([float(word) for word in xyz])
        except InputError as error:
            raise error.with_context(f"atom {index}") from error
        except ValueError as error:
            raise FormatError(f"atom {index}: {' '.join(xyz)!r} are not three numbers") from error
    charge = entries.get("charge", "0")
    try:
        total_charge = round(float(charge))
    except (ValueError, OverflowError) as error:
        raise FormatError(f"charge={charge} is not a number") from error
    return Molecule(
        np.array(numbers), np.array(positions), entries.get("smiles"), total_charge, _name(comment)
    )


def _starts(properties: str) -> dict[str, tuple[int, int]]:
    """Return (first column, number of columns) by name from an extended XYZ `Properties` entry."""
    words = properties.split(":")
    starts: dict[str, tuple[int, int]] = {}
    column = 0
    try:
        for name, _, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            starts[name.lower()] = column, int(width)
            column += int(width)
    except ValueError as error:
        raise FormatError(
            f"Properties={properties[:80]} does not name the columns species and pos"
        ) from error
    return starts


def _entries(comment: str) -> dict[str, str]:
    """Return the entries of a comment by key in lower case."""
    return {key.lower(): _unquoted(value) for key, value in _PAIR.findall(comment)}


def _unquoted(value: str) -> str:
    """Return the value of a comment entry without its quotes or braces."""
    if value[0] in "\"'{" and len(value) > 1:
        return value[1:-1].replace('\\"', '"')
    return value


def xyz_frame(
    molecule: Molecule, entries: Mapping[str, str], forces: npt.NDArray[np.floating] | None = None
) -> str:
    """Return one extended XYZ frame, which `xyz_entries` can read; coordinates are rounded to 1e-8 Å.

    Args:
        molecule: the structure.
        entries: further entries of the comment, besides SMILES, name and charge.
        forces: [N, 3], columns `forces`; None without.
    """
    facts = {"charge": str(molecule.charge), "smiles": molecule.smiles, "name": molecule.name, **entries}
    columns = _PLAIN_COLUMNS + ("" if forces is None else ":forces:R:3")
    pairs = (f"{key}={_quoted(text)}" for key, text in facts.items() if text)
    comment = " ".join([f"Properties={columns}", *pairs, 'pbc="F F F"'])
    table = molecule.positions if forces is None else np.concatenate([molecule.positions, forces], axis=1)
    rows = (
        f"{symbol:2s} " + " ".join(f"{value:15.8f}" for value in row)
        for symbol, row in zip(molecule.symbols, table.tolist(), strict=True)
    )
    return "\n".join([str(len(molecule)), comment, *rows]) + "\n"


def _quoted(text: str) -> str:
    """Return a value for a comment on one line, in quotes unless it is of letters, digits and `.+-`."""
    plain = " ".join(text.split())
    return plain if re.fullmatch(r"[\w.+-]+", plain) else '"' + plain.replace('"', '\\"') + '"'
