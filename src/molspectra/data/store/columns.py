"""The columns of a store, checked once against their description and against each other."""

from __future__ import annotations

import pyarrow as pa
import torch

from molspectra.data.store.mapped import DamagedError, MappedFile, Ragged, Scalars
from molspectra.data.store.schema import Metadata
from molspectra.spectra.modality import modality


def open_columns(file: MappedFile, metadata: Metadata) -> dict[str, Scalars | Ragged]:
    """Return every column of a store, safe to gather from.

    Raises:
        DamagedError: if offsets leave the file, a column that must be complete has gaps, or lengths disagree.
    """
    lists: dict[str, Ragged] = {}
    scalars: dict[str, Scalars] = {}
    for each in file.schema:
        if pa.types.is_large_list(each.type) or pa.types.is_large_string(each.type):
            lists[each.name] = file.ragged(each.name)
        else:
            scalars[each.name] = file.scalars(each.name)
    columns: dict[str, Scalars | Ragged] = {**lists, **scalars}
    for each in file.schema:
        if not each.nullable and int(columns[each.name].valid.base.max()) >= 0:
            raise DamagedError(f"column {each.name!r} has gaps")
    _check_lengths(file, metadata, lists)
    return columns


def _check_lengths(file: MappedFile, metadata: Metadata, lists: dict[str, Ragged]) -> None:
    """Refuse lists that do not belong together."""
    atoms = file.all_counts(lists["numbers"])
    if int(atoms.min()) < 1 or not file.same_counts(lists["numbers"], lists["positions"]):
        raise DamagedError("a molecule has no atoms, or not one position for each")
    expected = {"forces": atoms} if metadata.forces else {}
    expected |= {name: torch.full_like(atoms, modality(name).points) for name in metadata.samples}
    for name, counts in expected.items():
        valid = lists[name].valid.take(file.place(torch.arange(len(file))))
        if not torch.equal(file.all_counts(lists[name]), counts * valid):
            raise DamagedError(f"column {name!r} has rows of a wrong length")
    for name in metadata.lines:
        if not file.same_counts(lists[f"{name}_position"], lists[f"{name}_intensity"]):
            raise DamagedError(f"a {name} line has no intensity or no position")
