"""Sums over the neighbours of every atom, Σ_{j≠i} B_j ⊙ F_ij φ_ij, for the neighbour embedding."""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.compiled.simd import array_of, fma, inline, integers, jit, load, real_of, splat, store
from molspectra.compiled.threads import run
from molspectra.models.kernels.arrays import lanes_of
from molspectra.models.kernels.pairs import Pairs


@cache
def _kernels(dtype: torch.dtype, lanes: int, points: int) -> tuple[Any, Any]:
    reals = array_of(real_of(dtype))

    @inline
    def filter_of(rows: Any, start: Any, bias: Any, weight: Any, at: Any, scale: Any, phi: Any) -> Any:
        if points == 1:
            bias = bias + load(rows, start, lanes)
        else:
            for point in range(points):
                share = splat(weight[at + point] * scale, lanes)
                bias = fma(load(rows, start + point * lanes, lanes), share, bias)
        return bias * splat(phi, lanes)

    @jit
    def forward(
        first_task: int, last_task: int, channels: int, n_rows: int, pairs: int,
        first: Any, second: Any, row: Any, weight: Any, scale: Any, envelope: Any,
        values: Any, rows: Any, bias: Any, out: Any,
    ) -> None:  # fmt: skip
        first, second, row = integers(first), integers(second), integers(row)
        weight, scale, envelope = reals(weight), reals(scale), reals(envelope)
        values, rows, bias = reals(values), reals(rows), reals(bias)
        out = reals(out)
        for block in range(first_task, last_task):
            column, base = block * lanes, block * n_rows * lanes
            own = load(bias, column, lanes)
            for q in range(pairs):
                start = base + row[q + 1] * lanes
                f = filter_of(rows, start, own, weight, 4 * (q + 1), scale[q + 1], envelope[q + 1])
                i, j = first[q] * channels + column, second[q] * channels + column
                store(out, i, fma(load(values, j, lanes), f, load(out, i, lanes)))
                store(out, j, fma(load(values, i, lanes), f, load(out, j, lanes)))

    @jit
    def backward(
        first_task: int, last_task: int, channels: int, n_rows: int, pairs: int,
        first: Any, second: Any, row: Any, weight: Any, scale: Any, envelope: Any,
        values: Any, rows: Any, bias: Any, grad: Any, d_values: Any, d_rows: Any, d_bias: Any,
    ) -> None:  # fmt: skip
        first, second, row = integers(first), integers(second), integers(row)
        weight, scale, envelope = reals(weight), reals(scale), reals(envelope)
        values, rows, bias = reals(values), reals(rows), reals(bias)
        grad, d_values, d_rows, d_bias = reals(grad), reals(d_values), reals(d_rows), reals(d_bias)
        for block in range(first_task, last_task):
            column, base = block * lanes, block * n_rows * lanes
            own = load(bias, column, lanes)
            d_own = own - own
            for q in range(pairs):
                start, at, phi = base + row[q + 1] * lanes, 4 * (q + 1), envelope[q + 1]
                f = filter_of(rows, start, own, weight, at, scale[q + 1], phi)
                i, j = first[q] * channels + column, second[q] * channels + column
                gi, gj = load(grad, i, lanes), load(grad, j, lanes)
                pull = fma(gi, load(values, j, lanes), gj * load(values, i, lanes)) * splat(phi, lanes)
                store(d_values, j, fma(gi, f, load(d_values, j, lanes)))
                store(d_values, i, fma(gj, f, load(d_values, i, lanes)))
                d_own = d_own + pull
                if points == 1:
                    store(d_rows, start, pull)
                else:
                    for point in range(points):
                        share = splat(weight[at + point] * scale[q + 1], lanes)
                        to = start + point * lanes
                        store(d_rows, to, fma(share, pull, load(d_rows, to, lanes)))
            store(d_bias, column, d_own)

    return forward, backward


def neighbour_sum(values: Tensor, weight: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
    """Σ_{j≠i} B_j ⊙ (W e(d_ij) + b)·φ(d_ij), [N, C].

    Args:
        values: [N, C] B of every atom.
        weight: [C, K] W.
        bias: [C] b.
        pairs: the pairs of the batch.
    """
    channels = values.shape[1]
    if pairs.direction.requires_grad:
        filters = F.linear(pairs.basis[1:], weight, bias) * pairs.envelope[1:].unsqueeze(1)
        first = torch.zeros_like(values).index_add(0, pairs.first, values[pairs.second] * filters)
        return first.index_add(0, pairs.second, values[pairs.first] * filters)
    lanes = lanes_of(channels)
    with torch.autocast("cpu", enabled=False):
        rows = F.linear(pairs.basis, weight).unflatten(1, (-1, lanes)).transpose(0, 1).contiguous()
    result: Tensor = _NeighbourSum.apply(values, rows, bias, pairs)
    return result


class _NeighbourSum(torch.autograd.Function):
    """[N, C] sums of values [N, C] times filters, given as rows [C/D, R, D] and bias [C]; see `Pairs`.

    Once differentiable: where positions need gradients, plain torch is used.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, bias: Tensor, pairs: Pairs) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(values, rows, bias)
        out = torch.zeros(values.shape, dtype=values.dtype)
        blocks, n_rows, lanes = rows.shape
        arrays = (pairs.first, pairs.second, pairs.row, pairs.weight, pairs.scale, pairs.envelope)
        kernel = _kernels(values.dtype, lanes, pairs.points)[0]
        run(kernel, blocks, values.shape[1], n_rows, len(pairs.first), *arrays, values, rows, bias, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        values, rows, bias = ctx.saved_tensors
        pairs, (blocks, n_rows, lanes) = ctx.pairs, rows.shape
        d_values, d_rows, d_bias = (
            torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in (values, rows, bias)
        )
        arrays = (pairs.first, pairs.second, pairs.row, pairs.weight, pairs.scale, pairs.envelope)
        outputs = (grad, d_values, d_rows, d_bias)
        kernel = _kernels(values.dtype, lanes, pairs.points)[1]
        run(kernel, blocks, values.shape[1], n_rows, len(pairs.first), *arrays, values, rows, bias, *outputs)
        return d_values, d_rows, d_bias, None
