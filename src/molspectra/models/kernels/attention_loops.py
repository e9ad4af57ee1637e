"""The loops of fused residual attention, see `models.kernels.attention`; written for numba, which types them.

A task is one head of one molecule. Its keys and values are packed once. Queries lie in the lanes of blocks,
so that the softmax needs no sums across lanes, and a key that is not visible is simply not packed. No score
is stored: backward computes them again from queries, keys and the logarithm of each softmax's sum.

Offsets are indices into one scratch array. `features` is the number of features of one head in all layers,
padded with zeros to a full register, `part` that of one layer.
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
    """The array at an address, in the type of `like`."""


overload(_at)(
    lambda address, like: (
        (lambda address, like: _floats(address))
        if like.dtype == types.float32
        else (lambda address, like: _doubles(address))
    )
)


@jit
def _scratch(size: Any, like: Any) -> Any:
    """Zeros in the type of `like`, and the first offset at a boundary of 64 bytes."""
    memory = np.zeros(size + 16, like.dtype)
    return memory, (-memory.ctypes.data % 64) // memory.itemsize


@jit
def _round_up(number: Any, step: Any) -> Any:
    """The next multiple of `step`."""
    return (number + step - 1) // step * step


@jit
def _visible(visible: Any, molecule: Any, tokens: Any) -> Any:
    """Indices of the visible tokens of a molecule; of all tokens where `visible` is empty."""
    return np.arange(tokens) if visible.size == 0 else np.nonzero(visible[molecule])[0]


@jit
def _pack(
    scratch: Any, to: Any, row: Any, source: Any, start: Any, stride: Any, tokens: Any, width: Any,
    factor: Any,
) -> Any:  # fmt: skip
    """Copy the `width` numbers at start + token·stride, times `factor`, into rows of scratch."""
    for index in range(len(tokens)):
        offset, packed = start + tokens[index] * stride, to + index * row
        if width == 8:
            store(scratch, packed, load(source, offset, 8) * splat(factor, 8))
        else:
            for feature in range(width):
                scratch[packed + feature] = factor * source[offset + feature]


@jit
def _pack_layers(
    scratch: Any, to: Any, row: Any, addresses: Any, start: Any, stride: Any, tokens: Any, width: Any,
    factor: Any,
) -> Any:  # fmt: skip
    """`_pack` the arrays at the addresses side by side."""
    for layer in range(len(addresses)):
        source = _at(addresses[layer], scratch)
        _pack(scratch, to + layer * width, row, source, start, stride, tokens, width, factor)


@jit
def _unpack(
    scratch: Any, begin: Any, step: Any, feature_step: Any, target: Any, start: Any, stride: Any, tokens: Any,
    width: Any, factor: Any,
) -> Any:  # fmt: skip
    """The reverse of `_pack`, from scratch with strides `step` of tokens and `feature_step` of features."""
    for index in range(len(tokens)):
        offset = start + tokens[index] * stride
        for feature in range(width):
            target[offset + feature] = factor * scratch[begin + index * step + feature * feature_step]


@jit
def _unpack_layers(
    scratch: Any, begin: Any, step: Any, feature_step: Any, addresses: Any, start: Any, stride: Any,
    tokens: Any, width: Any, factor: Any,
) -> Any:  # fmt: skip
    """The reverse of `_pack_layers`."""
    for layer in range(len(addresses)):
        target, offset = _at(addresses[layer], scratch), begin + layer * width * feature_step
        _unpack(scratch, offset, step, feature_step, target, start, stride, tokens, width, factor)


@jit
def _transpose(scratch: Any, to: Any, begin: Any, width: Any) -> Any:
    """Transpose a block, QUERIES rows of `width` numbers."""
    for query in range(QUERIES):
        for feature in range(width):
            scratch[to + feature * QUERIES + query] = scratch[begin + query * width + feature]


@jit
def _scores(scratch: Any, out: Any, begin: Any, keys: Any, queries: Any, features: Any, count: Any) -> Any:
    """out[key, query] = begin[query] + Σ_f keys[key, f]·queries[f, query] for `count` keys."""
    for key in range(0, count, ROWS):
        offset = out + key * QUERIES
        left = keys + key * features
        product(
            scratch, offset, QUERIES, begin, 0, left, features, 1, queries, QUERIES, features, ROWS, 2,
            LANES,
        )  # fmt: skip


@jit
def _sum_keys(scratch: Any, out: Any, keys: Any, weights: Any, features: Any, count: Any) -> Any:
    """out[f, query] += Σ_key keys[key, f]·weights[key, query] over `count` keys."""
    for feature in range(0, features, ROWS):
        offset = out + feature * QUERIES
        left = keys + feature
        product(
            scratch, offset, QUERIES, offset, QUERIES, left, 1, features, weights, QUERIES, count, ROWS, 2,
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
            offset, right = out + key * features + feature, queries + feature
            product(
                scratch, offset, features, offset, features, left, QUERIES, 1, right, features, length, ROWS,
                1, 16,
            )  # fmt: skip
        if features % 16:
            offset, right = out + key * features + features - 8, queries + features - 8
            product(
                scratch, offset, features, offset, features, left, QUERIES, 1, right, features, length, ROWS,
                1, 8,
            )  # fmt: skip


@jit
def _softmax(scratch: Any, scores: Any, sums: Any, state: Any, width: Any, count: Any) -> Any:
    """Turn scores of `count` keys into weights and rescale the sums so far.

    `state` holds the largest score of every query, then the sum of its weights.
    """
    for shift in range(0, QUERIES, LANES):
        largest, total = state + shift, state + QUERIES + shift
        before = load(scratch, largest, LANES)
        top = before
        for offset in range(scores + shift, scores + count * QUERIES, QUERIES):
            top = larger(top, load(scratch, offset, LANES))
        fade = decay(before - top)
        weights = load(scratch, total, LANES) * fade
        for offset in range(scores + shift, scores + count * QUERIES, QUERIES):
            weight = decay(load(scratch, offset, LANES) - top)
            weights = weights + weight
            store(scratch, offset, weight)
        store(scratch, largest, top)
        store(scratch, total, weights)
        for offset in range(sums + shift, sums + width * QUERIES, QUERIES):
            store(scratch, offset, load(scratch, offset, LANES) * fade)


@jit
def attend(
    first: Any, last: Any, addresses: Any, stride: Any, layers: Any, tokens: Any, heads: Any, width: Any,
    scale: Any, visible: Any, attended: Any, levels: Any,
) -> Any:  # fmt: skip
    """Attention of the tasks first to last, into the flat [B, T, d] `attended` and [B, H, T] `levels`.

    A level is log2 Σ_j 2^s_ij of the scores in units of ln 2. At `addresses` lie the queries and keys of all
    layers and the value, [B, T, d] with rows `stride` apart; `visible` is [B, T], or empty for all.
    """
    features, part, padded = _round_up(layers * width, 8), _round_up(width, 8), _round_up(tokens, ROWS)
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
    all_tokens = np.arange(tokens)
    for task in range(first, last):
        molecule, head = task // heads, task % heads
        start = molecule * tokens * stride + head * width
        shown = _visible(visible, molecule, tokens)
        _pack_layers(scratch, keys, features, addresses[layers:-1], start, stride, shown, width, one)
        _pack_layers(scratch, values, part, addresses[-1:], start, stride, shown, width, one)
        for begin in range(0, tokens, QUERIES):
            block = all_tokens[begin : begin + QUERIES]
            _pack_layers(scratch, rows, features, addresses[:layers], start, stride, block, width, unit)
            _transpose(scratch, queries, rows, features)
            scratch[state : state + QUERIES] = LOWEST
            scratch[state + QUERIES : state + 2 * QUERIES] = 0
            scratch[sums : sums + part * QUERIES] = 0
            for chunk in range(0, len(shown), CHUNK):
                count = min(CHUNK, len(shown) - chunk)
                _scores(scratch, scores, zeros, keys + chunk * features, queries, features, count)
                _softmax(scratch, scores, sums, state, part, count)
                _sum_keys(scratch, sums, values + chunk * part, scores, part, count)
            for shift in range(0, QUERIES, LANES):
                share = splat(one, LANES) / load(scratch, state + QUERIES + shift, LANES)
                for offset in range(sums + shift, sums + part * QUERIES, QUERIES):
                    store(scratch, offset, load(scratch, offset, LANES) * share)
            to = molecule * tokens * heads * width + head * width
            _unpack(scratch, sums, 1, QUERIES, attended, to, heads * width, block, width, one)
            level = task * tokens + begin
            for query in range(len(block)):
                levels[level + query] = scratch[state + query] + math.log2(scratch[state + QUERIES + query])


@jit
def _score_gradients(scratch: Any, weights: Any, gradients: Any, count: Any) -> Any:
    """Replace s - level by P = 2^(s - level), and dP - D by P⊙(dP - D), for `count` keys."""
    for shift in range(0, count * QUERIES, LANES):
        weight = decay(load(scratch, weights + shift, LANES))
        store(scratch, weights + shift, weight)
        store(scratch, gradients + shift, weight * load(scratch, gradients + shift, LANES))


@jit
def _minus_dot(
    scratch: Any, to: Any, begin: Any, row: Any, other: Any, start: Any, stride: Any, count: Any,
    width: Any,
) -> Any:  # fmt: skip
    """-Σ_f of `count` rows of scratch times rows of `other`, one number per row."""
    for query in range(count):
        total = scratch[begin + query * row] * other[start + query * stride]
        for feature in range(1, width):
            total += scratch[begin + query * row + feature] * other[start + query * stride + feature]
        scratch[to + query] = -total


@jit
def attend_backward(
    first: Any, last: Any, addresses: Any, stride: Any, targets: Any, layers: Any, tokens: Any,
    heads: Any, width: Any, scale: Any, visible: Any, attended: Any, grad: Any, levels: Any,
) -> Any:  # fmt: skip
    """Gradients of the parts at `addresses`, [B, T, d] each, into `targets`; `grad` is that of `attended`.

    With P the weights, D_i = Σ_c grad_ic·attended_ic: dV = Pᵀ·grad, dP = grad·Vᵀ, dS = P⊙(dP - D),
    dQ = scale·dS·K, dK = scale·dSᵀ·Q. Tokens that are not visible get no gradient of key and value.
    """
    features, part, padded = _round_up(layers * width, 8), _round_up(width, 8), _round_up(tokens, ROWS)
    size = 2 * padded * (features + part) + (3 * features + 2 * part + 2 * CHUNK + 2) * QUERIES
    scratch, keys = _scratch(size, grad)
    values = keys + padded * features
    d_keys = values + padded * part
    d_values = d_keys + padded * features
    rows = d_values + padded * part
    queries = rows + features * QUERIES
    d_queries = queries + features * QUERIES
    out_rows = d_queries + features * QUERIES
    outs = out_rows + part * QUERIES
    weights = outs + part * QUERIES
    d_scores = weights + CHUNK * QUERIES
    state = d_scores + CHUNK * QUERIES
    one, unit = grad.dtype.type(1), grad.dtype.type(scale / math.log(2.0))
    back, back_unit = grad.dtype.type(scale), grad.dtype.type(math.log(2.0))
    all_tokens, step = np.arange(tokens), heads * width
    for task in range(first, last):
        molecule, head = task // heads, task % heads
        start = molecule * tokens * stride + head * width
        own = molecule * tokens * step + head * width
        shown = _visible(visible, molecule, tokens)
        _pack_layers(scratch, keys, features, addresses[layers:-1], start, stride, shown, width, one)
        _pack_layers(scratch, values, part, addresses[-1:], start, stride, shown, width, one)
        scratch[d_keys : d_keys + padded * (features + part)] = 0
        for begin in range(0, tokens, QUERIES):
            block = all_tokens[begin : begin + QUERIES]
            length, level = len(block), task * tokens + begin
            _pack_layers(scratch, rows, features, addresses[:layers], start, stride, block, width, unit)
            _transpose(scratch, queries, rows, features)
            _pack(scratch, out_rows, part, grad, own, step, block, width, one)
            _transpose(scratch, outs, out_rows, part)
            scratch[state : state + length] = -levels[level : level + length]
            offset = own + begin * step
            _minus_dot(scratch, state + QUERIES, out_rows, part, attended, offset, step, length, width)
            scratch[d_queries : d_queries + features * QUERIES] = 0
            for chunk in range(0, len(shown), CHUNK):
                count, key, value = min(CHUNK, len(shown) - chunk), chunk * features, chunk * part
                _scores(scratch, weights, state, keys + key, queries, features, count)
                _scores(scratch, d_scores, state + QUERIES, values + value, outs, part, count)
                _score_gradients(scratch, weights, d_scores, count)
                _sum_queries(scratch, d_values + value, weights, out_rows, part, length, count)
                _sum_queries(scratch, d_keys + key, d_scores, rows, features, length, count)
                _sum_keys(scratch, d_queries, keys + key, d_scores, features, count)
            _unpack_layers(scratch, d_queries, 1, QUERIES, targets[:layers], own, step, block, width, back)
        _unpack_layers(scratch, d_keys, features, 1, targets[layers:-1], own, step, shown, width, back_unit)
        _unpack_layers(scratch, d_values, part, 1, targets[-1:], own, step, shown, width, one)
