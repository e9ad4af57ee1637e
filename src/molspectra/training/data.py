"""What a run trains and validates on: rows of a store by identity split, and the batches of every step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from molspectra.data.batch import Batch
from molspectra.data.bundled import bundled
from molspectra.data.splits import split_rows
from molspectra.data.store import Store
from molspectra.data.stream import BatchStream
from molspectra.errors import InputError
from molspectra.objectives.loss import NoiseKey
from molspectra.training.config import DataConfig


def open_store(name: str) -> Store:
    """The store at a path, or the bundled one by the name "bundled"."""
    return bundled() if name == "bundled" else Store(name)


@dataclass(frozen=True)
class Selection:
    """The rows of each part of a store's identity split."""

    store: Store
    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]

    @classmethod
    def of(cls, config: DataConfig, targets: tuple[str, ...] = ()) -> "Selection":
        """Split a store by identity; rows without the targets are left out.

        Raises:
            InputError: a target that the store does not have, or an empty part.
        """
        store = open_store(config.store)
        parts = split_rows(store.identities, config.split_seed, config.fractions)
        for target in targets:
            if target != "forces":
                known = ~np.isnan(store.column(target))
                parts = {name: rows[known[rows]] for name, rows in parts.items()}
        if config.train_rows:
            if config.train_rows > len(parts["train"]):
                raise InputError(
                    f"data.train_rows: {config.train_rows} asked for, the training part has {len(parts['train'])}"
                )
            order = np.random.Generator(np.random.PCG64(config.split_seed)).permutation(len(parts["train"]))
            parts["train"] = np.sort(parts["train"][order[: config.train_rows]])
        for name in ("train", "val"):
            if not len(parts[name]):
                raise InputError(f"{config.store}: the {name} part of the split is empty; use more molecules")
        return cls(store, **parts)


@dataclass(frozen=True)
class Micro:
    """One micro-batch with what its noise depends on."""

    batch: Batch
    key: NoiseKey


@dataclass(frozen=True)
class BatchMaker:
    """The micro-batches of an optimizer step: a pure function of the step, so it can run in any process."""

    store: Store
    rows: npt.NDArray[np.int64]
    stream: BatchStream
    modalities: tuple[str, ...]
    targets: tuple[str, ...]
    seed: int
    accumulation: int = 1
    world: int = 1
    rank: int = 0

    def __call__(self, step: int) -> list[Micro]:
        """The micro-batches of this rank."""
        places, epochs = self.stream.indices(step, self.world, self.rank)
        return [
            self._micro(place, epoch)
            for place, epoch in zip(
                places.tensor_split(self.accumulation), epochs.tensor_split(self.accumulation), strict=True
            )
        ]

    def _micro(self, places: torch.Tensor, epochs: torch.Tensor) -> Micro:
        batch = self.store.batch(self.rows[places.numpy()], modalities=self.modalities, targets=self.targets)
        return Micro(batch, NoiseKey(self.seed, epochs))


def in_order(
    store: Store,
    rows: npt.NDArray[np.int64],
    size: int,
    modalities: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    seed: int = 0,
) -> Iterator[Micro]:
    """All rows once, in order, with fixed noise (epoch 0): for validation and test."""
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        batch = store.batch(chosen, modalities=modalities, targets=targets)
        yield Micro(batch, NoiseKey(seed, torch.zeros(len(chosen), dtype=torch.int64)))
