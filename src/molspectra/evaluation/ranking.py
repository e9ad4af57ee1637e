"""Ranks of the true answers in a gallery, from similarities.

Conventions: an answer is a molecule, however many gallery entries belong to it; its score is that of its
best entry. Ties count against the query: the true answer is ranked behind every other answer whose score is
not lower by more than `TIE`, so that a model which maps everything onto one point ranks the true one last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from molspectra.errors import ValueRangeError

TIE = 1e-6
"""Scores closer than this are a tie: cosines of float32 embeddings are no more exact than that."""

RECALL_AT = (1, 5, 10, 25)
"""Values of k of recall@k."""

SIZES = (3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
"""Sizes of galleries that recall is told for."""

RECALL_OF_SIZES = (1, 10)
"""Values of k of recall@k against the size of the gallery."""


def answer_scores(similarity: Tensor, answer: Tensor) -> Tensor:
    """Compute the score of every answer for every query: that of its most similar entry.

    Args:
        similarity: [Q, G] similarities of queries and gallery entries.
        answer: [G] int64, index 0..A-1 of the answer that each entry belongs to; every answer has an entry.

    Returns:
        [Q, A] scores.
    """
    answers = int(answer.max()) + 1
    scores = similarity.new_full((similarity.shape[0], answers), -torch.inf)
    return scores.scatter_reduce(1, answer.expand_as(similarity), similarity, "amax")


def ranks(scores: Tensor, true: Tensor, among: Tensor | None = None) -> Tensor:
    """Compute the rank of the true answer of every query, 1 for the best; ties count against it.

    Args:
        scores: [Q, A] scores of all answers.
        true: [Q] int64, index of the true answer.
        among: [Q, A] bool, the answers to rank against; None for all.

    Returns:
        [Q] int64.

    Raises:
        ValueRangeError: a score is NaN (which would compare as worse than anything).
    """
    if bool(torch.isnan(scores).any()):
        raise ValueRangeError("a similarity is not a number; the embeddings are not finite")
    own = scores.gather(1, true.unsqueeze(1))
    ahead = scores >= own - TIE
    if among is not None:
        ahead = ahead & among
    ahead = ahead.scatter(1, true.unsqueeze(1), False)
    return ahead.sum(1) + 1


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best answers of every query, [Q, count] int64, and their scores; ties by index."""
    ordered = scores.sort(dim=1, descending=True, stable=True)
    return ordered.indices[:, :count], ordered.values[:, :count]


@dataclass(frozen=True)
class RankFigures:
    """Summary of Q ranks, beside its expectation for a random order.

    Attributes:
        candidates: mean number of answers that a query was ranked among.
        recall: fraction of queries whose true answer is among the first k, by k.
        mrr: mean of 1/rank.
        chance_recall: expected recall of a random order, by k: the mean of min(k/n, 1).
        chance_mrr: expected mean of 1/rank of a random order: the mean of (1 + 1/2 + ... + 1/n)/n.
    """

    queries: int
    candidates: float
    recall: dict[int, float]
    mrr: float
    median_rank: float
    chance_recall: dict[int, float]
    chance_mrr: float


def rank_figures(rank: Tensor, candidates: Tensor) -> RankFigures:
    """Summarise ranks.

    Args:
        rank: [Q] int64 ranks, from 1.
        candidates: [Q] int64 number of answers that each query was ranked among.

    Raises:
        ValueRangeError: no queries.
    """
    if not len(rank):
        raise ValueRangeError("there are no queries to rank")
    position, size = rank.double(), candidates.double()
    harmonic = torch.cat([size.new_zeros(1), (1.0 / torch.arange(1, int(size.max()) + 1).double()).cumsum(0)])
    return RankFigures(
        queries=len(rank),
        candidates=float(size.mean()),
        recall={k: float((position <= k).double().mean()) for k in RECALL_AT},
        mrr=float((1.0 / position).mean()),
        median_rank=float(position.quantile(0.5)),
        chance_recall={k: float((k / size).clamp(max=1.0).mean()) for k in RECALL_AT},
        chance_mrr=float((harmonic[candidates] / size).mean()),
    )


def isomer_figures(rank: Tensor, isomers: Tensor) -> RankFigures | None:
    """Summarise the ranks among molecules of the same formula; None where no query has an isomer.

    Queries without an isomer in the gallery are left out: their rank is always 1.

    Args:
        rank: [Q] int64 ranks among these, from 1.
        isomers: [Q] int64 number of these, the true one included.
    """
    some = isomers > 1
    return rank_figures(rank[some], isomers[some]) if bool(some.any()) else None


@dataclass(frozen=True)
class SizedRecall:
    """Recall in galleries of one size.

    Attributes:
        size: number of answers in a gallery, the true one included; None for every query's whole gallery.
        queries: those whose whole gallery has more answers than that; for None more than the true one.
        candidates: mean number of answers that a query was ranked among.
        recall: expected share of queries whose true answer is among the first k, by k.
        chance_recall: that of a random order, by k.
    """

    size: int | None
    queries: int
    candidates: float
    recall: dict[int, float]
    chance_recall: dict[int, float]


def recall_by_size(rank: Tensor, candidates: Tensor) -> list[SizedRecall]:
    """Compute recall@k in random parts of the galleries, by size, and last in the whole ones.

    A gallery of n answers holds the true one and n - 1 of the N - 1 others, drawn at random. Of the r - 1
    answers ahead of a true one of rank r, the number drawn has a hypergeometric distribution, so that the
    expectation over all draws, P(fewer than k of them are drawn), needs no draw.

    Args:
        rank: [Q] int64 ranks r in the whole galleries, from 1.
        candidates: [Q] int64 sizes N of the whole galleries.

    Returns:
        One entry per size of `SIZES` that some gallery exceeds, and the whole; none without a gallery of two.
    """
    from scipy.stats import hypergeom

    position, whole = rank.numpy(), candidates.numpy()
    entries = []
    for size in (*SIZES, None):
        some = whole > (1 if size is None else size)
        if not some.any():
            continue
        drawn = whole[some] if size is None else np.full(some.sum(), size)
        found = {
            k: float(hypergeom.cdf(k - 1, whole[some] - 1, position[some] - 1, drawn - 1).mean())
            for k in RECALL_OF_SIZES
        }
        chance = {k: float(np.minimum(k / drawn, 1.0).mean()) for k in RECALL_OF_SIZES}
        entries.append(SizedRecall(size, int(some.sum()), float(drawn.mean()), found, chance))
    return entries
