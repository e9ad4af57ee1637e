"""The order of a training run's rows: a pure function of the optimizer step; micro-batches of like size."""

from functools import lru_cache
from heapq import heapreplace

import torch
from torch import Tensor

from molspectra.data.random import Purpose, philox
from molspectra.errors import SettingError, ValueRangeError

_CHUNK = 1 << 16


class BatchStream:
    """An endless stream of rows 0..n-1: one permutation per epoch, one after the other, cut into batches.

    There is no state: the rows of step k depend only on (n, batch_size, seed, k), so that a run resumes with
    the number of its next step. A batch may begin in one epoch and end in the next; no row is left out.
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0) -> None:
        """Create the stream.

        Args:
            n: number of rows.
            batch_size: rows of one optimizer step, over all ranks.
            seed: of the permutations.

        Raises:
            InputError: if there are no rows or the batch is empty.
        """
        if n < 1:
            raise ValueRangeError("there are no rows to train on: the split is empty")
        if batch_size < 1:
            raise SettingError(f"the batch size must be at least 1, not {batch_size}")
        self.n, self.batch_size, self.seed = n, batch_size, seed

    def indices(self, step: int, world_size: int = 1, rank: int = 0) -> tuple[Tensor, Tensor]:
        """Return the rows [b] and their epochs [b], int64, of one rank at one step.

        The concatenated rows of all ranks are those of a single process, so that results do not depend on
        the number of ranks. If the batch does not divide evenly, b differs by one between ranks.

        Raises:
            ValueError: if step or rank is out of range.
            InputError: if there are more ranks than rows in a batch.
        """
        if step < 0 or not 0 <= rank < world_size:
            raise ValueError(f"no step {step} of rank {rank} of {world_size}")
        if world_size > self.batch_size:
            raise SettingError(f"a batch of {self.batch_size} cannot be shared by {world_size} processes")
        begin = step * self.batch_size
        first, last = (begin + self.batch_size * r // world_size for r in (rank, rank + 1))
        position = torch.arange(first, last)  # in the endless sequence of permutations
        epochs = position // self.n
        rows = torch.empty_like(position)
        for epoch in range(first // self.n, (last - 1) // self.n + 1):
            in_epoch = epochs == epoch
            rows[in_epoch] = permutation(self.n, self.seed, epoch)[position[in_epoch] - epoch * self.n]
        return rows, epochs


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order of n rows in an epoch, [n] int64: rows sorted by 63 random bits.

    The result is cached, so do not write to it. It is made from Philox words because a library's shuffle may
    change with the library's version.
    """
    tag = (Purpose.SHUFFLE << 24) | epoch
    keys = []
    for start in range(0, n, _CHUNK):  # two keys per block of four words
        block = torch.arange(start // 2, -(-min(start + _CHUNK, n) // 2))
        counter = torch.stack((block, torch.full_like(block, tag), 0 * block, 0 * block), dim=1)
        words = philox(counter, seed)
        keys.append(((words[:, 0::2] << 31) ^ words[:, 1::2]).reshape(-1))
    return torch.sort(torch.cat(keys)[:n], stable=True).indices


def packed(edges: Tensor, budget: int, least: int = 1, multiple: int = 1) -> list[Tensor]:
    """Share molecules out to micro-batches of at most `budget` edges each, with about equally many.

    The next largest molecule always goes to the micro-batch with the fewest edges; where it does not fit,
    there are too few of them. No micro-batch is empty.

    Args:
        edges: [B] int64 edges of the molecules, positive.
        budget: most edges of a micro-batch; a molecule with more is alone in one.
        least: fewest micro-batches, at most B.
        multiple: their number is a multiple of this, which divides B.

    Returns:
        Places 0..B-1 of the molecules of each micro-batch, ascending, int64; that with most edges first.

    Raises:
        ValueError: if B molecules cannot be so many micro-batches.
    """
    sizes = edges.tolist()
    if least > len(sizes) or len(sizes) % multiple:
        raise ValueError(f"no {least} or more micro-batches, in {multiple}s, of {len(sizes)} molecules")
    largest_first = sorted(range(len(sizes)), key=lambda place: -sizes[place])
    filled = -(-sum(min(size, budget) for size in sizes) // budget)
    unpaired = sum(2 * size > budget for size in sizes)  # no two of these fit into one
    count = -(-max(least, filled, unpaired) // multiple) * multiple
    while True:
        loads = [(0, number) for number in range(count)]  # a heap
        parts: list[list[int]] = [[] for _ in range(count)]
        for place in largest_first:
            load, number = loads[0]
            if load and load + sizes[place] > budget:
                break
            parts[number].append(place)
            heapreplace(loads, (load + sizes[place], number))
        else:
            return [torch.tensor(sorted(parts[number])) for _, number in sorted(loads, reverse=True)]
        count = min(count + max(1, count // (16 * multiple)) * multiple, len(sizes))
