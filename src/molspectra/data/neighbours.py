"""Neighbour lists of a batch of molecules: exact, deterministic and never truncated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges ``source -> target`` of a batch, sorted by target, then by source; self-edges included.

    Attributes:
        source: [E] int64, the atom a message comes from.
        target: [E] int64, the atom it goes to, ascending.
        reverse: [E] int64, index of the edge ``target -> source``; a self-edge is its own reverse.
        pair: [E] int64, index of the unordered pair: 0 is the self-pair that all self-edges share (d = 0),
            real pairs count from 1.
        pair_first: [Q] int64, the smaller atom of each real pair; ``pair == q + 1`` is the pair
            ``(pair_first[q], pair_second[q])``. Pairs are sorted by (first, second).
        pair_second: [Q] int64, the larger atom.
        ptr: [N + 1] int64, the edges of target ``i`` are ``ptr[i]:ptr[i + 1]``.
        loop: [N] int64, the self-edge of every atom.
        pair_edge: [Q] int64, the edge ``pair_second -> pair_first`` of every real pair.
    """

    source: Tensor
    target: Tensor
    reverse: Tensor
    pair: Tensor
    pair_first: Tensor
    pair_second: Tensor
    ptr: Tensor
    loop: Tensor
    pair_edge: Tensor

    def __len__(self) -> int:
        """Return the number of directed edges E."""
        return self.source.shape[0]


def offsets_of(counts: Tensor) -> Tensor:
    """Return the offsets [B + 1] int64 of consecutive runs with `counts` [B] elements each."""
    offsets = torch.zeros(counts.shape[0] + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


CHUNK = 1 << 20
"""Candidate pairs per block; bounds the memory that one large molecule needs."""


def neighbour_edges(positions: Tensor, ptr: Tensor, cutoff: float, candidates: int | None = None) -> Edges:
    """Return all edges with d < `cutoff` within each molecule, and one self-edge per atom.

    All pairs of atoms of one molecule are candidates, in chunks of bounded memory; there are no edges between
    molecules, so the edges of a molecule do not depend on the rest of the batch. A pair whose distance is NaN
    is kept, so that bad coordinates show in the result.

    Args:
        positions: [N, 3] coordinates in Å, any floating dtype; distances are taken in that dtype.
        ptr: [B + 1] int64 atom offsets of the molecules.
        cutoff: in Å, positive; infinity for all pairs, for which a GPU is not waited for.
        candidates: number of pairs of atoms of one molecule, where the caller knows it.

    Raises:
        ValueError: if the cutoff is not positive.
    """
    return edges_of_pairs(*close_pairs(positions, ptr, cutoff, candidates), positions.shape[0])


def edges_of_pairs(pair_first: Tensor, pair_second: Tensor, atoms: int) -> Edges:
    """Return both directed edges of every pair, and one self-edge per atom.

    Args:
        pair_first: [Q] int64, the smaller atom of each pair; pairs are sorted by (first, second).
        pair_second: [Q] int64, the larger atom.
        atoms: N.
    """
    pairs, device = pair_first.shape[0], pair_first.device
    # neighbours with a larger and with a smaller index, per atom; torch.export cannot tell bincount's length
    above, below = (
        torch.zeros(atoms, dtype=torch.int64, device=device).index_add_(0, atom, torch.ones_like(atom))
        for atom in (pair_first, pair_second)
    )
    edge_ptr = offsets_of(below + above + 1)
    loop = edge_ptr[:-1] + below  # the self-edge of each atom comes after all smaller sources

    # Pairs are sorted by (first, second): edges into `first` follow its self-edge in that order; a stable
    # sort by `second` gives the order of the edges into `second`.
    number = torch.arange(pairs, device=device)
    into_first = loop[pair_first] + 1 + number - offsets_of(above)[pair_first]
    order = torch.sort(pair_second, stable=True).indices
    into_second = torch.empty_like(number)
    target = pair_second[order]
    into_second[order] = edge_ptr[target] + number - offsets_of(below)[target]

    total = 2 * pairs + atoms
    source, reverse, pair = (torch.empty(total, dtype=torch.int64, device=device) for _ in range(3))
    for values, at_first, at_second, at_loop in (
        (source, pair_second, pair_first, torch.arange(atoms, device=device)),
        (reverse, into_second, into_first, loop),
        (pair, number + 1, number + 1, torch.zeros_like(loop)),
    ):
        values[into_first], values[into_second], values[loop] = at_first, at_second, at_loop
    return Edges(
        source=source,
        target=torch.repeat_interleave(below + above + 1, output_size=total),
        reverse=reverse,
        pair=pair,
        pair_first=pair_first,
        pair_second=pair_second,
        ptr=edge_ptr,
        loop=loop,
        pair_edge=into_first,
    )


def close_pairs(
    positions: Tensor, ptr: Tensor, cutoff: float, candidates: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return first < second [Q] int64 of the pairs of `neighbour_edges`, sorted by (first, second).

    Raises:
        ValueError: if the cutoff is not positive.
    """
    if not cutoff > 0:
        raise ValueError(f"cutoff must be positive, not {cutoff}")
    positions = positions.detach()
    atoms, device = positions.shape[0], positions.device
    index = torch.arange(atoms, device=device)
    partners = torch.repeat_interleave(ptr[1:], ptr.diff(), output_size=atoms) - index - 1
    start = offsets_of(partners)
    kept = []
    total = int(start[-1]) if candidates is None else candidates
    chunks = _chunks(start, total)
    for low, high in chunks:
        offset = start[low:high]
        size = total if len(chunks) == 1 else None
        first = torch.repeat_interleave(index[low:high], partners[low:high], output_size=size)
        second = torch.arange(first.shape[0], device=device) - (offset - offset[0])[first - low] + first + 1
        if cutoff == math.inf:
            kept.append((first, second))
            continue
        squared = (positions[first] - positions[second]).square().sum(1)
        keep = torch.nonzero(~(squared >= cutoff * cutoff)).squeeze(1)  # not (>=): a NaN is kept
        kept.append((first[keep], second[keep]))
    if len(kept) == 1:
        return kept[0]
    firsts, seconds = zip(*kept, strict=True)
    return torch.cat(firsts), torch.cat(seconds)


def _chunks(start: Tensor, total: int) -> list[tuple[int, int]]:
    """Return ranges of first atoms with about `CHUNK` candidate pairs each.

    Args:
        start: [N + 1] offsets of the candidates of each first atom.
        total: number of candidates.
    """
    atoms = start.shape[0] - 1
    if total <= CHUNK:
        return [(0, atoms)]
    marks = torch.arange(CHUNK, total, CHUNK, device=start.device)
    cuts = torch.unique(torch.searchsorted(start[:-1], marks)).tolist()
    cuts = [0, *(cut for cut in cuts if 0 < cut < atoms), atoms]
    return list(pairwise(cuts))
