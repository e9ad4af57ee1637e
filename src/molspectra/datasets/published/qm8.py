"""QM8: the two lowest singlet excitations of 21,786 molecules at four levels of theory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.chem.records import Entry
from molspectra.chem.sdf import molecule_from_block
from molspectra.chem.xyz import xyz_entries
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.datasets.formats.archives import holds, is_tar, open_text
from molspectra.datasets.formats.sdf_table import Joined, blocks, join, table_rows
from molspectra.datasets.importer import Candidate, Opened, Row, choice
from molspectra.datasets.published.qm9_targets import LEVEL as GEOMETRY_LEVEL
from molspectra.errors import InputError
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


class Qm8:
    """Importer of QM8: structures in `qm8.sdf`, labels in `qm8.sdf.csv` or `gdb8_22k_elec_spec.txt`."""

    name = "qm8"
    title = "QM8"
    files = (
        f"a folder (or the archive gdb8.tar.gz) with {STRUCTURES} and {TABLE}; or a folder with {TEXT} and "
        f"either {STRUCTURES} or {FRAMES}"
    )
    options: Mapping[str, str] = MappingProxyType(
        {"level": f"of the uv_vis lines: {', '.join(LEVELS)}; default cc2-tzvp"}
    )

    def open(self, raw: Path, options: Mapping[str, str]) -> Opened:
        """Open the structures and the better of the tables that are there.

        Raises:
            InputError: if one is missing, or the level is unknown or not in the table.
        """
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
            # known of the copy that MoleculeNet distributes
            del levels["pbe0-tzvp"]
            notes["left_out"] = f"{TABLE} repeats the PBE0/def2-SVP values in place of PBE0/def2-TZVP"
        if level not in levels:
            raise InputError(f"{raw}: {notes['left_out']}; take {TEXT} for level={level}")
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


QM8 = Qm8()
"""The importer."""


def _files(raw: Path) -> tuple[str, str]:
    """Names of the table and of the file of structures to read; the text file has one level more."""
    for table in (TEXT, TABLE):
        if holds(raw, table):
            for structures in (STRUCTURES, FRAMES):
                if holds(raw, structures) and (structures == STRUCTURES or raw.is_dir()):
                    return table, structures
    raise InputError(f"{raw} does not hold QM8; it must be {QM8.files}")


def _repeats(raw: Path) -> bool:
    """Whether the two PBE0 blocks of the first rows are the same."""
    with open_text(raw, TABLE) as text:
        rows = list(islice(table_rows(raw, TABLE, text), 1, _COMPARED))
    return bool(rows) and all(row[5:9] == row[9:13] for row in rows)


def _rows(raw: Path, lines: Iterator[str], table: str) -> Iterator[list[str]]:
    """Cells of the rows behind the header; lines of the text file that begin with # are its header."""
    if table == TABLE:
        rows = table_rows(raw, table, lines)
        next(rows, None)
        yield from rows
    else:
        yield from (line.split() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _candidates(
    raw: Path, table: str, structures: str, levels: tuple[str, ...], level: str, start: int
) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on."""
    with ExitStack() as stack:
        rows = _rows(raw, stack.enter_context(open_text(raw, table)), table)
        found: Iterator[tuple[int | None, str | Entry]]
        if structures == STRUCTURES:
            found = blocks(stack.enter_context(open_text(raw, structures)))
        else:
            found = ((None, entry) for entry in xyz_entries(raw / structures))
        for joined in islice(join(raw, structures, found, table, rows), start, None):
            yield Candidate(f"gdb_{joined.index}", partial(_row, joined, levels, level))


def _row(joined: Joined[str | Entry], levels: tuple[str, ...], level: str) -> Row:
    if joined.repeated:
        raise InputError(f"index {joined.index} occurs a second time")
    molecule = _molecule(joined)
    try:
        cells = [float(word) for word in joined.words[1:]]
    except ValueError as error:
        raise InputError(f"a label is not a number ({error})") from error
    if len(cells) != 4 * len(LEVELS):
        raise InputError(f"the row has {len(cells)} labels, not {4 * len(LEVELS)}")
    values = {key: cells[4 * place : 4 * place + 4] for place, key in enumerate(LEVELS)}
    for one, other, *_ in values.values():
        if not (one > 0 and other > 0):
            raise InputError(f"excitation energies {one} and {other} Hartree are not both positive")
    properties = {
        f"{kind}_{_word(key)}": value * (HARTREE if kind[0] == "e" else 1)
        for key in levels
        for kind, value in zip(("e1", "e2", "f1", "f2"), values[key], strict=True)
    }
    lines, clipped = lines_of(values[level], LEVELS[level])
    changes = ("an oscillator strength below 0 is 0 in the lines",) if clipped else ()
    return Row(molecule, {"uv_vis": lines}, properties, changes=changes)


def lines_of(values: list[float], level: str) -> tuple[LineSpectrum, bool]:
    """Return the two excitations as lines in eV, and whether an oscillator strength below 0 was set to 0.

    Args:
        values: two energies in Hartree, then their oscillator strengths.
        level: level of theory.
    """
    states = sorted(zip(values[:2], values[2:], strict=True))
    position = np.array([energy * HARTREE for energy, _ in states])
    strength = np.array([max(0.0, each) for _, each in states])
    return LineSpectrum("uv_vis", position, strength, level), min(values[2:]) < 0


def _molecule(joined: Joined[str | Entry]) -> Molecule:
    name = f"gdb_{joined.index}"
    if isinstance(joined.structure, str):
        return molecule_from_block(joined.structure, name, complete=True)
    molecule = joined.structure.molecule()
    stated = re.search(r"gdb\D*(\d+)", molecule.name or "")
    if stated and int(stated[1]) != joined.index:
        raise InputError(f"the structure is molecule {stated[1]}, the labels are of {joined.index}")
    return Molecule(molecule.numbers, molecule.positions, name=name)


def _word(level: str) -> str:
    return level.replace("-", "_")
