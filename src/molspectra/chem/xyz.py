"""Reading and writing of XYZ and extended XYZ, one frame at a time.

ASE's reader is not used because it parses a comment `smiles=F` as the boolean False, drops the backslashes of
E/Z SMILES, and names neither frame nor line in its messages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.charges import (
    charge_in_words,
    is_charge_line,
    is_charge_of_atoms,
    is_total_charge,
    stated_charge,
    sum_of_charges,
)
from molspectra.chem.elements import MAX_ATOMIC_NUMBER, atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry, text_lines
from molspectra.chem.sanity import check_size
from molspectra.errors import (
    ElementError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    ValueRangeError,
)

_MAX_COUNT = 1_000_000  # atoms of a frame
_PLAIN_COLUMNS = "species:S:1:pos:R:3"
_STRUCTURE = ("properties", "pbc", "lattice", "smiles", "name")
_QM9 = re.compile(r"\s*gdb\s+\d+(\s+[-+.\d*^eE]+){4,}")
_COUNT = re.compile(r"[+-]?[0-9]{1,18}")
_EXPONENT = re.compile(r"([+-]?[\d.]+)(?:[dD]|\*\^)([+-]?\d{1,3})", re.ASCII)
_BOOLEANS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_PAIR = re.compile(
    r"""(?<![^\s"'])([^\s="']+)\s*=\s*"""
    r"""("(?:[^"\\]|\\.)*"|'[^']*'|\{[^{}]*\}|\[[^\[\]]*\](?!\S)|\S+)"""
)


def xyz_entries(path: Path) -> Iterator[Entry]:
    """Yield the frames of a file of XYZ frames: number of atoms, comment, `symbol x y z` (Å) for each atom.

    Further columns are ignored unless a `Properties` entry in the comment names the columns. Entries
    `smiles` and `name` of the comment are read; a comment without any entry is the name. The charge is an
    entry (`charge`, `total_charge`), charge and multiplicity alone in the comment (`-1 1`), or the sum of a
    named column of charges. Reading ends at a frame whose number of atoms cannot be read or is too small,
    since the start of the next one is unknown.
    """
    lines = enumerate(text_lines(path), start=1)
    frame = 0
    head = _next_filled(lines)
    while head is not None:
        number, line = head
        frame += 1
        where = f"frame {frame} (line {number})"
        if not _COUNT.fullmatch(line):
            yield _invalid(where, f"expected the number of atoms, found {line[:40]!r}; reading ends")
            return
        count = int(line)
        if not 1 <= count <= _MAX_COUNT:
            yield _invalid(where, f"a frame of {count} atoms; reading ends")
            return
        comment = next(lines, (0, ""))[1]
        if _QM9.match(comment):
            yield _invalid(where, "a raw file of QM9, which `molspectra prepare qm9` reads; reading ends")
            return
        atoms = [text for _, text in islice(lines, count)]
        if len(atoms) < count:
            yield _invalid(where, f"the frame has {count} atoms, but the file ends after {len(atoms)}")
            return
        head = _next_filled(lines)
        if head is not None and _is_atom(head[1]):
            found = f"line {head[0]} is one more: {head[1][:40]!r}"
            yield _invalid(where, f"the frame should have {count} atoms, but {found}; reading ends")
            return
        fields = partial(_fields, comment)
        yield Entry(
            where, _name(comment), partial(_frame, comment, atoms), fields, partial(_vectors, comment, atoms)
        )


def _next_filled(lines: Iterator[tuple[int, str]]) -> tuple[int, str] | None:
    """Return the next line that is not blank, stripped, with its number; None at the end."""
    return next(((number, line.strip()) for number, line in lines if line.strip()), None)


def _is_atom(line: str) -> bool:
    """Whether a line looks like one of an atom: a word and three numbers, in any order."""
    words = line[:400].split()
    return len(words) >= 4 and sum(map(_is_number, words)) >= 3


def _is_number(word: str) -> bool:
    try:
        _number(word)
    except ValueError:
        return False
    return True


def _number(word: str) -> float:
    """Return a number, whose exponent may be written as in Fortran (1.2D-6) or Mathematica (1.2*^-6).

    Raises:
        ValueError: if it is none.
    """
    match = _EXPONENT.fullmatch(word)
    if match is None and "_" in word:  # Python takes 1_000 for a number
        raise ValueError(word)
    return float(word if match is None else f"{match[1]}e{match[2]}")


def _invalid(where: str, reason: str) -> Entry:
    """Return an entry whose structure raises."""

    def build() -> Molecule:
        raise FormatError(reason)

    return Entry(where, None, build)


def _fields(comment: str) -> dict[str, str]:
    """Return the entries of a comment that are not part of the structure; raise if one occurs twice."""
    pairs = [(key, _unquoted(value)) for key, value in _PAIR.findall(comment)]
    fields = {
        key: value
        for key, value in pairs
        if key.lower() not in _STRUCTURE and not is_total_charge(key, value)
    }
    counts = Counter(key for key, _ in pairs)
    repeated = next((key for key in fields if counts[key] > 1), None)
    if repeated is not None:
        raise FormatError(f"the entry {repeated[:40]!r} occurs twice in the comment")
    return fields


def _name(comment: str) -> str | None:
    """Return the name of a frame: the entry `name`, or a comment without entries."""
    entries = _entries(comment)
    if not entries and is_charge_line(comment):
        return None
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
        rows = [[_number(word) for word in line.split()[start : start + 3]] for line in atoms]
        return np.array(rows, np.float64).reshape(len(atoms), 3)
    except ValueError as error:
        raise FormatError(f"the columns {key!r} are not three numbers for each atom") from error


def _frame(comment: str, atoms: list[str]) -> Molecule:
    """Return the molecule of a frame from its comment and its atom lines."""
    check_size(len(atoms))
    entries = _entries(comment)
    _check_not_periodic(entries)
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
            positions.append([_number(word) for word in xyz])
        except InputError as error:
            raise error.with_context(f"atom {index}") from error
        except ValueError as error:
            raise FormatError(f"atom {index}: {' '.join(xyz)!r} are not three numbers") from error
    charge = stated_charge(entries)
    if charge is None and "properties" in entries:
        charge = _charge_of_atoms(starts, atoms)
    if charge is None:
        charge = charge_in_words(_PAIR.sub("", comment), sum(numbers))
    return Molecule(
        np.array(numbers), np.array(positions), entries.get("smiles"), charge or 0, _name(comment)
    )


def _check_not_periodic(entries: Mapping[str, str]) -> None:
    """Refuse a periodic structure: `pbc` in a direction, or a cell (not of zeros) without `pbc`."""
    if "pbc" in entries:
        words = entries["pbc"].strip("[]() ").replace(",", " ").split()
        if not words or any(word.lower().strip(".") not in _BOOLEANS for word in words):
            raise FormatError(f"pbc={entries['pbc'][:40]} is neither T nor F; write pbc=F for a molecule")
        if any(_BOOLEANS[word.lower().strip(".")] for word in words):
            raise ValueRangeError(
                "a periodic structure is not a molecule; cut out a molecule and set pbc to F"
            )
    elif re.search("[1-9]", entries.get("lattice", entries.get("cell", ""))):
        raise ValueRangeError(
            "a cell without pbc is a periodic structure; if it is only a box around a molecule, add pbc=F "
            "to the comment"
        )


def _charge_of_atoms(starts: Mapping[str, tuple[int, int]], atoms: list[str]) -> int | None:
    """Return the sum of the columns of charges of the atoms; None if `Properties` names none."""
    totals = {}
    for name, (start, width) in starts.items():
        if width != 1 or not is_charge_of_atoms(name):
            continue
        try:
            totals[name] = sum_of_charges(name, [_number(line.split()[start]) for line in atoms])
        except (ValueError, IndexError) as error:
            raise FormatError(f"the column {name!r} is not one number for each atom") from error
    if len(set(totals.values())) > 1:
        found = ", ".join(f"{name} to {total}" for name, total in totals.items())
        raise MismatchError(
            f"the columns of charges add up to different totals: {found}; state charge=0 or so"
        )
    return next(iter(totals.values()), None)


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
