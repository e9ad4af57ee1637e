"""Molecules of a library from files, stores and memory, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import ErrorPolicy, Unread, open_entries
from molspectra.chem.sanity import check_for_model
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.shards import is_store
from molspectra.data.store.store import Row, Store
from molspectra.errors import MolspectraError, ValueRangeError
from molspectra.evaluation.embedding import stack_spectra
from molspectra.search.vectors import Floats
from molspectra.training.data import open_store

BLOCK = 256
"""Molecules of a block."""

Source = Path | str | Store | Iterable[Any]
"""Where molecules come from: a file, a store or its path, the name of a bundled store, or molecules."""


@dataclass(frozen=True, eq=False)
class Block:
    """B molecules and their spectra.

    Attributes:
        molecules: [B].
        identities: [B] keys of the molecules.
        spectra: by modality [B, points] intensities; zeros where a molecule has none.
    """

    molecules: list[Molecule]
    identities: list[str]
    spectra: dict[str, Floats]

    def __len__(self) -> int:
        """Return the number of molecules B."""
        return len(self.molecules)

    def take(self, indices: list[int]) -> Block:
        """Return the block of some of its molecules."""
        return Block(
            [self.molecules[index] for index in indices],
            [self.identities[index] for index in indices],
            {name: spectra[indices] for name, spectra in self.spectra.items()},
        )


Read = Callable[[Sequence[tuple[str, Any]], ErrorPolicy, frozenset[int] | None], Block | None]
"""See `Groups`."""


class Groups(NamedTuple):
    """Molecules that are still to be read, in groups of `BLOCK`.

    Attributes:
        path: their file, or "molecules" where they are in memory.
        groups: of each molecule its place, for messages, and what `read` needs of it.
        read: reads and checks a group, with the policy and the elements of `blocks`; None where all of it is
            rejected. It and the groups are pickled for other processes.
    """

    path: str
    groups: Iterator[list[tuple[str, Any]]]
    read: Read


def blocks(source: Source, policy: ErrorPolicy, elements: frozenset[int] | None = None) -> Iterator[Block]:
    """Yield the molecules of a source, with their spectra where it has any, in blocks.

    Args:
        source: `.smi`, `.csv`, `.sdf`, `.mol`, `.xyz`, `.extxyz`; `.arrow` and `.parquet` (a store and its
            export, with spectra); or any other `Source`.
        policy: for bad records, and for bad spectra of records that are kept.
        elements: those that the model was trained on; None where that is not known.

    Raises:
        InputError: unreadable file; or a bad record or spectrum, where the policy says so.
    """
    _, groups, read = groups_of(source)
    for group in groups:
        if (block := read(group, policy, elements)) is not None:
            yield block


def groups_of(source: Source) -> Groups:
    """The molecules of a source, not yet read.

    Raises:
        InputError: unreadable file.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and (str(source) in BUNDLED or is_store(path)):
        source = open_store(str(source))
    if isinstance(source, Store):
        rows = ((f"row {row}", (row, name)) for row, name in enumerate(source.identities))
        return Groups(str(source.path), _grouped(rows), partial(_block_of_store, source))
    modalities: tuple[str, ...] = ()
    reads: Iterable[tuple[str, Callable[[], Row]]]
    if path is None:
        items = enumerate(cast(Iterable[Any], source), start=1)
        reads = ((f"item {number}", partial(_row_from, Unread(item))) for number, item in items)
    elif path.suffix.lower() == ".parquet":
        from molspectra.datasets.registry import importer

        table = importer("parquet").open(path, {})
        modalities = tuple(table.metadata.modalities)
        reads = ((candidate.name, candidate.make) for candidate in table.candidates(0))
    else:
        reads = ((entry.where, partial(_row_from, entry.molecule)) for entry in open_entries(path))
    name = str(path or "molecules")
    return Groups(name, _grouped(reads), partial(_block_of_reads, name, modalities))


def _grouped(items: Iterable[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
    remaining = iter(items)
    while group := list(islice(remaining, BLOCK)):
        yield group


def _block_of_reads(
    path: str,
    modalities: Iterable[str],
    reads: Sequence[tuple[str, Callable[[], Row]]],
    policy: ErrorPolicy,
    elements: frozenset[int] | None,
) -> Block | None:
    """The block of some molecules, each with its place and the function that reads it."""
    rows = list(_checked(path, reads, policy, elements))
    if not rows:
        return None
    intensities, _ = stack_spectra([row.spectra for row in rows], modalities)
    return Block(
        [row.molecule for row in rows],
        [row.identity or row.molecule.identity for row in rows],
        {name: values.numpy() for name, values in intensities.items()},
    )


def _row_from(read: Callable[[], Molecule]) -> Row:
    return Row(read())


def _checked(
    path: str,
    reads: Iterable[tuple[str, Callable[[], Row]]],
    policy: ErrorPolicy,
    elements: frozenset[int] | None,
) -> Iterator[Row]:
    """Yield the rows that can be used, without the spectra that cannot; `reads` gives the place of each."""
    for where, read in reads:
        try:
            row = read().with_usable_spectra()
            check_for_model(row.molecule.numbers, row.molecule.positions, elements)
        except MolspectraError as error:
            policy.reject(path, where, error)
            continue
        for name, reason in row.left_out.items():
            policy.reject(path, where, _unusable(name, reason))
        yield row


def _unusable(name: str, reason: str) -> ValueRangeError:
    return ValueRangeError(f"its {name} spectrum cannot be used: {reason}")


def _block_of_store(
    store: Store,
    items: Sequence[tuple[str, tuple[int, str]]],
    policy: ErrorPolicy,
    elements: frozenset[int] | None,
) -> Block | None:
    """The block of some rows of a store, each with its identity; their lines are broadened together."""
    kept: dict[int, str] = {}
    path = str(store.path)
    for where, (row, identity) in items:
        try:
            molecule = store.molecule(row)
            check_for_model(molecule.numbers, molecule.positions, elements)
            kept[row] = identity
        except MolspectraError as error:
            policy.reject(path, where, error)
    if not kept:
        return None
    rows = np.array(list(kept))
    block = rows_of_store(store, rows, kept)
    for name, spectra in block.spectra.items():
        for index, reason in store.unusable_spectra(rows, name).items():
            policy.reject(path, f"row {rows[index]}", _unusable(name, reason))
            spectra[index] = 0
    return block


def source_name(source: Source) -> str:
    """Name of a source in messages and the manifest: that of its file, without the folder."""
    if isinstance(source, Store):
        return source.path.name
    return Path(source).name if isinstance(source, str | Path) else "molecules"


def rows_of_store(
    store: Store,
    rows: npt.NDArray[np.int64],
    identities: Sequence[str] | Mapping[int, str],
    names: Iterable[str] | None = None,
) -> Block:
    """The block of some rows [B] of a store.

    Args:
        store: the store.
        rows: B rows.
        identities: of all rows of the store, which are slow to read, or by row.
        names: modalities; None for all of the store.
    """
    batch = store.batch(rows, modalities=tuple(store.metadata.modalities if names is None else names))
    molecules = [store.molecule(int(row)) for row in rows]
    spectra = {name: values.numpy() for name, values in batch.spectra.items()}
    return Block(molecules, [identities[int(row)] for row in rows], spectra)
