"""Molecules from files, stores, lists and tables, read and checked one by one, in batches for a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from molspectra.apps.learned import Learned
from molspectra.apps.loading import LoadedModel
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import FORMATS, ErrorPolicy, Unread, is_single, open_entries
from molspectra.chem.records import check_readable
from molspectra.chem.sanity import check_for_model
from molspectra.data.batch import Batch
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.shards import is_store
from molspectra.data.store.store import Row, Store
from molspectra.errors import FormatError, MolspectraError, NotFoundError, SettingError, hint
from molspectra.evaluation.embedding import batch_on_device
from molspectra.training.data import open_store
from molspectra.training.progress import progress

NAMES = ("name", "id", "title")
"""Columns of a table that name a molecule, the first that is there."""

SUFFIXES = (*FORMATS, "parquet", "arrow")
"""Suffixes of files with molecules."""

Molecules = (
    str | os.PathLike[str] | Store | Molecule | Sequence[str | Molecule] | Any
)  # the last: molecules of RDKit and ASE, a column of a frame, or a table with the Arrow interface


Candidate = tuple[str, Callable[[], Molecule | Row]]
"""A molecule that is still to be read: its place, for messages, and a function that reads it."""


class Candidates(NamedTuple):
    """Molecules that are still to be read.

    Attributes:
        path: their file, or "molecules" or "table" where they are in memory.
        items: the molecules.
        total: their number where it is known.
    """

    path: str
    items: Iterable[Candidate]
    total: int | None


@dataclass(frozen=True)
class CheckedMolecule:
    """A molecule with its file or list, its place there, and its identity."""

    path: str
    where: str
    molecule: Molecule
    identity: str


def candidates_of(molecules: Molecules, smiles: str = "smiles") -> Candidates:
    """Molecules in any form, not yet read.

    Args:
        molecules: path of a file (`SUFFIXES`), name of a bundled store, a store, a molecule (also of RDKit or
            ASE), a list or a column of SMILES and molecules (also an array [n] or [n, 1], or a series), or a
            table with the Arrow interface.
        smiles: column of a table that holds SMILES.

    Raises:
        InputError: a file that is missing, empty or of an unknown format, or a table without the column.
    """
    if isinstance(molecules, Store):
        return _of_store(molecules)
    if isinstance(molecules, str | os.PathLike):
        return _of_file(os.fspath(molecules))
    if is_single(molecules):
        molecules = [molecules]
    if isinstance(molecules, np.ndarray) and molecules.ndim == 2 and molecules.shape[1] == 1:
        molecules = molecules[:, 0]
    is_column = len(getattr(molecules, "shape", ())) == 1  # such as a pandas series, which is a list here
    if hasattr(molecules, "__arrow_c_stream__") and not is_column:
        return _of_table(molecules, smiles)
    try:
        items: list[Any] = list(molecules)  # type: ignore[arg-type]
    except TypeError as error:
        kind = type(molecules).__name__
        raise FormatError(
            f"molecules: expected a file, store, list or table, not an object of type {kind}"
        ) from error
    reads = [(f"item {number}", Unread(item)) for number, item in enumerate(items, start=1)]
    return Candidates("molecules", reads, len(reads))


def _of_store(store: Store) -> Candidates:
    def read(row: int, identity: str) -> Row:
        return Row(store.molecule(row), identity=identity)

    items = ((f"row {row}", partial(read, row, identity)) for row, identity in enumerate(store.identities))
    return Candidates(str(store.path), items, len(store))


def _of_file(text: str) -> Candidates:
    path = Path(text)
    suffix = path.suffix.removeprefix(".").lower()
    if text in BUNDLED and not path.exists():
        return _of_store(open_store(text))
    if not path.exists() and not suffix:
        raise NotFoundError(f"{text}: no such file; SMILES are given as a list")
    if not (path.is_dir() and is_store(path)):
        check_readable(path)
    if is_store(path):
        return _of_store(Store(path))
    if suffix == "parquet":
        from molspectra.datasets.own.parquet import PARQUET

        source = PARQUET.open(path, {"properties": "none", "unit.forces": "eV/Å"})  # neither is read here
        return Candidates(text, ((row.name, row.make) for row in source.candidates(0)), source.total)
    if suffix not in FORMATS:
        raise FormatError(
            f"{path}: unknown format {suffix!r} of a file of molecules; {hint(suffix, SUFFIXES)}"
        )
    reads = ((entry.where, entry.molecule) for entry in open_entries(path))
    return Candidates(text, reads, None)


def _of_table(table: Any, smiles: str) -> Candidates:
    import pyarrow as pa

    try:
        columns = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise FormatError("table: not a frame with columns; give one with SMILES in it, or a list") from error
    if smiles not in columns.column_names:
        near = hint(smiles, columns.column_names, label="it has")
        raise NotFoundError(f"table: no column {smiles!r} with SMILES; {near}")
    texts = columns[smiles].to_pylist()
    name_column = next((name for name in NAMES if name in columns.column_names), None)
    given = [None] * len(texts) if name_column is None else columns[name_column].to_pylist()
    names = [None if name is None or name != name else str(name) for name in given]
    reads = [
        (f"row {row}", Unread(text, name)) for row, (text, name) in enumerate(zip(texts, names, strict=True))
    ]
    return Candidates("table", reads, len(reads))


def checked_batches(
    molecules: Molecules,
    model: LoadedModel | Learned,
    policy: ErrorPolicy,
    batch_size: int,
    *,
    smiles: str = "smiles",
    title: str = "molecules",
    show: bool = False,
) -> Iterator[tuple[list[CheckedMolecule], Batch]]:
    """Read and check molecules, and yield them with their batch on the model's device.

    Args:
        molecules: see `candidates_of`.
        model: gives device, floating-point type and known elements.
        policy: for molecules that cannot be used.
        batch_size: candidates per batch; a batch has fewer molecules where some were rejected.
        smiles: column of a table that holds SMILES.
        title: of the progress.
        show: progress on standard error.

    Raises:
        InputError: a bad molecule with "raise"; none at all; a batch size below 1.
    """
    path, batches, total = candidate_batches(molecules, batch_size, smiles)
    done = 0
    with progress(title, total, show=show) as advance:
        for candidates in batches:
            done += len(candidates)
            if usable := usable_of(path, candidates, model.elements, policy):
                yield usable, batch_on_device([row.molecule for row in usable], model.model)
            advance(done, f"{len(policy.rejected)} left out" if policy.rejected else "")


def candidate_batches(
    molecules: Molecules, batch_size: int, smiles: str = "smiles"
) -> tuple[str, Iterator[list[Candidate]], int | None]:
    """Molecules in any form, not yet read, in batches; arguments and errors as `checked_batches`.

    Returns:
        Path and total as in `Candidates`, and the batches, whose iteration raises if there are none.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, not {batch_size}")
    path, items, total = candidates_of(molecules, smiles)

    def batches() -> Iterator[list[Candidate]]:
        remaining, found = iter(items), False
        while batch := list(islice(remaining, batch_size)):
            found = True
            yield batch
        if not found:
            raise NotFoundError("there are no molecules in what was given")

    return path, batches(), total


def usable_of(
    path: str, candidates: Iterable[Candidate], elements: frozenset[int] | None, policy: ErrorPolicy
) -> list[CheckedMolecule]:
    """Read and check molecules, and return those that can be used.

    Args:
        path: of their file, as in `Candidates`.
        candidates: the molecules.
        elements: those that the model was trained on; None where that is not known.
        policy: for molecules that cannot be used.

    Raises:
        InputError: a bad molecule, where the policy says so.
    """
    usable: list[CheckedMolecule] = []
    for where, read in candidates:
        try:
            source = read()
            molecule = source if isinstance(source, Molecule) else source.molecule
            check_for_model(molecule.numbers, molecule.positions, elements)
            usable.append(CheckedMolecule(path, where, molecule, source.identity or molecule.identity))
        except MolspectraError as error:
            policy.reject(path, where, error)
    return usable


def identity_columns(molecules: Sequence[CheckedMolecule]) -> dict[str, list[str | None]]:
    """Columns that tell which molecule each row of a result is: source, identity, name, SMILES, formula."""
    return {
        "source": [row.where for row in molecules],
        "identity": [row.identity for row in molecules],
        "name": [row.molecule.name for row in molecules],
        "smiles": [row.molecule.smiles for row in molecules],
        "formula": [row.molecule.formula for row in molecules],
    }
