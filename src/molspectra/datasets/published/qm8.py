"""QM8: the two lowest singlet excitations of 21,786 molecules at four levels of theory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry
from molspectra.chem.sdf import molecule_from_block
from molspectra.chem.xyz import xyz_entries
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.datasets.formats.archives import holds, is_tar, open_text
from molspectra.datasets.formats.sdf_table import Joined, blocks, join, table_rows
from molspectra.datasets.importer import Candidate, Importer, Opened, Row, choice
from molspectra.datasets.published.qm9_targets import LEVEL as GEOMETRY_LEVEL
from molspectra.errors import FormatError, MismatchError, NotFoundError, ValueRangeError
from molspectra.simulation.units import HARTREE
from molspectra.spectra.spectrum import LineSpectrum

TOTAL = 21_786
"""Molecules in the published files."""

LEVELS = {
    "cc2-tzvp": "RI-CC2/def2-TZVP",
    "pbe0-svp": "TDDFT PBE0/def2-SVP",
    "pbe0-tzvp": "TDDFT PBE0/def2-TZVP",
    "cam-b3lyp-tzvp": "TDDFT CAM-B3LYP/def2-TZVP",
}
"""Levels of theory in the order of the files: each has two energies, then two oscillator strengths."""

TEXT = "gdb8_22k_elec_spec.txt"
TABLE = "qm8.sdf.csv"
STRUCTURES = "qm8.sdf"
FRAMES = "XYZ_B3LYP_631G2dfp.xyz"

_COMPARED = 100
_SOURCE = (
    "QM8: R. Ramakrishnan, M. Hartmann, E. Tapavicza, O. A. von Lilienfeld, Electronic spectra from TDDFT "
    "and machine learning in chemical space, J. Chem. Phys. 143, 084111 (2015), doi:10.1063/1.4928757"
)


_FILES = (
    f"a folder (or the archive gdb8.tar.gz) with {STRUCTURES} and {TABLE}; or a folder with {TEXT} and "
    f"either {STRUCTURES} or {FRAMES}"
)


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Open the structures and the more complete of the tables."""
    level = choice(options, "level", LEVELS, "cc2-tzvp")
    if raw.is_file() and not is_tar(raw) and raw.suffix != ".zip":
        raw = raw.parent
    table, structures = _files(raw)
    levels = dict(LEVELS)
    notes = {
        "table": table,
        "oscillator_strengths": "properties as published; lines with f < 0 have f = 0",
    }
    if table == TABLE and _repeats(raw):
        # as in the copy that MoleculeNet distributes
        del levels["pbe0-tzvp"]
        notes["left_out"] = f"{TABLE} repeats the PBE0/def2-SVP values in place of PBE0/def2-TZVP"
    if level not in levels:
        raise NotFoundError(f"{raw}: {notes['left_out']}; take {TEXT} for level={level}")
    metadata = Metadata(
        source=_SOURCE,
        licence="MIT (the repository of the first author)",
        level=GEOMETRY_LEVEL,
        lines={"uv_vis": levels[level]},
        properties={
            f"{kind}_{_word(key)}": Quantity("eV" if kind[0] == "e" else "", levels[key])
            for key in levels
            for kind in ("e1", "e2", "f1", "f2")
        },
        notes=notes,
    )
    reader = partial(_candidates, raw, table, structures, tuple(levels), level)
    return Opened(metadata, reader, total=TOTAL, expected=TOTAL)


QM8 = Importer(
    "qm8",
    "QM8",
    _FILES,
    {"level": f"of the uv_vis lines: {', '.join(LEVELS)}; default cc2-tzvp"},
    _open,
)
"""Importer `qm8`."""


def _files(raw: Path) -> tuple[str, str]:
    """Return the names of table and structures to read; the text file has one more level of theory."""
    for table in (TEXT, TABLE):
        if holds(raw, table):
            for structures in (STRUCTURES, FRAMES):
                if holds(raw, structures) and (structures == STRUCTURES or raw.is_dir()):
                    return table, structures
    raise NotFoundError(f"{raw} does not hold QM8; it must be {_FILES}")


def _repeats(raw: Path) -> bool:
    """Return whether the two PBE0 blocks of the first rows are the same."""
    with open_text(raw, TABLE) as text:
        rows = list(islice(table_rows(raw, TABLE, text), 1, _COMPARED))
    return bool(rows) and all(row[5:9] == row[9:13] for row in rows)


def _rows(raw: Path, lines: Iterator[str], table: str) -> Iterator[list[str]]:
    """Yield the cells of the rows; in the text file, lines that begin with # are the header."""
    if table == TABLE:
        yield from islice(table_rows(raw, table, lines), 1, None)
    else:
        yield from (line.split() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _candidates(
    raw: Path, table: str, structures: str, levels: tuple[str, ...], level: str, start: int
) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on."""
    with ExitStack() as stack:
        rows = _rows(raw, stack.enter_context(open_text(raw, table)), table)
        records: Iterator[tuple[int | None, str | Entry]]
        if structures == STRUCTURES:
            records = blocks(stack.enter_context(open_text(raw, structures)), f"{raw}: {structures}")
        else:
            records = ((None, entry) for entry in xyz_entries(raw / structures))
        for joined in islice(join(raw, structures, records, table, rows), start, None):
            yield Candidate(f"gdb_{joined.index}", partial(_row, joined, levels, level))


def _row(joined: Joined[str | Entry], levels: tuple[str, ...], level: str) -> Row:
    if joined.repeated:
        raise MismatchError(f"index {joined.index} occurs a second time")
    molecule = _molecule(joined)
    try:
        cells = [float(word) for word in joined.words[1:]]
    except ValueError as error:
        raise FormatError(f"a label is not a number ({error})") from error
    if len(cells) != 4 * len(LEVELS):
        raise FormatError(f"the row has {len(cells)} labels, not {4 * len(LEVELS)}")
    values = {key: cells[4 * index : 4 * index + 4] for index, key in enumerate(LEVELS)}
    for first, second, *_ in values.values():
        if not (first > 0 and second > 0):
            raise ValueRangeError(f"excitation energies {first} and {second} Hartree are not both positive")
    properties = {
        f"{kind}_{_word(key)}": value * (HARTREE if kind[0] == "e" else 1)
        for key in levels
        for kind, value in zip(("e1", "e2", "f1", "f2"), values[key], strict=True)
    }
    lines, clipped = lines_of(values[level], LEVELS[level])
    changes = ("an oscillator strength below 0 is 0 in the lines",) if clipped else ()
    return Row(molecule, {"uv_vis": lines}, properties, changes=changes)


def lines_of(values: list[float], level: str) -> tuple[LineSpectrum, bool]:
    """Return two excitations, energies in Hartree and then oscillator strengths, as lines in eV.

    Returns:
        The lines, and whether an oscillator strength below 0 was set to 0.
    """
    states = sorted(zip(values[:2], values[2:], strict=True))
    position = np.array([energy * HARTREE for energy, _ in states])
    strength = np.array([max(0.0, strength) for _, strength in states])
    return LineSpectrum("uv_vis", position, strength, level), min(values[2:]) < 0


def _molecule(joined: Joined[str | Entry]) -> Molecule:
    name = f"gdb_{joined.index}"
    if isinstance(joined.structure, str):
        return molecule_from_block(joined.structure, name, complete=True)
    molecule = joined.structure.structure()
    stated = re.search(r"gdb\D*(\d+)", molecule.name or "")
    if stated and int(stated[1]) != joined.index:
        raise MismatchError(f"the structure is molecule {stated[1]}, the labels are of {joined.index}")
    return Molecule(molecule.numbers, molecule.positions, name=name)


def _word(level: str) -> str:
    return level.replace("-", "_")
