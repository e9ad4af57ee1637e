"""Compiled broadening: the algorithm of `broadening`, one molecule at a time, in the first-level cache."""

from typing import Any

import numpy as np

from molspectra.compiled.simd import fma, inline, jit, load, splat, store

LANES = 16
NODES = 8  # per block
NEAR = 3  # blocks on which a line is summed directly
MARGIN = 3  # blocks before and after the axis, for lines outside it


@inline
def _add(values: Any, first: Any, stop: Any, grid: Any, centre: Any, height: Any, constant: Any) -> None:
    """Add height / ((grid - centre)² + constant) to values[first:stop], in steps of `LANES`."""
    centres, heights = splat(np.float32(centre), LANES), splat(np.float32(height), LANES)
    constants = splat(np.float32(constant), LANES)
    for at in range(first, stop, LANES):
        distance = load(grid, at - first, LANES) - centres
        profile = heights / fma(distance, distance, constants)
        store(values, at, load(values, at, LANES) + profile)


@inline
def _interpolate(far: Any, near: Any, rule: Any, blocks: Any, block: Any) -> None:
    """Add to the points of every block the values interpolated from its nodes.

    The eight rows of the rule stay in registers.
    """
    for at in range(0, block, LANES):
        rule_0, rule_1 = load(rule, at, LANES), load(rule, block + at, LANES)
        rule_2, rule_3 = load(rule, 2 * block + at, LANES), load(rule, 3 * block + at, LANES)
        rule_4, rule_5 = load(rule, 4 * block + at, LANES), load(rule, 5 * block + at, LANES)
        rule_6, rule_7 = load(rule, 6 * block + at, LANES), load(rule, 7 * block + at, LANES)
        for index in range(MARGIN, MARGIN + blocks):
            node, point = index * NODES, index * block + at
            one = fma(splat(far[node], LANES), rule_0, load(near, point, LANES))
            two = splat(far[node + 1], LANES) * rule_1
            one = fma(splat(far[node + 2], LANES), rule_2, one)
            two = fma(splat(far[node + 3], LANES), rule_3, two)
            one = fma(splat(far[node + 4], LANES), rule_4, one)
            two = fma(splat(far[node + 5], LANES), rule_5, two)
            one = fma(splat(far[node + 6], LANES), rule_6, one)
            two = fma(splat(far[node + 7], LANES), rule_7, two)
            store(near, point, one + two)


@jit
def lorentzian(
    low: int,
    high: int,
    steps: Any,
    height: Any,
    offsets: Any,
    constant: float,
    grid: Any,
    far_grid: Any,
    interpolation: Any,
    out: Any,
    points: int,
) -> None:
    """Broaden the lines of the molecules low … high - 1 into `out`.

    Args:
        low: first molecule.
        high: one past the last.
        steps: positions [M] of all lines in steps from the start of the axis, float64.
        height: w/2π times the intensity [M] of each line, in steps, float32.
        offsets: [B + 1] int64.
        constant: w²/4 in steps².
        grid: the points of the near blocks [3·block], counted from their middle, float32.
        far_grid: the nodes of all blocks, counted from the middle of the axis, float32, padded to a
            multiple of `LANES`.
        interpolation: [NODES·block] float32, from nodes to the points of a block.
        out: [B·points] float32, written here.
        points: points of the axis.
    """
    block = len(grid) // NEAR
    blocks = -(-points // block)
    middle = blocks * block / 2
    near = np.empty((blocks + 2 * MARGIN) * block, np.float32)
    far = np.empty((blocks + 2 * MARGIN) * NODES + LANES, np.float32)
    far_first = MARGIN * NODES
    far_stop = far_first + len(far_grid)
    for molecule in range(low, high):
        near[:] = 0.0
        far[:] = 0.0
        for line in range(offsets[molecule], offsets[molecule + 1]):
            # the three blocks around the line; those outside the axis lie in the margins. NaN: no such block
            window = -MARGIN
            if steps[line] >= 0.0:
                window = int(min(np.floor(steps[line] / block) - 1, float(blocks + 1)))
                window -= window >= blocks  # from two blocks beyond the axis, its last block is near
            elif steps[line] >= -2 * block:
                window = -2
            start = (window + MARGIN) * block
            if -MARGIN < window < blocks:
                centre = steps[line] - (window + NEAR / 2) * block
                _add(near, start, start + NEAR * block, grid, centre, height[line], constant)
            hole = (window + MARGIN) * NODES  # restored below: these blocks have the line already
            first, last = load(far, hole, LANES), load(far, hole + LANES, NODES)
            _add(far, far_first, far_stop, far_grid, steps[line] - middle, height[line], constant)
            store(far, hole, first)
            store(far, hole + LANES, last)
        _interpolate(far, near, interpolation, blocks, block)
        start, rest = molecule * points, points // LANES * LANES
        for at in range(0, rest, LANES):
            store(out, start + at, load(near, MARGIN * block + at, LANES))
        for at in range(rest, points):
            out[start + at] = near[MARGIN * block + at]
