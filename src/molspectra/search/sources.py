"""Molecules of a library from files, stores and memory, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import Rejection, read_molecules
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.store import Row, Store
from molspectra.errors import InputError
from molspectra.evaluation.embedding import stack_spectra
from molspectra.search.vectors import Floats
from molspectra.training.data import open_store

BLOCK = 256
"""Molecules of a block."""

Source = Path | str | Store | Iterable[Molecule]
"""Where molecules come from: a file, a store or its path, the name of a bundled store, or molecules."""

OnError = Literal["raise", "skip"]

T = TypeVar("T")


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


def blocks(
    source: Source, *, on_error: OnError = "raise", rejected: list[Rejection] | None = None
) -> Iterator[Block]:
    """Yield the molecules of a source, with their spectra where it has any, in blocks.

    Args:
        source: `.smi`, `.csv`, `.sdf`, `.mol`, `.xyz`, `.extxyz`; `.arrow` and `.parquet` (a store and its
            export, with spectra); or any other `Source`.
        on_error: "skip" leaves bad records out and appends them to `rejected`.
        rejected: list that receives them.

    Raises:
        InputError: unreadable file, or a bad record.
    """
    if isinstance(source, Store):
        yield from _of_store(source)
    elif isinstance(source, str | Path):
        kind = Path(source).suffix.lower()
        if str(source) in BUNDLED or kind == ".arrow":
            yield from _of_store(open_store(str(source)))
        elif kind == ".parquet":
            yield from _of_parquet(Path(source), None if on_error == "raise" else rejected)
        else:
            yield from _bare(read_molecules(source, on_error=on_error, rejected=rejected))
    else:
        yield from _bare(source)


def source_name(source: Source) -> str:
    """Name of a source in messages and the manifest: that of its file, without the folder."""
    if isinstance(source, Store):
        return source.path.name
    return Path(source).name if isinstance(source, str | Path) else "molecules"


def _bare(molecules: Iterable[Molecule]) -> Iterator[Block]:
    """Blocks of molecules without spectra."""
    for group in _groups(molecules):
        yield Block(group, [molecule.identity for molecule in group], {})


def _groups(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of up to `BLOCK` items."""
    remaining = iter(items)
    while group := list(islice(remaining, BLOCK)):
        yield group


def _of_store(store: Store) -> Iterator[Block]:
    identities, names = store.identities, store.metadata.modalities
    for start in range(0, len(store), BLOCK):
        yield rows_of_store(store, np.arange(start, min(start + BLOCK, len(store))), identities, names)


def rows_of_store(
    store: Store, rows: npt.NDArray[np.int64], identities: list[str], names: Iterable[str] | None = None
) -> Block:
    """The block of some rows [B] of a store.

    Args:
        store: the store.
        rows: B rows.
        identities: of all rows of the store, which are slow to read.
        names: modalities; None for all of the store.
    """
    batch = store.batch(rows, modalities=tuple(store.metadata.modalities if names is None else names))
    molecules = [store.molecule(int(row)) for row in rows]
    spectra = {name: values.numpy() for name, values in batch.spectra.items()}
    return Block(molecules, [identities[row] for row in rows], spectra)


def _of_parquet(path: Path, rejected: list[Rejection] | None) -> Iterator[Block]:
    """Rows of a Parquet file with structures (or SMILES) and, where it has them, spectra."""
    from molspectra.datasets.registry import importer

    table = importer("parquet").open(path, {})

    def rows() -> Iterator[Row]:
        for candidate in table.candidates(0):
            try:
                yield candidate.make()
            except InputError as error:
                if rejected is None:
                    raise error.with_context(f"{path}, {candidate.name}") from error
                rejected.append(Rejection(str(path), candidate.name, str(error)))

    for group in _groups(rows()):
        intensities, _ = stack_spectra([row.spectra for row in group], table.metadata.modalities)
        yield Block(
            [row.molecule for row in group],
            [row.identity or row.molecule.identity for row in group],
            {name: values.numpy() for name, values in intensities.items()},
        )
