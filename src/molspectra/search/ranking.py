"""Ranks the molecules of a library by the scores of their entries; of a molecule its best entry counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NEAR = 2.0
"""Ratio of the confidences of the first and the last answer of a group, at most."""

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


class Answers:
    """The entries of a library grouped by molecule: n entries, A answers.

    Attributes:
        of: [n] int64, the answer that each entry belongs to, numbered by first entry.
        order: [n] rows of the entries sorted by answer, then by row.
        starts: [A] index in `order` of the first entry of each answer.
    """

    def __init__(self, identities: pa.ChunkedArray) -> None:
        """Group entries by their identities [n]."""
        codes = identities.combine_chunks().dictionary_encode()
        if isinstance(codes, pa.ChunkedArray):
            codes = codes.combine_chunks()
        self.of: Ints = codes.indices.to_numpy().astype(np.int64)
        self.order: Ints = np.argsort(self.of, kind="stable")
        counts = np.bincount(self.of, minlength=len(codes.dictionary))
        self.starts: Ints = np.concatenate([[0], counts.cumsum()[:-1]]).astype(np.int64)

    def __len__(self) -> int:
        """Return the number of different molecules A."""
        return len(self.starts)

    def best(self, totals: Doubles) -> tuple[Doubles, Ints]:
        """Score [A] and row [A] of the best entry of every answer.

        Args:
            totals: [n] scores, −inf for entries that are no candidates; of equal ones the first row counts.
        """
        if len(self.starts) == len(self.order):
            return totals, self.order
        ordered = totals[self.order]
        score = np.maximum.reduceat(ordered, self.starts)
        is_best = ordered == score[self.of[self.order]]
        position = np.where(is_best, np.arange(len(ordered)), len(ordered))
        return score, self.order[np.minimum.reduceat(position, self.starts)]


def leading(score: Doubles, count: int) -> Ints:
    """Indices [k ≤ count] of the highest of scores [A], highest first, equal ones by index; never of −inf."""
    candidates = np.flatnonzero(score > -np.inf)
    if len(candidates) > count:
        lowest = np.partition(score[candidates], len(candidates) - count)[len(candidates) - count]
        candidates = candidates[score[candidates] >= lowest]
    order = np.lexsort((candidates, -score[candidates]))
    return candidates[order[:count]].astype(np.int64)


def groups(confidence: Doubles) -> Ints:
    """Numbers [k] from 1 of the groups of about equally probable answers, from confidences in order of rank.

    A group holds the answers whose confidence is at least that of its first one divided by `NEAR`.
    """
    numbers = np.zeros(len(confidence), np.int64)
    first, number = np.inf, 0
    for row, value in enumerate(confidence):
        if number == 0 or value * NEAR < first:
            first, number = value, number + 1
        numbers[row] = number
    return numbers
