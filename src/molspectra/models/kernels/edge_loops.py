"""The edge part of one equivariant attention layer, head by head and pair by pair, nothing stored per edge.

Shapes: N atoms, Q pairs, C channels, H heads, D = C/H channels of a head, R rows of filters. Arrays are
addresses of contiguous numbers:

| name | layout | content |
|---|---|---|
| query, key | [N, C] | queries and keys of the atoms |
| value | [N, 3C] | per head: 3 × D |
| vectors | [N, 3, C] | vector features |
| rows | [H, R, 4, D] | filters before activation, without bias: key, and value's three parts |
| bias | [H, 4, D] | their bias |
| row, weight | [1 + Q], [1 + Q, 4] | filter of a pair: Σ_p weight_p · rows[row + p] |
| scale, envelope | [1 + Q] | factor on that sum; φ(d). Entry 0 of all four is the self-pair |
| direction | [Q, 3] | unit vector from the pair's first atom to its second |

Where every pair has a row of its own, rows are [R, H, 4, D].

A task is one head of one chunk of molecules, so that two tasks never write to the same memory. The head's
channels of a molecule are packed side by side first: rows of 2ⁿ bytes would fall on the same few lines of the
cache.
"""

from typing import Any

import numpy as np
import torch

from molspectra.compiled.simd import (
    array_of,
    fma,
    inline,
    integers,
    jit,
    load,
    real_of,
    sigmoid,
    splat,
    store,
    total,
)


def rows_of(lanes: int) -> tuple[Any, Any, Any]:
    """Functions on rows of `lanes` numbers: add to a row, copy a row, pack the rows of an atom."""

    @inline
    def add(array: Any, start: Any, value: Any) -> Any:
        store(array, start, load(array, start, lanes) + value)

    @inline
    def copy(source: Any, start: Any, target: Any, to: Any) -> Any:
        store(target, to, load(source, start, lanes))

    @inline
    def pack(
        query: Any, key: Any, value: Any, vectors: Any, atom: Any, channels: Any, column: Any,
        packed: Any, to: Any,
    ) -> Any:  # fmt: skip
        """Copy query, key, value (3 rows) and vectors (3 rows) of one atom and head into `packed`."""
        at = atom * channels + column
        copy(query, at, packed, to)
        copy(key, at, packed, to + lanes)
        for part in range(3):
            copy(value, 3 * at + part * lanes, packed, to + (2 + part) * lanes)
            copy(vectors, (3 * atom + part) * channels + column, packed, to + (5 + part) * lanes)

    return add, copy, pack


def edge_kernels(dtype: torch.dtype, lanes: int, points: int) -> tuple[Any, Any]:
    """Forward and backward kernel for heads of `lanes` channels and filters of `points` rows (1 or 4)."""
    real = real_of(dtype)
    reals = array_of(real)
    quad = 4 * lanes  # one row of filters
    add, copy, pack = rows_of(lanes)

    @inline
    def silu(x: Any) -> Any:
        return x * sigmoid(x)

    @inline
    def slope(x: Any) -> Any:
        """The derivative of silu, s·(1 + x·(1 - s)), s = sigmoid(x)."""
        s = sigmoid(x)
        return fma(x - x * s, s, s)

    @inline
    def silu_of(x: Any) -> Any:
        return total(silu(splat(x, 1)))

    @inline
    def slope_of(x: Any) -> Any:
        return total(slope(splat(x, 1)))

    @inline
    def part_of(rows: Any, start: Any, bias: Any, weight: Any, at: Any, scale: Any) -> Any:
        """One of the four parts of a pair's filters, before activation."""
        if points == 1:
            return load(rows, start, lanes) + bias
        for point in range(points):
            bias = fma(
                load(rows, start + point * quad, lanes), splat(weight[at + point] * scale, lanes), bias
            )
        return bias

    @jit
    def forward(
        first_task: int, last_task: int, parts: int, channels: int, n_rows: int, pairs: int, soft: bool,
        largest: int, chunks: Any, molecules: Any, pair_ptr: Any, pair_first: Any, pair_second: Any,
        query: Any, key: Any, value: Any, vectors: Any, rows: Any, bias: Any,
        row: Any, weight: Any, scale: Any, envelope: Any, direction: Any,
        out_scalars: Any, out_vectors: Any,
    ) -> None:  # fmt: skip
        molecules, pair_ptr, chunks = integers(molecules), integers(pair_ptr), integers(chunks)
        pair_first, pair_second = integers(pair_first), integers(pair_second)
        query, key, value, vectors = reals(query), reals(key), reals(value), reals(vectors)
        rows, bias, row, weight = reals(rows), reals(bias), integers(row), reals(weight)
        scale, envelope, direction = reals(scale), reals(envelope), reals(direction)
        out_scalars, out_vectors = reals(out_scalars), reals(out_vectors)
        one = envelope[0]
        packed, out = np.empty(largest * 8 * lanes, real), np.empty(largest * 4 * lanes, real)
        for task in range(first_task, last_task):
            head, part = task // parts, task % parts
            column, b = head * lanes, head * quad
            base, step = (b, channels * 4) if points == 1 else (b * n_rows, quad)
            b0, b1 = load(bias, b, lanes), load(bias, b + lanes, lanes)
            b2, b3 = load(bias, b + 2 * lanes, lanes), load(bias, b + 3 * lanes, lanes)
            # filters of the self-pair
            start = base + row[0] * step
            s0 = silu(part_of(rows, start, b0, weight, 0, scale[0]))
            s1 = silu(part_of(rows, start + lanes, b1, weight, 0, scale[0]))
            s2 = silu(part_of(rows, start + 2 * lanes, b2, weight, 0, scale[0]))
            for molecule in range(chunks[part], chunks[part + 1]):
                begin, end = molecules[molecule], molecules[molecule + 1]
                # pack the atoms; messages of every atom to itself
                for atom in range(end - begin):
                    a, o = atom * 8 * lanes, atom * quad
                    pack(query, key, value, vectors, begin + atom, channels, column, packed, a)
                    score = total(load(packed, a, lanes) * load(packed, a + lanes, lanes) * s0)
                    message = load(packed, a + 2 * lanes, lanes) * s1
                    store(out, o, message * splat(silu_of(score), lanes))
                    gate = load(packed, a + 3 * lanes, lanes) * s2
                    for x in range(3):
                        store(out, o + (1 + x) * lanes, load(packed, a + (5 + x) * lanes, lanes) * gate)
                # filters and messages of the pairs
                for q in range(pair_ptr[molecule], pair_ptr[molecule + 1]):
                    phi, at = envelope[q + 1], 4 * (q + 1)
                    start = base + row[q + 1] * step
                    f0 = silu(part_of(rows, start, b0, weight, at, scale[q + 1]))
                    f1 = silu(part_of(rows, start + lanes, b1, weight, at, scale[q + 1]))
                    f2 = silu(part_of(rows, start + 2 * lanes, b2, weight, at, scale[q + 1]))
                    f3 = silu(part_of(rows, start + 3 * lanes, b3, weight, at, scale[q + 1]))
                    strength = phi
                    if soft:
                        smooth = splat(phi, lanes)
                        f1, f2, f3 = f1 * smooth, f2 * smooth, f3 * smooth
                        strength = one
                    # both directions of the pair, from source s to target t
                    for way in range(2):
                        i, j, sign = pair_first[q] - begin, pair_second[q] - begin, one
                        if way == 1:
                            i, j, sign = j, i, -one
                        t, s, o = i * 8 * lanes, j * 8 * lanes, i * quad
                        score = total(load(packed, t, lanes) * load(packed, s + lanes, lanes) * f0)
                        attention = splat(silu_of(score) * strength, lanes)
                        message = load(packed, s + 2 * lanes, lanes) * f1
                        store(out, o, fma(message, attention, load(out, o, lanes)))
                        gate = load(packed, s + 3 * lanes, lanes) * f2
                        along = load(packed, s + 4 * lanes, lanes) * f3
                        for x in range(3):
                            unit = splat(sign * direction[3 * q + x], lanes)
                            moved = fma(
                                load(packed, s + (5 + x) * lanes, lanes),
                                gate,
                                load(out, o + (1 + x) * lanes, lanes),
                            )
                            store(out, o + (1 + x) * lanes, fma(along, unit, moved))
                # results of the molecule's atoms
                for atom in range(end - begin):
                    o = atom * quad
                    copy(out, o, out_scalars, (begin + atom) * channels + column)
                    for x in range(3):
                        to = (3 * (begin + atom) + x) * channels + column
                        copy(out, o + (1 + x) * lanes, out_vectors, to)

    @jit
    def backward(
        first_task: int, last_task: int, parts: int, channels: int, n_rows: int, pairs: int, soft: bool,
        largest: int, chunks: Any, molecules: Any, pair_ptr: Any, pair_first: Any, pair_second: Any,
        query: Any, key: Any, value: Any, vectors: Any, rows: Any, bias: Any,
        row: Any, weight: Any, scale: Any, envelope: Any, direction: Any,
        grad_scalars: Any, grad_vectors: Any,
        d_query: Any, d_key: Any, d_value: Any, d_vectors: Any,
        d_rows: Any, d_bias: Any, d_self: Any, d_envelope: Any, d_direction: Any,
    ) -> None:  # fmt: skip
        molecules, pair_ptr, chunks = integers(molecules), integers(pair_ptr), integers(chunks)
        pair_first, pair_second = integers(pair_first), integers(pair_second)
        query, key, value, vectors = reals(query), reals(key), reals(value), reals(vectors)
        rows, bias, row, weight = reals(rows), reals(bias), integers(row), reals(weight)
        scale, envelope, direction = reals(scale), reals(envelope), reals(direction)
        grad_scalars, grad_vectors = reals(grad_scalars), reals(grad_vectors)
        d_query, d_key, d_value, d_vectors = reals(d_query), reals(d_key), reals(d_value), reals(d_vectors)
        d_rows, d_bias, d_self = reals(d_rows), reals(d_bias), reals(d_self)
        d_envelope, d_direction = reals(d_envelope), reals(d_direction)
        one, heads = envelope[0], channels // lanes
        zero = splat(one - one, lanes)
        packed, grads = np.empty(largest * 12 * lanes, real), np.empty(largest * 8 * lanes, real)
        for task in range(first_task, last_task):
            head, part = task // parts, task % parts
            column, b = head * lanes, head * quad
            base, step = (b, channels * 4) if points == 1 else (b * n_rows, quad)
            own = part * heads * n_rows * quad if points > 1 else 0  # pairs share rows: a copy per chunk
            b0, b1 = load(bias, b, lanes), load(bias, b + lanes, lanes)
            b2, b3 = load(bias, b + 2 * lanes, lanes), load(bias, b + 3 * lanes, lanes)
            # filters of the self-pair
            start = base + row[0] * step
            s0 = part_of(rows, start, b0, weight, 0, scale[0])
            s1 = part_of(rows, start + lanes, b1, weight, 0, scale[0])
            s2 = part_of(rows, start + 2 * lanes, b2, weight, 0, scale[0])
            t0, t1, t2 = slope(s0), slope(s1), slope(s2)
            s0, s1, s2 = silu(s0), silu(s1), silu(s2)
            ds0, ds1, ds2 = zero, zero, zero
            e0, e1, e2, e3 = zero, zero, zero, zero
            for molecule in range(chunks[part], chunks[part + 1]):
                begin, end = molecules[molecule], molecules[molecule + 1]
                # pack the atoms; messages of every atom to itself
                for atom in range(end - begin):
                    a, g = atom * 12 * lanes, atom * 8 * lanes
                    pack(query, key, value, vectors, begin + atom, channels, column, packed, a)
                    copy(grad_scalars, (begin + atom) * channels + column, packed, a + 8 * lanes)
                    for x in range(3):
                        copy(
                            grad_vectors,
                            (3 * (begin + atom) + x) * channels + column,
                            packed,
                            a + (9 + x) * lanes,
                        )
                    own_query, own_key = load(packed, a, lanes), load(packed, a + lanes, lanes)
                    own_value, grad = load(packed, a + 2 * lanes, lanes), load(packed, a + 8 * lanes, lanes)
                    score = total(own_query * own_key * s0)
                    pull = splat(total(grad * own_value * s1) * slope_of(score), lanes)
                    store(grads, g, pull * own_key * s0)
                    store(grads, g + lanes, pull * own_query * s0)
                    ds0 = fma(pull * own_query, own_key, ds0)
                    grad = grad * splat(silu_of(score), lanes)
                    store(grads, g + 2 * lanes, grad * s1)
                    ds1 = fma(grad, own_value, ds1)
                    own_value, d_gate = load(packed, a + 3 * lanes, lanes), zero
                    for x in range(3):
                        grad = load(packed, a + (9 + x) * lanes, lanes)
                        d_gate = fma(grad, load(packed, a + (5 + x) * lanes, lanes), d_gate)
                        store(grads, g + (5 + x) * lanes, grad * own_value * s2)
                    store(grads, g + 3 * lanes, d_gate * s2)
                    store(grads, g + 4 * lanes, zero)
                    ds2 = fma(d_gate, own_value, ds2)
                # filters and messages of the pairs
                for q in range(pair_ptr[molecule], pair_ptr[molecule + 1]):
                    phi, factor, at = envelope[q + 1], scale[q + 1], 4 * (q + 1)
                    start = base + row[q + 1] * step
                    r0 = part_of(rows, start, b0, weight, at, factor)
                    r1 = part_of(rows, start + lanes, b1, weight, at, factor)
                    r2 = part_of(rows, start + 2 * lanes, b2, weight, at, factor)
                    r3 = part_of(rows, start + 3 * lanes, b3, weight, at, factor)
                    f0, f1, f2, f3 = silu(r0), silu(r1), silu(r2), silu(r3)
                    df0, df1, df2, df3 = zero, zero, zero, zero
                    strength, d_phi = phi, one - one
                    dx, dy, dz = zero, zero, zero
                    smooth = splat(phi, lanes)
                    if soft:
                        f1, f2, f3 = f1 * smooth, f2 * smooth, f3 * smooth
                        strength = one
                    # both directions of the pair, from source s to target t
                    for way in range(2):
                        i, j, sign = pair_first[q] - begin, pair_second[q] - begin, one
                        if way == 1:
                            i, j, sign = j, i, -one
                        t, s = i * 12 * lanes, j * 12 * lanes
                        dt, ds = i * 8 * lanes, j * 8 * lanes
                        own_query, own_key = load(packed, t, lanes), load(packed, s + lanes, lanes)
                        own_value, grad = (
                            load(packed, s + 2 * lanes, lanes),
                            load(packed, t + 8 * lanes, lanes),
                        )
                        score = total(own_query * own_key * f0)
                        attention = silu_of(score)
                        d_attention = total(grad * own_value * f1)
                        if not soft:
                            d_phi += d_attention * attention
                        pull = splat(d_attention * strength * slope_of(score), lanes)
                        add(grads, dt, pull * own_key * f0)
                        add(grads, ds + lanes, pull * own_query * f0)
                        df0 = fma(pull * own_query, own_key, df0)
                        grad = grad * splat(attention * strength, lanes)
                        add(grads, ds + 2 * lanes, grad * f1)
                        df1 = fma(grad, own_value, df1)
                        own_value, shift = (
                            load(packed, s + 3 * lanes, lanes),
                            load(packed, s + 4 * lanes, lanes),
                        )
                        gate, along = own_value * f2, shift * f3
                        gx, gy = load(packed, t + 9 * lanes, lanes), load(packed, t + 10 * lanes, lanes)
                        gz = load(packed, t + 11 * lanes, lanes)
                        d_gate = gx * load(packed, s + 5 * lanes, lanes)
                        d_gate = fma(gy, load(packed, s + 6 * lanes, lanes), d_gate)
                        d_gate = fma(gz, load(packed, s + 7 * lanes, lanes), d_gate)
                        add(grads, ds + 3 * lanes, d_gate * f2)
                        df2 = fma(d_gate, own_value, df2)
                        d_along = gx * splat(sign * direction[3 * q], lanes)
                        d_along = fma(gy, splat(sign * direction[3 * q + 1], lanes), d_along)
                        d_along = fma(gz, splat(sign * direction[3 * q + 2], lanes), d_along)
                        add(grads, ds + 4 * lanes, d_along * f3)
                        df3 = fma(d_along, shift, df3)
                        add(grads, ds + 5 * lanes, gx * gate)
                        add(grads, ds + 6 * lanes, gy * gate)
                        add(grads, ds + 7 * lanes, gz * gate)
                        if points == 1:
                            along = along * splat(sign, lanes)
                            dx, dy, dz = fma(gx, along, dx), fma(gy, along, dy), fma(gz, along, dz)
                    if soft:
                        if points == 1:
                            d_phi = total(fma(df1, silu(r1), fma(df2, silu(r2), df3 * silu(r3))))
                        df1, df2, df3 = df1 * smooth, df2 * smooth, df3 * smooth
                    df0, df1, df2, df3 = df0 * slope(r0), df1 * slope(r1), df2 * slope(r2), df3 * slope(r3)
                    e0, e1, e2, e3 = e0 + df0, e1 + df1, e2 + df2, e3 + df3
                    # results of the pair
                    if points == 1:
                        store(d_rows, start, df0)
                        store(d_rows, start + lanes, df1)
                        store(d_rows, start + 2 * lanes, df2)
                        store(d_rows, start + 3 * lanes, df3)
                        to = head * pairs + q
                        d_envelope[to] = d_phi
                        d_direction[3 * to], d_direction[3 * to + 1] = total(dx), total(dy)
                        d_direction[3 * to + 2] = total(dz)
                    else:
                        for point in range(points):
                            share = splat(weight[at + point] * factor, lanes)
                            to = own + start + point * quad
                            add(d_rows, to, share * df0)
                            add(d_rows, to + lanes, share * df1)
                            add(d_rows, to + 2 * lanes, share * df2)
                            add(d_rows, to + 3 * lanes, share * df3)
                # results of the molecule's atoms
                for atom in range(end - begin):
                    g, to = atom * 8 * lanes, (begin + atom) * channels + column
                    copy(grads, g, d_query, to)
                    copy(grads, g + lanes, d_key, to)
                    for x in range(3):
                        copy(grads, g + (2 + x) * lanes, d_value, 3 * to + x * lanes)
                        copy(
                            grads,
                            g + (5 + x) * lanes,
                            d_vectors,
                            (3 * (begin + atom) + x) * channels + column,
                        )
            # results of the self-pair, and sums over the chunk
            ds0, ds1, ds2 = ds0 * t0, ds1 * t1, ds2 * t2
            to = (part * heads + head) * quad
            store(d_self, to, ds0)
            store(d_self, to + lanes, ds1)
            store(d_self, to + 2 * lanes, ds2)
            store(d_self, to + 3 * lanes, zero)
            store(d_bias, to, e0 + ds0)
            store(d_bias, to + lanes, e1 + ds1)
            store(d_bias, to + 2 * lanes, e2 + ds2)
            store(d_bias, to + 3 * lanes, e3)

    return forward, backward
