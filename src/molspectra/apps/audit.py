"""Overlap of test molecules with pre-training sets, with and without spectra."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.data.atomic import atomic_file
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.shards import is_store
from molspectra.data.store.store import Store
from molspectra.errors import NotFoundError, SettingError, ValueRangeError
from molspectra.training.checkpoint import named
from molspectra.training.config import DataConfig, FinetuneConfig
from molspectra.training.data import Rows, Selection, open_store, split_store
from molspectra.training.leaks import Exposure, exposure
from molspectra.training.record import read_run, write_json
from molspectra.training.seen import SPECTRUM, STRUCTURE, VALIDATED, Seen, hashes_of, seen_by

SUFFIXES = (".json", ".csv")
"""Files that an audit can be written to."""

COLUMNS = ("identity", "row", "pretraining", "structure", "spectra", "validation")


@dataclass(frozen=True, eq=False)
class Audit:
    """Result of an audit.

    Attributes:
        test: the test part: store, hash, split and number of rows.
        sources: per pre-training set its name, its molecules, and their overlap with the test part.
        together: overlap of the test part with all sets together.
        molecules: one mapping with the keys `COLUMNS` per test molecule and set that contains it.
    """

    test: Mapping[str, Any]
    sources: tuple[tuple[str, Seen, Exposure], ...]
    together: Exposure
    molecules: tuple[Mapping[str, Any], ...]

    @property
    def has_overlap(self) -> bool:
        """Whether a test molecule was seen in training, or this cannot be excluded."""
        overlap = self.together
        return bool(overlap.structures or overlap.unknown or overlap.incomparable or overlap.nameless)

    def plain(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        sources = [
            {"name": name, "seen": seen.summary(), "test": overlap.plain()}
            for name, seen, overlap in self.sources
        ]
        return {
            "test": dict(self.test),
            "pretraining": sources,
            "together": self.together.plain(),
            "molecules": [dict(molecule) for molecule in self.molecules],
        }

    def table(self) -> str:
        """Return the counts as a table in text."""
        head = ("pre-training", "holds", "seen", "with spectra", "in validation", "not comparable")
        lines = [
            (name, seen.summary()["molecules"], *_counts(overlap), overlap.incomparable)
            for name, seen, overlap in self.sources
        ]
        if len(lines) > 1:
            together = self.together
            lines.append(("together", "", *_counts(together), together.incomparable))
        cells = [
            head,
            *(tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in line) for line in lines),
        ]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rows = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells
        ]
        what = f"{self.together.tested:,} different test {self.together.compared} of {self.test['store']}"
        doubts = [f"not known: {reason}" for reason in self.together.unknown]
        if self.together.nameless:
            doubts.append(
                f"not comparable: {self.together.nameless:,} molecules of pre-training are known by "
                "their geometry alone; any of them may be among those tested"
            )
        return "\n".join([f"{what} ({self.test['split']})", *rows, *doubts])

    def write(self, path: Path) -> None:
        """Write a report: JSON with everything, or CSV with one line per set and molecule seen in it."""
        if path.suffix.lower() == ".json":
            write_json(path, self.plain())
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.molecules)
        with atomic_file(path) as file:
            file.write(text.getvalue().encode())


def audit(
    test: str | Path,
    pretrain: Sequence[str | Path],
    split: DataConfig | None = None,
    pretrain_split: DataConfig | None = None,
) -> Audit:
    """Compare the test part of a store or run with the molecules of pre-training sets or runs.

    Args:
        test: store, or run directory, whose own split is taken.
        pretrain: stores, run directories, checkpoints in them, or names of shipped models.
        split: how the test store is split; None takes all of its rows as test rows.
        pretrain_split: how pre-training stores are split, of which the training part counts as seen; None
            takes all rows.

    Raises:
        InputError: nothing to compare, or a store or split that does not fit.
    """
    if not pretrain:
        raise SettingError("an audit needs at least one pre-training store or run")
    store, rows, about = _tested(Path(test), str(test), split)
    if not len(rows):
        raise ValueRangeError(f"{test}: the test part is empty")
    sources = []
    for name in map(str, pretrain):
        if name not in BUNDLED and not named(name).exists():
            raise NotFoundError(f"{name}: no such store, run directory or shipped model")
        seen = _contained(name, pretrain_split) if _is_store(name) else seen_by(name)
        sources.append((name, seen, exposure(store, rows, seen)))
    together = Seen()
    for _, seen, _ in sources:
        together = together.merged(seen)
    molecules = [line for name, seen, _ in sources for line in _lines(store, rows, name, seen)]
    facts = about | {"store": str(store.path), "hash": store.hash, "rows": len(rows)}
    return Audit(facts, tuple(sources), exposure(store, rows, together), tuple(molecules))


def _tested(path: Path, name: str, split: DataConfig | None) -> tuple[Store, Rows, dict[str, Any]]:
    """Return store, test rows [n], and how they were chosen."""
    if (path / "config.json").is_file():
        config, _ = read_run(path)
        targets = config.targets if isinstance(config, FinetuneConfig) else ()
        selection = Selection.of(config.data, targets)
        return selection.store, selection.test, {"run": name, "split": _split_name(config.data)}
    selection, how = _selected(name, split)
    return selection.store, selection.test, {"split": how}


def _is_store(name: str) -> bool:
    return name in BUNDLED or Path(name).is_file() or (Path(name).is_dir() and is_store(Path(name)))


def _contained(name: str, split: DataConfig | None) -> Seen:
    """Return the molecules that a run on a store would see; a spectrum counts if the row has one."""
    selection, how = _selected(name, split)
    return Seen.of(selection, selection.store.metadata.modalities, {"store": name, "split": how})


def _selected(name: str, split: DataConfig | None) -> tuple[Selection, str]:
    """Return the parts of a store, and how it was split; without a split, all rows train and are tested."""
    store = open_store(name)
    if split is None:
        rows = np.arange(len(store))
        return Selection(store, train=rows, val=rows[:0], test=rows), "all rows"
    parts = split_store(store, replace(split, store=name))
    return Selection(store, parts["train"], parts["val"], parts["test"]), _split_name(split)


def _split_name(config: DataConfig) -> str:
    if config.split == "column":
        return f"column split, {config.split_column}"
    shares = config.sizes if config.split == "reference" else config.fractions
    fold = f", fold {config.fold} of {config.folds}" if config.folds else ""
    return f"{config.split} split, seed {config.split_seed}, {' / '.join(map(str, shares))}{fold}"


def _lines(store: Store, rows: Rows, name: str, seen: Seen) -> list[dict[str, Any]]:
    """Return one mapping with the keys `COLUMNS` per test molecule that was seen, at its first row."""
    identities = store.identities
    first: dict[str, int] = {}
    for row in rows.tolist():
        first.setdefault(identities[row], row)
    flags = seen.flags_of(hashes_of(first))
    return [
        {
            "identity": identity,
            "row": row,
            "pretraining": name,
            "structure": int(flag & STRUCTURE > 0),
            "spectra": int(flag & SPECTRUM > 0),
            "validation": int(flag & VALIDATED > 0),
        }
        for (identity, row), flag in zip(first.items(), flags.tolist(), strict=True)
        if flag
    ]


def _counts(overlap: Exposure) -> tuple[int, int, int]:
    return overlap.structures, overlap.spectra, overlap.validated
