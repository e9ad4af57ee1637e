"""QM9 as redistributed with MoleculeNet: `gdb9.sdf` and `gdb9.sdf.csv`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from molspectra.chem.sdf import molecule_from_block
from molspectra.datasets.formats.archives import open_text
from molspectra.datasets.formats.sdf_table import Joined, blocks, join, table_rows
from molspectra.datasets.importer import Candidate, Excluded, Row
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES, PUBLISHED, check_atomisation, targets
from molspectra.errors import FormatError, MismatchError

STRUCTURES = "gdb9.sdf"
TABLE = "gdb9.sdf.csv"

_LONGEST_LINE = 1 << 20


def columns(raw: Path) -> dict[str, int]:
    """Return the column numbers of the table by name; only the atomisation energies may be missing.

    Raises:
        FormatError: if another target is missing.
    """
    with open_text(raw, TABLE) as text:
        names = next(table_rows(raw, TABLE, [text.readline(_LONGEST_LINE)]), [])
    missing = [name for name in PUBLISHED if name not in names]
    if missing:
        raise FormatError(
            f"{raw}: {TABLE} has no column {', '.join(missing)}; it begins {','.join(names)[:80]!r}"
        )
    return {name: column for column, name in enumerate(names)}


def candidates(raw: Path, excluded: Collection[int], start: int) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on; QM9 indices among `excluded` are left out."""
    by_name = columns(raw)
    with open_text(raw, STRUCTURES) as sdf, open_text(raw, TABLE) as table:
        records = blocks(sdf, f"{raw}: {STRUCTURES}")
        rows = islice(table_rows(raw, TABLE, table), 1, None)
        for joined in islice(join(raw, STRUCTURES, records, TABLE, rows), start, None):
            yield Candidate(f"gdb_{joined.index}", partial(_row, joined, by_name, excluded))


def _row(joined: Joined[str], by_name: dict[str, int], excluded: Collection[int]) -> Row:
    if joined.index in excluded:
        raise Excluded("uncharacterised")
    if joined.repeated:
        raise MismatchError(f"index {joined.index} occurs a second time")
    molecule = molecule_from_block(joined.structure, f"gdb_{joined.index}", complete=True)
    try:
        numbers = {name: float(joined.words[by_name[name]]) for name in PUBLISHED}
        atomisation = {
            name: float(joined.words[by_name[name]])
            for name in (f"{energy}_atom" for energy in ATOMIC_ENERGIES)
            if name in by_name
        }
    except (ValueError, IndexError) as error:
        raise FormatError(f"the row of {TABLE} has too few numbers ({error})") from error
    values = targets(list(numbers.values()), molecule.numbers)
    check_atomisation(values, atomisation)
    return Row(molecule, properties=values)
