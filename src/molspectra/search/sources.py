"""Molecules of a library from files, stores and memory, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import Rejection, read_molecules
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.store import Row, Store
from molspectra.data.store.writer import Candidate
from molspectra.errors import InputError
from molspectra.evaluation.embedding import stack_spectra
from molspectra.search.vectors import Floats
from molspectra.training.data import open_store

BLOCK = 256
"""Molecules of a block."""

Source = Path | str | Store | Iterable[Molecule]
"""Where molecules come from: a file, a store or its path, the name of a bundled store, or molecules."""

OnError = Literal["raise", "skip"]


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
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and (str(source) in BUNDLED or path.suffix.lower() == ".arrow"):
        source = open_store(str(source))
    if isinstance(source, Store):
        identities = source.identities  # slow to read
        for start in range(0, len(source), BLOCK):
            yield rows_of_store(source, np.arange(start, min(start + BLOCK, len(source))), identities)
        return
    modalities: Iterable[str] = ()
    rows: Iterator[Row]
    if path is None:
        rows = map(Row, cast(Iterable[Molecule], source))
    elif path.suffix.lower() == ".parquet":
        from molspectra.datasets.registry import importer

        table = importer("parquet").open(path, {})
        modalities = table.metadata.modalities
        rows = _parquet_rows(path, table.candidates(0), None if on_error == "raise" else rejected)
    else:
        rows = map(Row, read_molecules(path, on_error=on_error, rejected=rejected))
    while group := list(islice(rows, BLOCK)):
        intensities, _ = stack_spectra([row.spectra for row in group], modalities)
        yield Block(
            [row.molecule for row in group],
            [row.identity or row.molecule.identity for row in group],
            {name: values.numpy() for name, values in intensities.items()},
        )


def source_name(source: Source) -> str:
    """Name of a source in messages and the manifest: that of its file, without the folder."""
    if isinstance(source, Store):
        return source.path.name
    return Path(source).name if isinstance(source, str | Path) else "molecules"


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


def _parquet_rows(
    path: Path, candidates: Iterable[Candidate], rejected: list[Rejection] | None
) -> Iterator[Row]:
    """Rows of a Parquet file with structures (or SMILES); bad ones are raised, or put into `rejected`."""
    for candidate in candidates:
        try:
            yield candidate.row_in_angstrom()
        except InputError as error:
            if rejected is None:
                raise error.with_context(f"{path}, {candidate.name}") from error
            rejected.append(Rejection(str(path), candidate.name, str(error)))
