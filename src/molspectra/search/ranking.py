"""From scores of entries to ranked answers: a molecule is one answer, whose best entry counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


class Answers:
    """Which entries are the same molecule.

    Attributes:
        of: [n] int64, the answer that each entry shows, numbered by first entry.
        order: [n] entries sorted by answer, then by row.
        starts: [A] where the entries of each answer begin in `order`.
    """

    def __init__(self, identities: pa.ChunkedArray) -> None:
        """Number the answers of entries with these identities [n]."""
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
            totals: [n] scores, −inf for entries that are no candidates. Of equal entries the first counts.
        """
        if len(self.starts) == len(self.order):
            return totals, self.order
        ordered = totals[self.order]
        score = np.maximum.reduceat(ordered, self.starts)
        is_best = ordered == score[self.of[self.order]]
        place = np.where(is_best, np.arange(len(ordered)), len(ordered))
        return score, self.order[np.minimum.reduceat(place, self.starts)]


def leading(score: Doubles, count: int) -> Ints:
    """The `count` best of scores [A], best first, equal ones by number; −inf is never among them."""
    candidates = np.flatnonzero(score > -np.inf)
    if len(candidates) > count:
        least = np.partition(score[candidates], len(candidates) - count)[len(candidates) - count]
        candidates = candidates[score[candidates] >= least]
    order = np.lexsort((candidates, -score[candidates]))
    return candidates[order[:count]].astype(np.int64)


def confidences(score: Doubles, chosen: Ints) -> Doubles:
    """Softmax of scores [A] at the chosen answers [k]: the share of each among all candidates.

    Scores are in units of the calibrated temperature; −inf is no candidate.
    """
    if not len(chosen):
        return np.zeros(0)
    raised = np.exp(score - score.max())
    shares: Doubles = raised[chosen] / raised.sum()
    return shares
