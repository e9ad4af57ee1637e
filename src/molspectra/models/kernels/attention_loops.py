"""The loops of fused residual attention, see `models.kernels.attention`; written for numba, which types them.

A task is one head of one molecule. Its keys and values are packed once. Queries lie in the lanes of blocks,
so that the softmax needs no sums across lanes, and a key that is not visible is simply not packed. No score
is stored: backward computes them again from queries, keys and the logarithm of each softmax's sum.

Places are indices into one scratch array. `features` are those of one head in all layers, padded with zeros
to a full register, `part` those of one layer.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.core.extending import overload

from molspectra.compiled.product import LANES, decay, product
from molspectra.compiled.simd import array_of, jit, larger, load, splat, store

QUERIES = 2 * LANES  # of a block: two registers
ROWS = 8  # rows of a product that is summed up in registers
CHUNK = 64  # keys at a time, so that their scores stay in the first-level cache
LOWEST = -1e30  # below any score, and finite: no inf - inf


_floats, _doubles = array_of(types.float32), array_of(types.float64)


def _at(address: Any, like: Any) -> Any:
    """The array at an address, with numbers of the type of `like`."""


overload(_at)(
    lambda address, like: (
        (lambda address, like: _floats(address))
        if like.dtype == types.float32
        else (lambda address, like: _doubles(address))
    )
)


@jit
def _scratch(size: Any, like: Any) -> Any:
    """Zeros in the type of `like`, and the first place at a boundary of 64 bytes."""
    memory = np.zeros(size + 16, like.dtype)
    return memory, (-memory.ctypes.data % 64) // memory.itemsize


@jit
def _up(number: Any, step: Any) -> Any:
    return (number + step - 1) // step * step


@jit
def _visible(visible: Any, molecule: Any, tokens: Any) -> Any:
    """The visible tokens of a molecule; all, where `visible` is empty."""
    return np.arange(tokens) if visible.size == 0 else np.nonzero(visible[molecule])[0]


@jit
def _pack(
    scratch: Any, to: Any, row: Any, source: Any, start: Any, stride: Any, tokens: Any, width: Any,
    factor: Any,
) -> Any:  # fmt: skip
    """The `width` numbers at start + token·stride, times `factor`, into rows of scratch."""
    for index in range(len(tokens)):
        place, goal = start + tokens[index] * stride, to + index * row
        if width == 8:
            store(scratch, goal, load(source, place, 8) * splat(factor, 8))
        else:
            for feature in range(width):
                scratch[goal + feature] = factor * source[place + feature]


@jit
def _pack_layers(
    scratch: Any, to: Any, row: Any, addresses: Any, start: Any, stride: Any, tokens: Any, width: Any,
    factor: Any,
) -> Any:  # fmt: skip
    """`_pack` the parts at the addresses side by side."""
    for layer in range(len(addresses)):
        source = _at(addresses[layer], scratch)
        _pack(scratch, to + layer * width, row, source, start, stride, tokens, width, factor)


@jit
def _unpack(
    scratch: Any, frm: Any, step: Any, feature_step: Any, goal: Any, start: Any, stride: Any, tokens: Any,
    width: Any, factor: Any,
) -> Any:  # fmt: skip
    """The reverse of `_pack`; numbers of a token lie `feature_step` apart, tokens `step`."""
    for index in range(len(tokens)):
        place = start + tokens[index] * stride
        for feature in range(width):
            goal[place + feature] = factor * scratch[frm + index * step + feature * feature_step]


@jit
def _unpack_layers(
    scratch: Any, frm: Any, step: Any, feature_step: Any, addresses: Any, start: Any, stride: Any,
    tokens: Any, width: Any, factor: Any,
) -> Any:  # fmt: skip
    """The reverse of `_pack_layers`."""
    for layer in range(len(addresses)):
        goal, place = _at(addresses[layer], scratch), frm + layer * width * feature_step
        _unpack(scratch, place, step, feature_step, goal, start, stride, tokens, width, factor)


@jit
def _turn(scratch: Any, to: Any, frm: Any, width: Any) -> Any:
    """Transpose a block, QUERIES rows of `width` numbers."""
    for query in range(QUERIES):
        for feature in range(width):
            scratch[to + feature * QUERIES + query] = scratch[frm + query * width + feature]


@jit
def _scores(scratch: Any, out: Any, begin: Any, keys: Any, queries: Any, features: Any, count: Any) -> Any:
    """out[key, query] = begin[query] + Σ_f keys[key, f]·queries[f, query] for `count` keys."""
    for key in range(0, count, ROWS):
        place = out + key * QUERIES
        left = keys + key * features
        product(
            scratch, place, QUERIES, begin, 0, left, features, 1, queries, QUERIES, features, ROWS, 2,
            LANES,
        )  # fmt: skip


@jit
def _sum_keys(scratch: Any, out: Any, keys: Any, weights: Any, features: Any, count: Any) -> Any:
    """out[f, query] += Σ_key keys[key, f]·weights[key, query] over `count` keys."""
    for feature in range(0, features, ROWS):
        place = out + feature * QUERIES
        left = keys + feature
        product(
            scratch, place, QUERIES, place, QUERIES, left, 1, features, weights, QUERIES, count, ROWS, 2,
            LANES,
        )  # fmt: skip


@jit
def _sum_queries(
    scratch: Any, out: Any, weights: Any, queries: Any, features: Any, length: Any, count: Any,
) -> Any:  # fmt: skip
    """out[key, f] += Σ_query weights[key, query]·queries[query, f] for `count` keys, `length` queries."""
    for key in range(0, count, ROWS):
        left = weights + key * QUERIES
        for feature in range(0, features - 8, 16):
            place, right = out + key * features + feature, queries + feature
            product(
                scratch, place, features, place, features, left, QUERIES, 1, right, features, length, ROWS,
                1, 16,
            )  # fmt: skip
        if features % 16:
            place, right = out + key * features + features - 8, queries + features - 8
            product(
                scratch, place, features, place, features, left, QUERIES, 1, right, features, length, ROWS,
                1, 8,
            )  # fmt: skip


@jit
def _softmax(scratch: Any, scores: Any, sums: Any, state: Any, width: Any, count: Any) -> Any:
    """Scores of `count` keys to weights; fades what was summed up. State: largest scores, sums of weights."""
    for shift in range(0, QUERIES, LANES):
        largest, total = state + shift, state + QUERIES + shift
        before = load(scratch, largest, LANES)
        top = before
        for place in range(scores + shift, scores + count * QUERIES, QUERIES):
            top = larger(top, load(scratch, place, LANES))
        fade = decay(before - top)
        weights = load(scratch, total, LANES) * fade
        for place in range(scores + shift, scores + count * QUERIES, QUERIES):
            weight = decay(load(scratch, place, LANES) - top)
            weights = weights + weight
            store(scratch, place, weight)
        store(scratch, largest, top)
        store(scratch, total, weights)
        for place in range(sums + shift, sums + width * QUERIES, QUERIES):
            store(scratch, place, load(scratch, place, LANES) * fade)


@jit
def attend(
    first: Any, last: Any, addresses: Any, stride: Any, layers: Any, tokens: Any, heads: Any, width: Any,
    scale: Any, visible: Any, attended: Any, levels: Any,
) -> Any:  # fmt: skip
    """Attention of the tasks first to last, the flat [B, T, d] `attended` and [B, H, T] `levels`.

    A level is log2 Σ_j 2^s_ij of the scores in units of ln 2. At `addresses` lie the queries and keys of all
    layers and the value, [B, T, d] with rows `stride` apart; `visible` is [B, T], or empty for all.
    """
    features, part, padded = _up(layers * width, 8), _up(width, 8), _up(tokens, ROWS)
    size = padded * (features + part) + (2 * features + part + CHUNK + 3) * QUERIES
    scratch, keys = _scratch(size, attended)
    values = keys + padded * features
    rows = values + padded * part
    queries = rows + features * QUERIES
    sums = queries + features * QUERIES
    scores = sums + part * QUERIES
    state = scores + CHUNK * QUERIES
    zeros = state + 2 * QUERIES
    one, unit = attended.dtype.type(1), attended.dtype.type(scale / math.log(2.0))
    every = np.arange(tokens)
    for task in range(first, last):
        molecule, head = task // heads, task % heads
        start = molecule * tokens * stride + head * width
        seen = _visible(visible, molecule, tokens)
        _pack_layers(scratch, keys, features, addresses[layers:-1], start, stride, seen, width, one)
        _pack_layers(scratch, values, part, addresses[-1:], start, stride, seen, width, one)
        for begin in range(0, tokens, QUERIES):
            block = every[begin : begin + QUERIES]
            _pack_layers(scratch, rows, features, addresses[:layers], start, stride, block, width, unit)
            _turn(scratch, queries, rows, features)
            scratch[state : state + QUERIES] = LOWEST
            scratch[state + QUERIES : state + 2 * QUERIES] = 0
            scratch[sums : sums + part * QUERIES] = 0
            for chunk in range(0, len(seen), CHUNK):
                count = min(CHUNK, len(seen) - chunk)
                _scores(scratch, scores, zeros, keys + chunk * features, queries, features, count)
                _softmax(scratch, scores, sums, state, part, count)
                _sum_keys(scratch, sums, values + chunk * part, scores, part, count)
            for shift in range(0, QUERIES, LANES):
                share = splat(one, LANES) / load(scratch, state + QUERIES + shift, LANES)
                for place in range(sums + shift, sums + part * QUERIES, QUERIES):
                    store(scratch, place, load(scratch, place, LANES) * share)
            goal = molecule * tokens * heads * width + head * width
            _unpack(scratch, sums, 1, QUERIES, attended, goal, heads * width, block, width, one)
            level = task * tokens + begin
            for query in range(len(block)):
                levels[level + query] = scratch[state + query] + math.log2(scratch[state + QUERIES + query])


@jit
def _slopes(scratch: Any, weights: Any, slopes: Any, count: Any) -> Any:
    """P = 2^(s - level) in place of s - level, and P⊙(dP - D) in place of dP - D, for `count` keys."""
    for shift in range(0, count * QUERIES, LANES):
        weight = decay(load(scratch, weights + shift, LANES))
        store(scratch, weights + shift, weight)
        store(scratch, slopes + shift, weight * load(scratch, slopes + shift, LANES))


@jit
def _minus_dot(
    scratch: Any, to: Any, frm: Any, row: Any, other: Any, start: Any, stride: Any, count: Any,
    width: Any,
) -> Any:  # fmt: skip
    """-Σ_f of rows of scratch times rows of `other`, one number per row."""
    for query in range(count):
        total = scratch[frm + query * row] * other[start + query * stride]
        for feature in range(1, width):
            total += scratch[frm + query * row + feature] * other[start + query * stride + feature]
        scratch[to + query] = -total


@jit
def attend_backward(
    first: Any, last: Any, addresses: Any, stride: Any, targets: Any, layers: Any, tokens: Any,
    heads: Any, width: Any, scale: Any, visible: Any, attended: Any, slope: Any, levels: Any,
) -> Any:  # fmt: skip
    """Gradients of the parts at `addresses`, [B, T, d] each at `targets`; `slope` is that of `attended`.

    With P the weights, D_i = Σ_c slope_ic·attended_ic: dV = Pᵀ·slope, dP = slope·Vᵀ, dS = P⊙(dP - D),
    dQ = scale·dS·K, dK = scale·dSᵀ·Q. Tokens that are not visible are left out of those of keys and value.
    """
    features, part, padded = _up(layers * width, 8), _up(width, 8), _up(tokens, ROWS)
    size = 2 * padded * (features + part) + (3 * features + 2 * part + 2 * CHUNK + 2) * QUERIES
    scratch, keys = _scratch(size, slope)
    values = keys + padded * features
    key_slopes = values + padded * part
    value_slopes = key_slopes + padded * features
    rows = value_slopes + padded * part
    queries = rows + features * QUERIES
    query_slopes = queries + features * QUERIES
    out_rows = query_slopes + features * QUERIES
    outs = out_rows + part * QUERIES
    weights = outs + part * QUERIES
    slopes = weights + CHUNK * QUERIES
    state = slopes + CHUNK * QUERIES
    one, unit = slope.dtype.type(1), slope.dtype.type(scale / math.log(2.0))
    back, back_unit = slope.dtype.type(scale), slope.dtype.type(math.log(2.0))
    every, step = np.arange(tokens), heads * width
    for task in range(first, last):
        molecule, head = task // heads, task % heads
        start = molecule * tokens * stride + head * width
        goal = molecule * tokens * step + head * width
        seen = _visible(visible, molecule, tokens)
        _pack_layers(scratch, keys, features, addresses[layers:-1], start, stride, seen, width, one)
        _pack_layers(scratch, values, part, addresses[-1:], start, stride, seen, width, one)
        scratch[key_slopes : key_slopes + padded * (features + part)] = 0
        for begin in range(0, tokens, QUERIES):
            block = every[begin : begin + QUERIES]
            length, level = len(block), task * tokens + begin
            _pack_layers(scratch, rows, features, addresses[:layers], start, stride, block, width, unit)
            _turn(scratch, queries, rows, features)
            _pack(scratch, out_rows, part, slope, goal, step, block, width, one)
            _turn(scratch, outs, out_rows, part)
            scratch[state : state + length] = -levels[level : level + length]
            place = goal + begin * step
            _minus_dot(scratch, state + QUERIES, out_rows, part, attended, place, step, length, width)
            scratch[query_slopes : query_slopes + features * QUERIES] = 0
            for chunk in range(0, len(seen), CHUNK):
                count, key, value = min(CHUNK, len(seen) - chunk), chunk * features, chunk * part
                _scores(scratch, weights, state, keys + key, queries, features, count)
                _scores(scratch, slopes, state + QUERIES, values + value, outs, part, count)
                _slopes(scratch, weights, slopes, count)
                _sum_queries(scratch, value_slopes + value, weights, out_rows, part, length, count)
                _sum_queries(scratch, key_slopes + key, slopes, rows, features, length, count)
                _sum_keys(scratch, query_slopes, keys + key, slopes, features, count)
            _unpack_layers(
                scratch, query_slopes, 1, QUERIES, targets[:layers], goal, step, block, width, back
            )
        _unpack_layers(
            scratch, key_slopes, features, 1, targets[layers:-1], goal, step, seen, width, back_unit
        )
        _unpack_layers(scratch, value_slopes, part, 1, targets[-1:], goal, step, seen, width, one)
