"""Parts of a segment made of molecules, here or on the workers of an executor; none of what the index has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.chem.molecule import geometry_id_of
from molspectra.chem.readers import ErrorPolicy
from molspectra.data.store.store import Store
from molspectra.errors import MismatchError
from molspectra.evaluation.shared_batches import Work, shared_batches
from molspectra.search.manifest import MODEL, Manifest
from molspectra.search.segment import Part, Segment, open_segments, part_in, part_of
from molspectra.search.sources import Block, Read, Source, blocks, groups_of
from molspectra.search.vectors import SearchModel, open_model
from molspectra.spectra.modality import MODALITIES
from molspectra.training.progress import progress
from molspectra.workers.executors import Executor


class Present:
    """The entries of an index that is appended to, and how many of the new molecules it holds.

    Attributes:
        repeated: molecules so far that are there already, with the same structure and spectra.
        known: further ones of whose molecule there is an entry with another structure or fewer spectra.
    """

    def __init__(self, segments: list[Segment], modalities: tuple[str, ...]) -> None:
        self._segments, self._modalities = segments, modalities
        self.repeated = self.known = 0

    def unrepeated(self, stream: Iterable[Block]) -> Iterator[Block]:
        """Yield the blocks without the molecules that are there; count these."""
        for block in stream:
            same = self._entries_of(set(block.identities))
            kept = []
            for index, identity in enumerate(block.identities):
                if any(self._is_there(block, index, *place) for place in same.get(identity, ())):
                    self.repeated += 1
                else:
                    kept.append(index)
                    self.known += identity in same
            if kept:
                yield block if len(kept) == len(block) else block.take(kept)

    def _entries_of(self, identities: set[str]) -> dict[str, list[tuple[Segment, int]]]:
        """The entries, each a segment and a row in it, of every identity that has any."""
        places: dict[str, list[tuple[Segment, int]]] = {}
        wanted = pa.array(sorted(identities))
        for segment in self._segments:
            column = segment.table["identity"]
            for row in np.flatnonzero(pc.is_in(column, value_set=wanted).to_numpy()).tolist():
                places.setdefault(column[row].as_py(), []).append((segment, row))
        return places

    def _is_there(self, block: Block, index: int, segment: Segment, row: int) -> bool:
        """Whether a molecule of a block is an entry: its structure, and every spectrum that it brings."""
        molecule = block.molecules[index]
        numbers = np.array(segment.table["numbers"][row].as_py(), np.int64)
        positions = np.array(segment.table["positions"][row].as_py(), np.float32).reshape(-1, 3)
        # both rounded to float32, as entries are stored
        mine = geometry_id_of(molecule.numbers, molecule.positions.astype(np.float32))
        if molecule.charge != segment.table["charge"][row].as_py() or mine != geometry_id_of(
            numbers, positions
        ):
            return False
        return all(
            segment.arrays[f"samples-{name}"][row].any()
            for name in self._modalities
            if name in block.spectra and block.spectra[name][index].any()
        )

    def remarks(self, source: str) -> list[str]:
        """One line on what was there already; none if nothing was."""
        if not self.repeated:
            return []
        others = f"; {self.known} more with another structure or spectrum are added" if self.known else ""
        return [f"{self.repeated} molecules of {source} are in the index already and not added again{others}"]


@dataclass(frozen=True)
class PartMaker:
    """What makes parts of a segment of blocks; pickled for workers.

    Attributes:
        folder: the index.
        hash: of the model, a copy of which is in the folder.
        similarity: by which it compares.
        device: where to compute.
        modalities: spectra to keep; None for all that there are.
        manifest: of an index that is appended to.
    """

    folder: Path
    hash: str
    similarity: str
    device: str
    modalities: tuple[str, ...] | None
    manifest: Manifest | None = None

    def present(self) -> Present | None:
        """What is in an index that is appended to."""
        if self.manifest is None:
            return None
        return Present(open_segments(self.folder, self.manifest), self.manifest.modalities)

    def kept(self, available: Iterable[str]) -> tuple[str, ...]:
        """Modalities to keep where a block has spectra of some."""
        wanted = set(available if self.modalities is None else self.modalities)
        return tuple(name for name in MODALITIES if name in wanted)

    def part(self, block: Block, model: SearchModel) -> Part:
        """The part of a block."""
        return part_of(block, model, self.kept(block.spectra))

    def parts(
        self, source: Source, model: SearchModel, policy: ErrorPolicy, present: Present | None, show: bool
    ) -> Iterator[Part]:
        """Yield the parts of a source, without what is `present`."""
        done = 0
        stream = blocks(source, policy, model.elements)
        with progress("index", len(source) if isinstance(source, Store) else None, show=show) as advance:
            for block in stream if present is None else present.unrepeated(stream):
                yield self.part(block, model)
                done += len(block)
                advance(done)

    def shared_parts(
        self, source: Source, policy: ErrorPolicy, present: Present | None, show: bool, executor: Executor
    ) -> Iterator[Part]:
        """Yield the same as `parts`, computed on an executor."""
        path, groups, read = groups_of(source)
        opened = partial(self.opened, read)
        for table in shared_batches(
            executor, self.folder, path, groups, opened, policy, title="index", show=show
        ):
            if present is not None:
                repeated, known = json.loads(table.schema.metadata[b"present"])
                present.repeated += repeated
                present.known += known
            if table.num_columns:
                yield part_in(table)

    def opened(self, read: Read) -> Work:
        """Open model and index in a worker; molecules not yet read to the table of their part."""
        model = open_model(self.folder / MODEL, similarity=self.similarity, device=self.device)
        if model.hash != self.hash:
            raise MismatchError(f"{self.folder / MODEL}: a worker finds another model there")
        present = self.present()

        def work(items: Sequence[tuple[str, Any]], policy: ErrorPolicy) -> pa.Table | None:
            block = read(items, policy, model.elements)
            if block is None or present is None:
                return None if block is None else self.part(block, model).table()
            present.repeated = present.known = 0
            rest = next(present.unrepeated([block]), None)
            table = pa.table({}) if rest is None else self.part(rest, model).table()
            counts = json.dumps([present.repeated, present.known])
            return table.replace_schema_metadata({**(table.schema.metadata or {}), "present": counts})

        return work
