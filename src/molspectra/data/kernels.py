"""Compiled loops over the atoms of a batch: neighbour lists and counter-based random words."""

from typing import Any

import numpy as np

from molspectra.compiled.simd import inline, jit


@inline
def _square(positions: Any, first: int, second: int) -> Any:
    """Squared distance, added up in the order of torch."""
    x = positions[3 * first] - positions[3 * second]
    y = positions[3 * first + 1] - positions[3 * second + 1]
    z = positions[3 * first + 2] - positions[3 * second + 2]
    return (x * x + y * y) + z * z


@jit
def count_neighbours(
    low: int, high: int, positions: Any, ptr: Any, limit: Any, below: Any, above: Any
) -> None:
    """Count the neighbours with smaller and larger index of every atom of the molecules low … high - 1.

    Args:
        low: first molecule.
        high: one past the last.
        positions: [3·N].
        ptr: [B + 1] int64 atom offsets.
        limit: square of the cutoff, in the positions' type; a distance that is not a number is inside.
        below: [N] int64, written here.
        above: [N] int64, written here.
    """
    for molecule in range(low, high):
        below[ptr[molecule] : ptr[molecule + 1]] = 0
        for first in range(ptr[molecule], ptr[molecule + 1]):
            found = 0
            for second in range(first + 1, ptr[molecule + 1]):
                near = not _square(positions, first, second) >= limit
                found += near
                below[second] += near
            above[first] = found


@jit
def list_neighbours(
    low: int,
    high: int,
    positions: Any,
    ptr: Any,
    limit: Any,
    edge_ptr: Any,
    pair_ptr: Any,
    loop: Any,
    edges: Any,
    pairs: Any,
) -> None:
    """Write the edges and pairs of the molecules low … high - 1.

    Args:
        low: first molecule.
        high: one past the last.
        positions: [3·N].
        ptr: [B + 1] int64 atom offsets.
        limit: as counted with.
        edge_ptr: [N + 1] int64, where the edges into each atom begin.
        pair_ptr: [N + 1] int64, where the pairs of each smaller atom begin.
        loop: [N] int64, the self-edge of each atom.
        edges: [4, E] int64, written here: source, target, reverse, pair.
        pairs: [3, Q] int64, written here: first, second, the edge from second to first.
    """
    for molecule in range(low, high):
        begin, end = ptr[molecule], ptr[molecule + 1]
        next_edge = edge_ptr[begin:end].copy()  # of the edges from smaller atoms into each
        for first in range(begin, end):
            here = loop[first]
            edges[0, here], edges[1, here], edges[2, here], edges[3, here] = first, first, here, 0
            pair = pair_ptr[first]
            for second in range(first + 1, end):
                if _square(positions, first, second) >= limit:
                    continue
                here += 1
                there = next_edge[second - begin]
                next_edge[second - begin] += 1
                edges[0, here], edges[1, here], edges[2, here], edges[3, here] = (
                    second,
                    first,
                    there,
                    pair + 1,
                )
                edges[0, there], edges[1, there], edges[2, there], edges[3, there] = (
                    first,
                    second,
                    here,
                    pair + 1,
                )
                pairs[0, pair], pairs[1, pair], pairs[2, pair] = first, second, here
                pair += 1


@jit
def philox(low: int, high: int, counter: Any, table: Any, words: Any) -> None:
    """The words of Philox4x32-10 for the counters low … high - 1.

    Args:
        low: first counter.
        high: one past the last.
        counter: [n, 4] int64, words in [0, 2³²).
        table: [1 + rounds, 2] int64, the multipliers of words 0 and 2, then the keys of the rounds.
        words: [n, 4] int64, written here.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    first, second = np.uint64(table[0, 0]), np.uint64(table[0, 1])
    for each in range(low, high):
        a, b = np.uint64(counter[each, 0]), np.uint64(counter[each, 1])
        c, d = np.uint64(counter[each, 2]), np.uint64(counter[each, 3])
        for turn in range(1, len(table)):
            one, two = a * first, c * second
            a = (two >> half) ^ b ^ np.uint64(table[turn, 0])
            b = two & mask
            c = (one >> half) ^ d ^ np.uint64(table[turn, 1])
            d = one & mask
        words[each, 0], words[each, 1], words[each, 2], words[each, 3] = a, b, c, d
