"""Ranks of the true answers in a gallery, from similarities.

Conventions: an answer is a molecule, however many gallery entries belong to it; its score is that of its
best entry. Ties count against the query: the true answer is ranked behind every other answer whose score is
not lower by more than `TIE`, so that a model which maps everything onto one point ranks the true one last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from molspectra.errors import ValueRangeError

TIE = 1e-6
"""Scores closer than this are a tie: cosines of float32 embeddings are no more exact than that."""

RECALL_AT = (1, 5, 10, 25)
"""Values of k of recall@k."""


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
