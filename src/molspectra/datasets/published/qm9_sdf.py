"""QM9 as redistributed with MoleculeNet: `gdb9.sdf` and `gdb9.sdf.csv`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from molspectra.chem.sdf import molecule_from_block
from molspectra.datasets.formats.sdf_table import Joined, header, records
from molspectra.datasets.importer import Candidate, Excluded, Row
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES, PUBLISHED, check_atomisation, targets
from molspectra.errors import InputError

STRUCTURES = "gdb9.sdf"
TABLE = "gdb9.sdf.csv"


def columns(raw: Path) -> dict[str, int]:
    """Return where the table has each target; the atomisation energies may be missing.

    Raises:
        InputError: if another is missing.
    """
    names = header(raw, TABLE)
    found = {name: place for place, name in enumerate(names)}
    missing = [name for name in PUBLISHED if name not in found]
    if missing:
        raise InputError(
            f"{raw}: {TABLE} has no column {', '.join(missing)}; it begins {','.join(names)[:80]!r}"
        )
    return found


def candidates(raw: Path, excluded: Collection[int], start: int) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on.

    Args:
        raw: folder or archive with both files.
        excluded: QM9 indices of the molecules to leave out.
        start: molecules to pass over.

    Raises:
        InputError: if a file is damaged, or they do not belong together.
    """
    places = columns(raw)
    for joined in islice(records(raw, STRUCTURES, TABLE), start, None):
        yield Candidate(f"gdb_{joined.index}", partial(_row, joined, places, excluded))


def _row(joined: Joined[str], places: dict[str, int], excluded: Collection[int]) -> Row:
    if joined.index in excluded:
        raise Excluded("uncharacterised")
    if joined.repeated:
        raise InputError(f"index {joined.index} occurs a second time")
    molecule = molecule_from_block(joined.structure, f"gdb_{joined.index}", complete=True)
    try:
        numbers = {name: float(joined.words[places[name]]) for name in PUBLISHED}
        atomisation = {
            name: float(joined.words[places[name]])
            for name in (f"{each}_atom" for each in ATOMIC_ENERGIES)
            if name in places
        }
    except (ValueError, IndexError) as error:
        raise InputError(f"the row of {TABLE} has too few numbers ({error})") from error
    values = targets(list(numbers.values()), molecule.numbers)
    check_atomisation(values, atomisation)
    return Row(molecule, properties=values)
