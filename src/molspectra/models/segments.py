"""Gathers and sums along a symmetric, target-sorted edge list, differentiable to any order.

The gradient of a gather is a sum and the gradient of a sum is a gather, so both are written once and call
each other. Because the edge list is symmetric, the gradient of a gather of *source* atoms is a sum by target
after a permutation with `Edges.reverse`: no atomic additions, the same result on every run.

Shapes: N atoms, E directed edges, Q unordered pairs, B molecules, S segments.
"""

from typing import Any

import torch
from torch import Tensor

from molspectra.data.neighbours import Edges


def segment_sum(values: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
    """Sum rows that share a segment.

    Args:
        values: [E, ...] rows, sorted by segment.
        index: [E] segment of every row.
        ptr: [S+1] rows of segment s are ptr[s]:ptr[s+1].

    Returns:
        [S, ...] sums, in a fixed order of addition.
    """
    if values.is_cuda:  # index_add_ would add with atomics, in a random order
        rows = values.contiguous()
        return torch.segment_reduce(rows, "sum", offsets=ptr, axis=0, initial=0.0, unsafe=True)
    return values.new_zeros((ptr.numel() - 1, *values.shape[1:])).index_add_(0, index, values)


# Atoms and molecules


def sum_by_molecule(values: Tensor, molecule: Tensor, ptr: Tensor) -> Tensor:
    """Atom rows [N, ...] summed per molecule, [B, ...]; `ptr` [B+1] are the molecules' atom offsets."""
    result: Tensor = _SumSegments.apply(values, molecule, ptr)
    return result


def spread_to_atoms(values: Tensor, molecule: Tensor, ptr: Tensor) -> Tensor:
    """Molecule rows [B, ...] copied to every atom of the molecule, [N, ...]."""
    result: Tensor = _SpreadSegments.apply(values, molecule, ptr)
    return result


class _SumSegments(torch.autograd.Function):
    """Rows [E, ...] to sums [S, ...], see `segment_sum`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
        ctx.index, ctx.ptr = index, ptr
        return segment_sum(values, index, ptr)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return spread_to_atoms(grad, ctx.index, ctx.ptr), None, None


class _SpreadSegments(torch.autograd.Function):
    """Segment rows [S, ...] to rows [E, ...]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, ptr: Tensor) -> Tensor:
        ctx.index, ctx.ptr = index, ptr
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return sum_by_molecule(grad, ctx.index, ctx.ptr), None, None


# Atoms and edges


def sum_by_target(values: Tensor, edges: Edges) -> Tensor:
    """Edge rows [E, ...] summed over the edges that end in an atom, [N, ...]."""
    result: Tensor = _SumSegments.apply(values, edges.target, edges.ptr)
    return result


def gather_target(values: Tensor, edges: Edges) -> Tensor:
    """Atom rows [N, ...] at the target of every edge, [E, ...]."""
    result: Tensor = _SpreadSegments.apply(values, edges.target, edges.ptr)
    return result


def gather_source(values: Tensor, edges: Edges) -> Tensor:
    """Atom rows [N, ...] at the source of every edge, [E, ...]."""
    result: Tensor = _GatherSource.apply(values, edges)
    return result


class _GatherSource(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        reversed_edges: Tensor = _PermuteReverse.apply(grad, ctx.edges)
        return sum_by_target(reversed_edges, ctx.edges), None


class _PermuteReverse(torch.autograd.Function):
    """`values[reverse]`, [E, ...]; the permutation is its own inverse, hence its own gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.reverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        result: Tensor = _PermuteReverse.apply(grad, ctx.edges)
        return result, None


# Pairs and edges


def gather_pair(values: Tensor, edges: Edges) -> Tensor:
    """Pair rows [1 + Q, ...] (row 0: the shared self-pair) at both directed edges of the pair, [E, ...]."""
    result: Tensor = _GatherPair.apply(values, edges)
    return result


class _GatherPair(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        return values.index_select(0, edges.pair)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        result: Tensor = _SumByPair.apply(grad, ctx.edges)
        return result, None


class _SumByPair(torch.autograd.Function):
    """Edge rows [E, ...] to sums over both directions of a pair [1 + Q, ...]; row 0 sums all self-edges."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        loops = values.index_select(0, edges.loop).sum(0, keepdim=True)
        back = edges.reverse.index_select(0, edges.pair_edge)
        return torch.cat([loops, values.index_select(0, edges.pair_edge) + values.index_select(0, back)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return gather_pair(grad, ctx.edges), None
