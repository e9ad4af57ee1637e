"""The second derivative of the edge part, for losses on forces.

Let L = ⟨g, f(y)⟩ with f the sums of messages, y all their inputs and g the gradient of a loss; the backward
pass gives ∇L. Its own gradient for a cotangent t is ∇⟨t, ∇L(y)⟩ = d/dε ∇L(y + εt), and d/dε f(y + εt) with
respect to g. So every line of the forward and backward pass of `edge_loops` is repeated here with its
derivative in the direction t (such as dot_q beside q). Arrays are as in `edge_loops`, with a row of filters
for every pair; names that begin with `t_` are the cotangents, in the layouts of their primals.
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
from molspectra.models.kernels.edge_loops import rows_of


def second_kernel(dtype: torch.dtype, lanes: int) -> Any:
    """The kernel for heads of `lanes` channels."""
    real = real_of(dtype)
    reals = array_of(real)
    quad = 4 * lanes
    add, copy, pack = rows_of(lanes)

    @inline
    def slope(s: Any, x: Any) -> Any:
        """First derivative of silu, with s = sigmoid(x)."""
        return fma(x - x * s, s, s)

    @inline
    def curvature(s: Any, x: Any) -> Any:
        """Second derivative of silu, s(1 - s)(2 + x(1 - 2s))."""
        rest = s - s * s
        return fma(x - x * (s + s), rest, rest + rest)

    @inline
    def messages(packed: Any, t: Any, s: Any, out: Any, to: Any, filters: Any, dots: Any, g: Any, dot_g: Any,
                 unit: Any, dot_unit: Any) -> Any:  # fmt: skip
        """One direction of a pair, packed atom s to t: derivatives of messages and of gradients of filters.

        Adds to the target's and the source's rows of `out`; returns, per part of the filters, the gradient
        and its derivative; then the derivatives of the gradients of g (the attention's factor) and of the
        unit vector.
        """
        f0, f1, f2, f3 = filters
        dot_f0, dot_f1, dot_f2, dot_f3 = dots
        target, source = to
        q, k = load(packed, t, lanes), load(packed, s + lanes, lanes)
        dot_q, dot_k = load(packed, t + 8 * lanes, lanes), load(packed, s + 9 * lanes, lanes)
        # attention
        product, dot_product = q * k, fma(dot_q, k, q * dot_k)
        score = splat(total(product * f0), 1)
        dot_score = splat(total(fma(dot_product, f0, product * dot_f0)), 1)
        s_score = sigmoid(score)
        rise, bend, soft_score = slope(s_score, score), curvature(s_score, score), score * s_score
        attention = splat(total(soft_score * g), lanes)
        dot_attention = splat(total(fma(rise * dot_score, g, soft_score * dot_g)), lanes)

        # scalar messages
        value, dot_value = load(packed, s + 2 * lanes, lanes), load(packed, s + 10 * lanes, lanes)
        grad = load(packed, t + 16 * lanes, lanes)
        m, dot_m = value * f1, fma(dot_value, f1, value * dot_f1)
        add(out, target + 8 * lanes, fma(dot_m, attention, m * dot_attention))
        d_a, dot_d_a = splat(total(grad * m), 1), splat(total(grad * dot_m), 1)
        d_m, dot_d_m = grad * attention, grad * dot_attention
        add(out, source + 2 * lanes, fma(dot_d_m, f1, d_m * dot_f1))
        d1, dot_d1 = d_m * value, fma(dot_d_m, value, d_m * dot_value)

        # gradients of the attention
        dot_d_g = total(fma(dot_d_a, soft_score, d_a * rise * dot_score))
        pull = splat(total(d_a * g * rise), lanes)
        dot_pull = fma(dot_d_a, g, d_a * dot_g) * rise
        dot_pull = splat(total(fma(d_a * g, bend * dot_score, dot_pull)), lanes)
        pull_f, dot_pull_f = pull * f0, fma(dot_pull, f0, pull * dot_f0)
        add(out, target, fma(dot_pull_f, k, pull_f * dot_k))
        add(out, source + lanes, fma(dot_pull_f, q, pull_f * dot_q))
        d0, dot_d0 = pull * product, fma(dot_pull, product, pull * dot_product)

        # vector messages
        gate_value, dot_gate_value = load(packed, s + 3 * lanes, lanes), load(packed, s + 11 * lanes, lanes)
        along_value, dot_along_value = load(packed, s + 4 * lanes, lanes), load(packed, s + 12 * lanes, lanes)
        gate, dot_gate = gate_value * f2, fma(dot_gate_value, f2, gate_value * dot_f2)
        along, dot_along = along_value * f3, fma(dot_along_value, f3, along_value * dot_f3)
        d_gate, d_along = gate - gate, gate - gate
        dot_d_gate, dot_d_along = d_gate, d_gate
        dot_x, dot_y, dot_z = d_gate, d_gate, d_gate
        for x in range(3):
            grad = load(packed, t + (17 + x) * lanes, lanes)
            v, dot_v = load(packed, s + (5 + x) * lanes, lanes), load(packed, s + (13 + x) * lanes, lanes)
            u, dot_u = splat(unit[x], lanes), splat(dot_unit[x], lanes)
            moved = fma(dot_v, gate, fma(v, dot_gate, fma(dot_along, u, along * dot_u)))
            add(out, target + (9 + x) * lanes, moved)
            add(out, source + (5 + x) * lanes, grad * dot_gate)
            d_gate, dot_d_gate = fma(grad, v, d_gate), fma(grad, dot_v, dot_d_gate)
            d_along, dot_d_along = fma(grad, u, d_along), fma(grad, dot_u, dot_d_along)
            pulled = grad * dot_along
            if x == 0:
                dot_x = pulled
            elif x == 1:
                dot_y = pulled
            else:
                dot_z = pulled
        add(out, source + 3 * lanes, fma(dot_d_gate, f2, d_gate * dot_f2))
        add(out, source + 4 * lanes, fma(dot_d_along, f3, d_along * dot_f3))
        d2, dot_d2 = d_gate * gate_value, fma(dot_d_gate, gate_value, d_gate * dot_gate_value)
        d3, dot_d3 = d_along * along_value, fma(dot_d_along, along_value, d_along * dot_along_value)
        return (d0, d1, d2, d3), (dot_d0, dot_d1, dot_d2, dot_d3), dot_d_g, (dot_x, dot_y, dot_z)

    @jit
    def second(
        first_task: int, last_task: int, parts: int, channels: int, n_rows: int, pairs: int, soft: bool,
        largest: int, chunks: Any, molecules: Any, pair_ptr: Any, pair_first: Any, pair_second: Any,
        query: Any, key: Any, value: Any, vectors: Any, rows: Any, bias: Any, envelope: Any, direction: Any,
        grad_scalars: Any, grad_vectors: Any,
        t_query: Any, t_key: Any, t_value: Any, t_vectors: Any,
        t_rows: Any, t_bias: Any, t_envelope: Any, t_direction: Any,
        d_query: Any, d_key: Any, d_value: Any, d_vectors: Any,
        d_rows: Any, d_bias: Any, d_loop: Any, d_envelope: Any, d_direction: Any,
        dot_scalars: Any, dot_vectors: Any,
    ) -> None:  # fmt: skip
        molecules, pair_ptr, chunks = integers(molecules), integers(pair_ptr), integers(chunks)
        pair_first, pair_second = integers(pair_first), integers(pair_second)
        query, key, value, vectors = reals(query), reals(key), reals(value), reals(vectors)
        rows, bias, envelope, direction = reals(rows), reals(bias), reals(envelope), reals(direction)
        grad_scalars, grad_vectors = reals(grad_scalars), reals(grad_vectors)
        t_query, t_key, t_value, t_vectors = reals(t_query), reals(t_key), reals(t_value), reals(t_vectors)
        t_rows, t_bias = reals(t_rows), reals(t_bias)
        t_envelope, t_direction = reals(t_envelope), reals(t_direction)
        d_query, d_key, d_value, d_vectors = reals(d_query), reals(d_key), reals(d_value), reals(d_vectors)
        d_rows, d_bias, d_loop = reals(d_rows), reals(d_bias), reals(d_loop)
        d_envelope, d_direction = reals(d_envelope), reals(d_direction)
        dot_scalars, dot_vectors = reals(dot_scalars), reals(dot_vectors)
        one, heads = envelope[0], channels // lanes
        nothing = one - one
        zero, ones, zeros = splat(nothing, lanes), splat(one, 1), splat(nothing, 1)
        packed, out = np.empty(largest * 20 * lanes, real), np.empty(largest * 12 * lanes, real)
        for task in range(first_task, last_task):
            head, part = task // parts, task % parts
            column, b, step = head * lanes, head * quad, channels * 4
            e0, e1, e2, e3 = zero, zero, zero, zero
            l0, l1, l2, l3 = zero, zero, zero, zero
            for molecule in range(chunks[part], chunks[part + 1]):
                begin, end = molecules[molecule], molecules[molecule + 1]
                # pack the atoms, with cotangents and gradients
                for atom in range(end - begin):
                    a = atom * 20 * lanes
                    pack(query, key, value, vectors, begin + atom, channels, column, packed, a)
                    at = a + 8 * lanes
                    pack(t_query, t_key, t_value, t_vectors, begin + atom, channels, column, packed, at)
                    copy(grad_scalars, (begin + atom) * channels + column, packed, a + 16 * lanes)
                    for x in range(3):
                        at = (3 * (begin + atom) + x) * channels + column
                        copy(grad_vectors, at, packed, a + (17 + x) * lanes)
                    for slot in range(12):
                        store(out, (atom * 12 + slot) * lanes, zero)
                # entry -1 stands for the loops of all atoms, the others for the pairs of the molecule
                for entry in range(pair_ptr[molecule] - 1, pair_ptr[molecule + 1]):
                    loops = entry < pair_ptr[molecule]
                    q = 0 if loops else entry + 1
                    phi, dot_phi = envelope[q], nothing if loops else t_envelope[q]
                    start = b + q * step
                    # filters, before and after activation
                    r0, dot_r0 = load(rows, start, lanes) + load(bias, b, lanes), load(t_rows, start, lanes)
                    dot_r0 = dot_r0 + load(t_bias, b, lanes)
                    start, c = start + lanes, b + lanes
                    r1, dot_r1 = load(rows, start, lanes) + load(bias, c, lanes), load(t_rows, start, lanes)
                    dot_r1 = dot_r1 + load(t_bias, c, lanes)
                    start, c = start + lanes, c + lanes
                    r2, dot_r2 = load(rows, start, lanes) + load(bias, c, lanes), load(t_rows, start, lanes)
                    dot_r2 = dot_r2 + load(t_bias, c, lanes)
                    start, c = start + lanes, c + lanes
                    r3, dot_r3 = load(rows, start, lanes) + load(bias, c, lanes), load(t_rows, start, lanes)
                    dot_r3 = dot_r3 + load(t_bias, c, lanes)
                    s0, s1, s2, s3 = sigmoid(r0), sigmoid(r1), sigmoid(r2), sigmoid(r3)
                    f0, f1, f2, f3 = r0 * s0, r1 * s1, r2 * s2, r3 * s3
                    p0, p1, p2, p3 = slope(s0, r0), slope(s1, r1), slope(s2, r2), slope(s3, r3)
                    dot_f0, dot_f1, dot_f2, dot_f3 = p0 * dot_r0, p1 * dot_r1, p2 * dot_r2, p3 * dot_r3
                    smooth, dot_smooth = splat(phi, lanes), splat(dot_phi, lanes)
                    filters, dots = (f0, f1, f2, f3), (dot_f0, dot_f1, dot_f2, dot_f3)
                    g, dot_g = splat(phi, 1), splat(dot_phi, 1)
                    if soft:
                        g, dot_g = ones, zeros
                        filters = (f0, f1 * smooth, f2 * smooth, f3 * smooth)
                        dots = (
                            dot_f0,
                            fma(dot_f1, smooth, f1 * dot_smooth),
                            fma(dot_f2, smooth, f2 * dot_smooth),
                            fma(dot_f3, smooth, f3 * dot_smooth),
                        )
                    # messages, of both directions or of all loops
                    d0, d1, d2, d3 = zero, zero, zero, zero
                    w0, w1, w2, w3 = zero, zero, zero, zero
                    d_phi, dx, dy, dz = nothing, zero, zero, zero
                    for way in range(end - begin if loops else 2):
                        i, j, sign = way, way, nothing
                        if not loops:
                            i, j, sign = pair_first[entry] - begin, pair_second[entry] - begin, one
                            if way == 1:
                                i, j, sign = j, i, -one
                        n = 0 if loops else 3 * entry
                        unit, dot_unit = (nothing, nothing, nothing), (nothing, nothing, nothing)
                        if not loops:
                            unit = (sign * direction[n], sign * direction[n + 1], sign * direction[n + 2])
                            dot_unit = (
                                sign * t_direction[n], sign * t_direction[n + 1], sign * t_direction[n + 2],
                            )  # fmt: skip
                        d, w, change, pulled = messages(
                            packed, i * 20 * lanes, j * 20 * lanes, out, (i * 12 * lanes, j * 12 * lanes),
                            filters, dots, g, dot_g, unit, dot_unit,
                        )  # fmt: skip
                        d0, d1, d2, d3 = d0 + d[0], d1 + d[1], d2 + d[2], d3 + d[3]
                        w0, w1, w2, w3 = w0 + w[0], w1 + w[1], w2 + w[2], w3 + w[3]
                        d_phi += change
                        turn = splat(sign, lanes)
                        dx, dy, dz = (
                            fma(turn, pulled[0], dx),
                            fma(turn, pulled[1], dy),
                            fma(turn, pulled[2], dz),
                        )
                    if soft:
                        d_phi = total(fma(w1, f1, fma(w2, f2, w3 * f3)))
                        d_phi += total(fma(d1, dot_f1, fma(d2, dot_f2, d3 * dot_f3)))
                        w1, w2 = fma(w1, smooth, d1 * dot_smooth), fma(w2, smooth, d2 * dot_smooth)
                        w3 = fma(w3, smooth, d3 * dot_smooth)
                        d1, d2, d3 = d1 * smooth, d2 * smooth, d3 * smooth
                    # through the activation of the filters
                    w0 = fma(w0, p0, d0 * curvature(s0, r0) * dot_r0)
                    w1 = fma(w1, p1, d1 * curvature(s1, r1) * dot_r1)
                    w2 = fma(w2, p2, d2 * curvature(s2, r2) * dot_r2)
                    w3 = fma(w3, p3, d3 * curvature(s3, r3) * dot_r3)
                    e0, e1, e2, e3 = e0 + w0, e1 + w1, e2 + w2, e3 + w3
                    if loops:
                        l0, l1, l2, l3 = l0 + w0, l1 + w1, l2 + w2, l3 + w3
                    else:
                        start = b + q * step
                        store(d_rows, start, w0)
                        store(d_rows, start + lanes, w1)
                        store(d_rows, start + 2 * lanes, w2)
                        store(d_rows, start + 3 * lanes, w3)
                        to = head * pairs + entry
                        d_envelope[to] = d_phi
                        d_direction[3 * to], d_direction[3 * to + 1] = total(dx), total(dy)
                        d_direction[3 * to + 2] = total(dz)
                # results of the molecule's atoms
                for atom in range(end - begin):
                    o, to = atom * 12 * lanes, (begin + atom) * channels + column
                    copy(out, o, d_query, to)
                    copy(out, o + lanes, d_key, to)
                    copy(out, o + 8 * lanes, dot_scalars, to)
                    for x in range(3):
                        copy(out, o + (2 + x) * lanes, d_value, 3 * to + x * lanes)
                        at = (3 * (begin + atom) + x) * channels + column
                        copy(out, o + (5 + x) * lanes, d_vectors, at)
                        copy(out, o + (9 + x) * lanes, dot_vectors, at)
            to = (part * heads + head) * quad
            store(d_bias, to, e0)
            store(d_bias, to + lanes, e1)
            store(d_bias, to + 2 * lanes, e2)
            store(d_bias, to + 3 * lanes, e3)
            store(d_loop, to, l0)
            store(d_loop, to + lanes, l1)
            store(d_loop, to + 2 * lanes, l2)
            store(d_loop, to + 3 * lanes, l3)

    return second
