"""Internal coordinates of a whole store, computed once and kept in a side file.

`qm9.internal.arrow` lies beside `qm9.arrow`, or in the user's cache where that folder cannot be written. It
records the hash of its store, so that it is never used for another one. During the preparation, finished
parts lie in `qm9.internal.arrow.parts`; an interrupted preparation continues from them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from molspectra.chem.internal import InternalCoordinates, internal_coordinates
from molspectra.data.atomic import atomic_file, naming
from molspectra.data.coordinates import InternalBatch, Moves, Terms, sorted_by_atom
from molspectra.data.output import cache_folder
from molspectra.data.store.bundled import bundled_path
from molspectra.data.store.mapped import MappedFile, runs_of
from molspectra.data.store.schema import ragged, vector
from molspectra.data.store.store import Store
from molspectra.data.store.writer import record_batch
from molspectra.errors import (
    DamagedError,
    InputError,
    MismatchError,
    NewerFormatError,
    NotFoundError,
    check_format,
)

FORMAT = 1
"""Version of the file and of the rules that choose coordinates; a file of another version is made anew."""

PART_ROWS = 2048
"""Rows of a part: the most work per process that an interruption can lose."""

_KEY = b"molspectra-internal"


_VALUES = {
    "bonds": vector(pa.int16(), 2),
    "bond_sigma": pa.float32(),
    "rotatable": pa.uint8(),
    "side_count": pa.int16(),
    "sides": pa.int16(),
    "angles": vector(pa.int16(), 4),
    "angle_sigma": pa.float32(),
    "torsions": vector(pa.int16(), 3),
    "torsion_sigma": pa.float32(),
}
"""Arrow type of the values of each column of lists."""


class InternalFile:
    """An open side file, which gathers the internal coordinates of given rows as tensors of a batch.

    A pickle holds only the path and what the file is checked against: each process maps the file itself.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, store_hash: str, rows: int) -> None:
        """Map a side file.

        Raises:
            InputError: if it is missing, damaged, or was made for another store.
        """
        self.path = path
        self._arguments = (path, store_hash, rows)
        try:
            self._file = MappedFile(path)
            _refuse_newer(self._file.schema, path)
            is_ours = self._file.schema.equals(_schema(store_hash), check_metadata=True)
            if not is_ours or len(self._file) != rows:
                raise MismatchError("it was made for another store or by another version")
            self._columns = {name: self._file.ragged(name) for name in _VALUES}
            self._perceived = self._file.scalars("perceived")
        except (NotFoundError, NewerFormatError):
            raise
        except InputError as error:
            raise type(error)(f"{path}: {error}; run `molspectra prepare-internal` on its store") from error

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the path, never the data."""
        return InternalFile, self._arguments

    def unperceived(self) -> int:
        """Return the number of rows without coordinates, because no bonds were found in their geometry."""
        location = self._file.locate(torch.arange(len(self._file)))
        return int((self._perceived.take(location) == 0).sum())

    def batch(self, rows: Tensor, ptr: Tensor) -> InternalBatch:
        """Return the coordinates of rows [B], for a batch with the atom offsets `ptr` [B + 1].

        Raises:
            DamagedError: if the file is damaged in these rows.
        """
        location = self._file.locate(rows)
        values, counts, owners = {}, {}, {}
        for name, column in self._columns.items():
            runs = runs_of(column.counts(location))
            values[name], owners[name] = column.take(location, runs), runs.owner
            counts[name] = runs.ptr.diff()
        for name in ("bonds", "sides", "angles", "torsions"):
            values[name] = values[name].long()
        self._check(values, counts, owners, ptr)
        return _assembled(values, counts, owners, ptr)

    def _check(
        self, values: dict[str, Tensor], counts: dict[str, Tensor], owners: dict[str, Tensor], ptr: Tensor
    ) -> None:
        """Raise if columns disagree in length, or an atom or bond index lies outside its molecule.

        Args:
            values: by column, [K] or [K, width] for K terms.
            counts: by column, [B] terms per molecule.
            owners: by column, [K] index 0..B-1 of each term's molecule.
            ptr: [B + 1] atom offsets.
        """
        atoms, bonds = ptr.diff(), counts["bonds"]
        valid = all(
            torch.equal(counts[first], counts[second])
            for first, second in (
                ("bonds", "bond_sigma"),
                ("bonds", "rotatable"),
                ("bonds", "side_count"),
                ("angles", "angle_sigma"),
                ("torsions", "torsion_sigma"),
            )
        )
        sizes = values["side_count"].long()
        valid = valid and int(sizes.sum()) == len(values["sides"]) and bool((sizes >= 1).all())
        limits = {
            "bonds": atoms[:, None].expand(-1, 2),
            "sides": atoms,
            "angles": torch.stack([atoms, atoms, atoms, bonds], dim=1),
            "torsions": torch.stack([atoms, bonds, atoms], dim=1),
        }
        for name, limit in limits.items():
            index = values[name]
            valid = valid and bool(((index >= 0) & (index < limit[owners[name]])).all())
        if not valid:
            raise DamagedError(f"{self.path}: damaged; remove it and run `molspectra prepare-internal` again")


def _assembled(
    values: dict[str, Tensor], counts: dict[str, Tensor], owners: dict[str, Tensor], ptr: Tensor
) -> InternalBatch:
    """Return the batch from checked columns (see `InternalFile._check`): indices shifted, moves in order."""
    atoms = int(ptr[-1])
    first_bond = torch.cumsum(counts["bonds"], 0) - counts["bonds"]
    bonds = values["bonds"] + ptr[owners["bonds"]][:, None]
    sides = runs_of(values["side_count"].long())
    side_atom = values["sides"] + ptr[owners["bonds"][sides.owner]]
    angles = values["angles"][:, :3] + ptr[owners["angles"]][:, None]
    angle_bond = values["angles"][:, 3] + first_bond[owners["angles"]]
    torsion_bond = values["torsions"][:, 1] + first_bond[owners["torsions"]]
    ends = values["torsions"][:, ::2] + ptr[owners["torsions"]][:, None]
    torsions = torch.cat([ends[:, :1], bonds[torsion_bond], ends[:, 1:]], dim=1)
    rotatable = (values["rotatable"] != 0).nonzero().flatten()
    rotatable_counts = torch.bincount(owners["bonds"][rotatable], minlength=len(ptr) - 1)
    order, side_ptr = sorted_by_atom(side_atom, atoms)
    moves = partial(_moves, side_ptr=sides.ptr, side_atom=side_atom)
    slots = torch.cat([bonds.flatten(), angles.flatten(), torsions.flatten()])
    slot_order, slot_ptr = sorted_by_atom(slots, atoms)
    return InternalBatch(
        bonds=Terms(bonds, values["bond_sigma"], counts["bonds"]),
        angles=Terms(angles, values["angle_sigma"], counts["angles"]),
        torsions=Terms(torsions, values["torsion_sigma"], counts["torsions"]),
        rotatable=rotatable,
        rotatable_counts=rotatable_counts,
        side_bond=sides.owner[order],
        side_ptr=side_ptr,
        turns=moves(rotatable_counts, rotatable),
        bends=moves(counts["angles"], angle_bond),
        twists=moves(counts["torsions"], torsion_bond),
        slot_order=slot_order,
        slot_ptr=slot_ptr,
    )


def _moves(counts: Tensor, bond: Tensor, side_ptr: Tensor, side_atom: Tensor) -> Moves:
    """Return the moves of K terms step by step.

    Args:
        counts: [B] terms per molecule.
        bond: [K] the bond whose side each term moves.
        side_ptr: [A + 1] offsets of the sides of all bonds in `side_atom`.
        side_atom: [S] the atoms that move with each bond.
    """
    step = runs_of(counts).inner
    order = torch.argsort(step, stable=True)
    ordered_bond = bond[order]
    runs = runs_of(side_ptr[ordered_bond + 1] - side_ptr[ordered_bond])
    terms = torch.bincount(step)
    first_term = torch.cumsum(terms, 0) - terms
    atoms = torch.bincount(step[order][runs.owner], minlength=len(terms))
    return Moves(
        term=order,
        atom=side_atom[side_ptr[ordered_bond][runs.owner] + runs.inner],
        owner=runs.owner - first_term[step[order]][runs.owner],
        terms=tuple(terms.tolist()),
        atoms=tuple(atoms.tolist()),
    )


def internal_path(store: Store) -> Path:
    """Return the path of a store's side file: beside it, or in the user's cache."""
    beside = store.path.with_name(f"{store.path.stem}.internal.arrow")
    if store.path != bundled_path().absolute() and os.access(store.path.parent, os.W_OK):
        return beside
    return cache_folder() / f"{store.path.stem}-{store.hash[:16]}.internal.arrow"


def open_internal(store: Store) -> InternalFile:
    """Open the side file of a store.

    Raises:
        InputError: if there is none, it is damaged, or the store has changed since.
    """
    path = internal_path(store)
    if not path.is_file():
        raise NotFoundError(
            f"{store.path}: Frad and SliDe need its internal coordinates, which are not there; "
            f"run `molspectra prepare-internal {store.path}`"
        )
    return InternalFile(path, store.hash, len(store))


def with_internal(store: Store, *, show: bool = True) -> Store:
    """Return a store opened again with internal coordinates in its batches.

    The side file is made first if it is missing or does not fit.

    Args:
        store: an open store.
        show: whether to show progress on standard error while the file is made.

    Raises:
        InputError: if the side file cannot be written.
    """
    try:
        internal = open_internal(store)
    except NewerFormatError:  # the newer version that made it would lose it
        raise
    except InputError:
        try:
            internal = prepare_internal(store, show=show)
        except InputError:
            with suppress(InputError):  # another run may have made it meanwhile, and removed the parts
                return store.with_internal_source(open_internal(store))
            raise
    return store.with_internal_source(internal)


def prepare_internal(store: Store, *, processes: int = 1, show: bool = True) -> InternalFile:
    """Make and open the side file of a store, continuing an interrupted preparation.

    Args:
        store: an open store.
        processes: number of processes that share the work.
        show: whether to show progress on standard error.

    Raises:
        InputError: if the file cannot be written, or a structure of the store is damaged.
    """
    path = internal_path(store)
    parts = path.with_name(path.name + ".parts")
    with naming(parts):
        parts.mkdir(parents=True, exist_ok=True)
    for orphan in parts.glob(".*.part"):  # of a process that was killed while it wrote
        orphan.unlink(missing_ok=True)
    spans = [range(len(store))[start : start + PART_ROWS] for start in range(0, len(store), PART_ROWS)]
    prefix = f"{store.hash[:16]}-{FORMAT}"
    part_paths = {rows: parts / f"{prefix}-{rows[0]:010}-{len(rows)}.arrow" for rows in spans}
    _write_missing_parts(store, part_paths, processes, show)
    schema = _schema(store.hash)
    with atomic_file(path) as file:
        writer = pa.ipc.new_file(file, schema)
        for part_path in part_paths.values():
            for batch in _batches(part_path, schema):
                with naming(path):
                    writer.write_batch(batch)
        with naming(path):
            writer.close()
    shutil.rmtree(parts, ignore_errors=True)
    return open_internal(store)


def _write_missing_parts(store: Store, part_paths: dict[range, Path], processes: int, show: bool) -> None:
    """Write the parts that do not exist yet, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    missing = [rows for rows, path in part_paths.items() if not path.is_file()]
    remaining = sum(map(len, missing))
    with Progress(console=Console(stderr=True), disable=not show, transient=True) as bar:
        task = bar.add_task("internal coordinates", total=len(store), completed=len(store) - remaining)
        if processes == 1 or len(missing) < 2:
            for rows in missing:
                _write_part(store, part_paths[rows], rows)
                bar.advance(task, len(rows))
            return
        ctrl_c = (signal.SIGINT, signal.SIG_IGN)  # left to the parent, which lets its workers finish a part
        pool = ProcessPoolExecutor(processes, get_context("spawn"), signal.signal, ctrl_c)
        try:
            futures = [(rows, pool.submit(_write_part, store, part_paths[rows], rows)) for rows in missing]
            for rows, future in futures:
                future.result()
                bar.advance(task, len(rows))
        except BrokenProcessPool as error:
            advice = "run it again with fewer --processes; finished parts are kept"
            raise InputError(
                f"{store.path}: a process was killed, for lack of memory perhaps; {advice}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _write_part(store: Store, path: Path, rows: range) -> None:
    """Write the coordinates of the given rows as one part."""
    schema = _schema(store.hash)
    records = [_record(internal_coordinates(store.molecule(row))) for row in rows]
    with atomic_file(path) as file, naming(path):
        writer = pa.ipc.new_file(file, schema)
        writer.write_batch(record_batch(records, schema))
        writer.close()


def _record(coordinates: InternalCoordinates) -> dict[str, object]:
    values = {field.name: getattr(coordinates, field.name) for field in fields(coordinates)}
    return values | {"perceived": np.uint8(coordinates.perceived)}


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        with pa.OSFile(str(path)) as source:
            file = pa.ipc.open_file(source)
            if not file.schema.equals(schema, check_metadata=True):
                raise pa.ArrowInvalid("another schema")
            for index in range(file.num_record_batches):
                yield file.get_batch(index)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{path} is damaged; remove {path.parent} and start again") from error


def _refuse_newer(schema: pa.Schema, path: Path) -> None:
    """Refuse a side file of a newer format; whether it is ours otherwise, its whole schema tells."""
    try:
        found = json.loads((schema.metadata or {}).get(_KEY, b"{}"))["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if type(found) is int and found > FORMAT:
        check_format(f"{path}: no readable internal coordinates", found, FORMAT)


def _schema(store_hash: str) -> pa.Schema:
    """Return the Arrow schema, whose metadata records format version and hash of the store."""
    about = json.dumps({"format": FORMAT, "store": store_hash}, sort_keys=True)
    columns = [pa.field(name, ragged(kind), nullable=False) for name, kind in _VALUES.items()]
    columns.append(pa.field("perceived", pa.uint8(), nullable=False))
    return pa.schema(columns, metadata={_KEY: about.encode()})
