"""The data of a run: rows of a store by its split, and the micro-batches of every step."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from molspectra.chem.elements import SYMBOLS
from molspectra.chem.molecule import MAX_COORDINATE, MIN_DISTANCE
from molspectra.chem.sanity import SEEM_IN_BOHR, bohr_suspected
from molspectra.data.batch import Batch, CleanSpectra
from molspectra.data.neighbours import neighbour_edges
from molspectra.data.splits import SPLITS, reference_split, scaffolds, split_rows
from molspectra.data.store.bundled import BUNDLED, bundled
from molspectra.data.store.schema import SPLIT
from molspectra.data.store.store import Store
from molspectra.data.stream import BatchStream, packed, permutation
from molspectra.errors import InputError, NotFoundError, SettingError, UnitError, ValueRangeError
from molspectra.objectives.loss import NoiseKey
from molspectra.spectra.modality import modality
from molspectra.training.augment import augmented
from molspectra.training.config import DataConfig, SpectraConfig

Rows = npt.NDArray[np.int64]
"""Row numbers of a store."""

CHUNK = 4096
"""Rows whose atoms are read in one go."""

BOHR_ROWS = 100
"""First rows whose structures tell whether the store is in bohr."""


def open_store(name: str) -> Store:
    """Open the store at a path, or a bundled one by its name, such as "bundled" or "bundled-ethanol"."""
    return bundled(name) if name in BUNDLED else Store(name)


def split_store(store: Store, config: DataConfig) -> dict[str, Rows]:
    """Return the ascending rows of the parts "train", "val" and "test" of a store.

    Raises:
        InputError: shares or sizes that do not fit, no such split column, rows without a scaffold.
        SettingError: an identity split of a single molecule's structures, a scaffold split of one scaffold.
    """
    if config.split == "reference":
        train, val, *test = config.sizes
        parts = reference_split(len(store), train, val, test[0] if test else None, config.split_seed)
        return {name: np.sort(rows) for name, rows in parts.items()}
    if config.split == "column":
        return _parts_in_column(store, config)
    keys = identities = store.identities
    if config.split == "scaffold":
        try:
            keys = scaffolds(identities, store.smiles)
        except InputError as error:
            raise error.with_context(config.store) from error
    if config.folds and config.fold is None:
        raise SettingError(f"data.fold: choose one of the {config.folds} folds, 0 to {config.folds - 1}")
    parts = split_rows(keys, config.split_seed, config.fractions, config.folds, config.fold or 0)
    if len(identities) > 1 and len(set(identities)) == 1:
        raise SettingError(
            f"{config.store}: all {len(identities)} rows are one molecule ({identities[0]}), which an "
            f"{config.split} split cannot divide; set data.split: reference and data.sizes, for example "
            "950,50"
        )
    if len(keys) > 1 and len(set(keys)) == 1:
        raise SettingError(
            f"{config.store}: all {len(keys)} rows have one scaffold ({keys[0]}), which a scaffold split "
            "cannot divide; set data.split: identity"
        )
    return parts


def _parts_in_column(store: Store, config: DataConfig) -> dict[str, Rows]:
    """Return the rows of each part as a column of the store names them."""
    name, properties = config.split_column, store.metadata.properties
    if properties.get(name) != SPLIT:
        known = ", ".join(each for each, quantity in properties.items() if quantity == SPLIT) or "none"
        if name in properties:
            raise SettingError(
                f"{config.store}: {name} is a property, a column of numbers, and no split column (it has: "
                f"{known}); name one that prepare --option split=NAME made of words train, val and test"
            )
        raise NotFoundError(
            f"{config.store}: no split column {name!r} in it (it has: {known}); prepare it with --option "
            f"split={name}"
        )
    part = store.column(name)
    wrong = np.flatnonzero(~np.isnan(part) & ~np.isin(part, range(len(SPLITS))))
    if len(wrong):
        raise ValueRangeError(
            f"{config.store}, row {wrong[0]}: {name} is {part[wrong[0]]:g}, not 0 (training), 1 (validation) "
            "or 2 (test)"
        )
    return {each: np.flatnonzero(part == index) for index, each in enumerate(SPLITS)}


@dataclass(frozen=True)
class Selection:
    """The rows of each part of a store's split.

    `lacking` counts the rows left out for want of a target, `unassigned` those that a split column puts into
    no part.
    """

    store: Store
    train: Rows
    val: Rows
    test: Rows
    lacking: int = 0
    unassigned: int = 0

    @classmethod
    def of(
        cls, config: DataConfig, targets: tuple[str, ...] = (), modalities: tuple[str, ...] = ()
    ) -> "Selection":
        """Split a store; rows without any of the scalar targets are left out.

        Args:
            config: the store and how to split it.
            targets: properties and "forces" that the store must have.
            modalities: spectra that the store must have.

        Raises:
            InputError: a target or modality that the store does not have, or an empty part.
        """
        store = open_store(config.store)
        parts = split_store(store, config)
        for name in modalities:
            if modality(name).name not in store.metadata.modalities:
                known = ", ".join(store.metadata.modalities) or "none"
                raise NotFoundError(f"{config.store}: no {name} spectra in it; it has: {known}")
        for name in targets:
            if store.metadata.properties.get(name) == SPLIT:
                raise SettingError(f"{config.store}: {name} tells the parts of a split, it is no target")
        complete = sum(map(len, parts.values()))
        unassigned = len(store) - complete if config.split == "column" else 0
        labelled = [store.has(name) for name in targets]
        if scalars := [has for has, name in zip(labelled, targets, strict=True) if name != "forces"]:
            has_any = np.any(scalars, axis=0)
            parts = {part: rows[has_any[rows]] for part, rows in parts.items()}
        lacking = complete - sum(map(len, parts.values()))
        if config.train_rows:
            every = parts["train"]
            if config.train_rows > len(every):
                raise SettingError(f"data.train_rows: {config.train_rows} asked for, there are {len(every)}")
            chosen = permutation(len(every), config.split_seed, 0)[: config.train_rows]
            parts["train"] = np.sort(every[chosen.numpy()])
        for name in ("train", "val"):
            if not len(parts[name]):
                without = (
                    f" without the {lacking} of its {len(store)} rows that have no {' or '.join(targets)}"
                )
                raise ValueRangeError(
                    f"{config.store}: the {name} part of the split is empty{without if lacking else ''}; use "
                    f"more molecules{' with labels' if lacking else ''}"
                )
        for name, has in zip(targets, labelled, strict=True):
            if not has[parts["train"]].any():
                raise ValueRangeError(f"{config.store}: no training row has {name}; leave it out")
        return cls(store, **parts, lacking=lacking, unassigned=unassigned)

    @classmethod
    def all_of(cls, store: Store, targets: tuple[str, ...]) -> "Selection":
        """Return every row that has any of the scalar targets as a row to be tested.

        Raises:
            InputError: a target that the store does not have.
        """
        has_any = np.any([store.has(name) for name in targets], axis=0)
        rows, none = np.flatnonzero(has_any), np.empty(0, np.int64)
        return cls(store, none, none, rows, lacking=len(store) - len(rows))

    def check_plausible(self, modalities: tuple[str, ...]) -> None:
        """Refuse training and validation rows that cannot be right, as `prepare` does.

        A store that older code or a user's own has written may have them: atoms that coincide or lie
        beyond all molecules, coordinates in bohr, spectra that are zero or absurd.

        Raises:
            ValueRangeError: naming the first such row.
            UnitError: most of the first structures seem to be in bohr.
        """
        advice = "prepare the store again, which leaves such rows out"
        for rows in (self.train, self.val):
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                fault = _structure_fault(self.store.batch(chunk))
                if fault is not None:
                    index, reason = fault
                    raise ValueRangeError(f"{self.store.path}, row {chunk[index]}: {reason}; {advice}")
                for name in modalities:
                    for index, reason in self.store.unusable_spectra(chunk, name).items():
                        raise ValueRangeError(
                            f"{self.store.path}, row {chunk[index]}: its {name} spectrum cannot be used: "
                            f"{reason}; {advice}"
                        )
        found = [self.store.molecule(int(row)) for row in self.train[:BOHR_ROWS]]
        votes = [bohr_suspected(molecule.numbers, molecule.positions) for molecule in found]
        if 2 * votes.count(True) > len(votes) - votes.count(None):
            raise UnitError(f"{self.store.path}: of most of the first structures, {SEEM_IN_BOHR}")

    def check_varies(self, targets: Sequence[str]) -> None:
        """Refuse a target that is the same in all training rows that have it.

        Raises:
            ValueRangeError: with its value.
        """
        for target in targets:
            rows = self.labelled_rows(target)
            values = np.unique(self.store.column(target)[rows])
            if len(values) == 1:
                unit = self.store.metadata.properties[target].unit
                value = f"{values[0]:g} {unit}".strip()
                raise ValueRangeError(
                    f"{self.store.path}: {target} is {value} in all {len(rows)} training rows, so there is "
                    "nothing to learn; choose another target or more molecules"
                )

    def check_classes(self, targets: Sequence[str]) -> None:
        """Refuse labels of classes other than 0 and 1, in any part.

        Raises:
            ValueRangeError: naming the first such row.
        """
        for target in targets:
            values = self.store.column(target)
            for rows in (self.train, self.val, self.test):
                labels = values[rows]
                bad = rows[~np.isnan(labels) & (labels != 0) & (labels != 1)]
                if len(bad):
                    raise ValueRangeError(
                        f"{self.store.path}, row {bad[0]}: {target} is {values[bad[0]]:g}, but classes are 0 "
                        f"and 1; leave {target} out of classes to learn it as a number"
                    )

    def labelled(self, target: str) -> dict[str, int]:
        """Count the rows of each part that have a label."""
        has = self.store.has(target)
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: int(has[rows].sum()) for name, rows in parts.items()}

    def labelled_rows(self, target: str) -> Rows:
        """Return the training rows that have a label."""
        return self.train[self.store.has(target)[self.train]]

    def remarks(
        self, targets: Sequence[str], forces: bool = False, classes: Collection[str] = ()
    ) -> list[str]:
        """Return what a user should know of targets (and forces) before they are trained on, a line each."""
        found = []
        names = " or ".join(targets)
        if self.unassigned:
            found.append(
                f"{self.unassigned} of its {len(self.store)} rows are in no part of the split column and are "
                "left out"
            )
        if self.lacking:
            found.append(f"{self.lacking} of its {len(self.store)} rows have no {names} and are left out")
        if len(targets) > 1:
            for target in targets:
                counts = self.labelled(target)
                parts = ", ".join(f"{counts[part]} of {len(getattr(self, part))} {part}" for part in counts)
                found.append(f"{target} is known in {parts} rows")
        if forces:
            without = int((~self.store.has("forces")[self.train]).sum())
            if without:
                found.append(
                    f"{without} of its {len(self.train)} training rows have no forces and teach only {names}"
                )
        return found + [
            f"{target} is 0 or 1 in all training rows; it is fitted as a number, not as two classes "
            f"(which --classes {','.join([*classes, target])} does)"
            for target in targets
            if target not in classes
            and np.unique(self.store.column(target)[self.labelled_rows(target)]).tolist() == [0, 1]
        ]


def _structure_fault(batch: Batch) -> tuple[int, str] | None:
    """The index of the first molecule whose coordinates cannot be right, and why; None if all can."""
    far = batch.positions.abs().amax(1) > MAX_COORDINATE
    if bool(far.any()):
        atom = int(torch.nonzero(far)[0])
        return int(batch.molecule[atom]), f"an atom lies beyond {MAX_COORDINATE:,.0f} Å"
    edges = neighbour_edges(batch.positions, batch.ptr, 0.999 * MIN_DISTANCE)  # they were rounded to float32
    # a distance that is not finite has an edge too, and is the affair of the step that meets it
    near = edges.pair_first[
        (batch.positions[edges.pair_first] - batch.positions[edges.pair_second]).isfinite().all(1)
    ]
    if len(near):
        return int(batch.molecule[near[0]]), f"two atoms are closer than {MIN_DISTANCE} Å"
    return None


def elements_of(store: Store, rows: Rows) -> list[str]:
    """Return the symbols of the elements that occur in rows of a store, by atomic number."""
    occurs = torch.zeros(len(SYMBOLS), dtype=torch.bool)
    for start in range(0, len(rows), CHUNK):
        occurs[store.batch(rows[start : start + CHUNK]).numbers] = True
    return [symbol for symbol, does_occur in zip(SYMBOLS, occurs.tolist(), strict=True) if does_occur]


def most_edges(store: Store) -> npt.NDArray[np.int64]:
    """Return the directed edges of every row without a cutoff, self-edges included, [n]: N² of N atoms."""
    return store.atom_counts**2


@dataclass(frozen=True)
class Micro:
    """One micro-batch, and the seeds of its noise."""

    batch: Batch
    key: NoiseKey


@dataclass(frozen=True)
class BatchMaker:
    """Makes the micro-batches of an optimizer step: a pure function of the step, for any process to call."""

    store: Store
    rows: Rows
    stream: BatchStream
    modalities: tuple[str, ...]
    targets: tuple[str, ...]
    seed: int
    accumulation: int = 1
    world: int = 1
    rank: int = 0
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    keep_clean: bool = False
    """Also keep the spectra before augmentation, in `Batch.clean`."""
    edge_budget: int = 0
    """Most edges of a micro-batch (`most_edges`), and ranks with about equally many; 0 goes by molecules."""

    def __post_init__(self) -> None:
        """Check before the first step that the spectra can be broadened as asked for."""
        self.spectra.broadening(self.store.metadata.lines, self.modalities)

    def __call__(self, step: int) -> list[Micro]:
        """Return the micro-batches of this rank."""
        if self.edge_budget:
            indices, epochs = self.stream.indices(step)
            least = self.accumulation * self.world
            parts = self.within_budget(self.rows[indices.numpy()], least, self.world)[self.rank :: self.world]
        else:
            indices, epochs = self.stream.indices(step, self.world, self.rank)
            parts = list(torch.arange(len(indices)).tensor_split(self.accumulation))
        return [self.micro(self.rows[indices[part].numpy()], epochs[part]) for part in parts]

    def within_budget(self, rows: Rows, least: int = 1, multiple: int = 1) -> list[torch.Tensor]:
        """Share rows [b] out within the edge budget, if there is one; return the places of each part.

        Args:
            rows: of the store.
            least: fewest parts, at most b.
            multiple: the number of parts is a multiple of this, which divides b.
        """
        edges = torch.from_numpy(self._edges[rows])
        return packed(edges, self.edge_budget or int(edges.sum()), least, multiple)

    @cached_property
    def _edges(self) -> npt.NDArray[np.int64]:
        return most_edges(self.store)

    def micro(self, rows: Rows, epochs: torch.Tensor) -> Micro:
        """Return a micro-batch of the given rows [b] in their epochs [b]."""
        broadening = self.spectra.broadening(self.store.metadata.lines, self.modalities)
        batch = self.store.batch(
            rows, modalities=self.modalities, targets=self.targets, broadening=broadening
        )
        if self.spectra != SpectraConfig():
            clean = batch
            if self.keep_clean and broadening:  # lines were made narrower, to be widened by the augmentation
                clean = self.store.batch(rows, modalities=self.modalities)
            batch = augmented(batch, self.spectra, self.seed, epochs)
            if self.keep_clean:
                batch = replace(batch, clean=CleanSpectra(clean.spectra, clean.present))
        return Micro(batch, NoiseKey(self.seed, epochs))


def in_order(
    store: Store, rows: Rows, size: int, modalities: tuple[str, ...] = (), targets: tuple[str, ...] = ()
) -> Iterator[Micro]:
    """Yield all rows once, in order, with fixed noise (seed and epoch 0): for validation and test."""
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        batch = store.batch(chosen, modalities=modalities, targets=targets)
        yield Micro(batch, NoiseKey(0, torch.zeros(len(chosen), dtype=torch.int64)))
