"""The edge part of an attention layer as one differentiable operation (loops in `edge_loops`)."""

from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.compiled.threads import run
from molspectra.models.kernels.arrays import differentiable, flat
from molspectra.models.kernels.edge_loops import edge_kernels
from molspectra.models.kernels.pairs import Pairs

CHUNK = 512
"""Atoms per task, about; the number of chunks does not depend on the threads, so neither does any sum."""

_kernels = cache(edge_kernels)


def edge_attention(
    projected: Tensor, vectors: Tensor, rows: Tensor, bias: Tensor, pairs: Pairs, soft: bool
) -> tuple[Tensor, Tensor]:
    """Sums of the messages to every atom (method, section 4).

    Args:
        projected: [N, 5C] query (C), key (C) and value (per head: 3 × D) of every atom.
        vectors: [N, 3, C] vector features.
        rows: [H, R, 4D] filters before activation and without bias, for every row of `pairs.basis`: of the
            key, and of the value's three parts.
        bias: [H, 4D] their bias.
        pairs: the pairs of the batch.
        soft: whether φ multiplies the value filters instead of the attention.

    Returns:
        [N, C] sums of scalar messages, [N, 3, C] sums of vector messages.
    """
    result: tuple[Tensor, Tensor] = _EdgeAttention.apply(
        projected, vectors, rows, bias, pairs.envelope, pairs.direction, pairs, soft
    )
    return result


def _common(pairs: Pairs, rows: Tensor, channels: int, soft: bool) -> tuple[list[Any], int]:
    """The first arguments of both kernels, and their number of chunks."""
    molecules = len(pairs.molecules) - 1
    parts = max(1, min(molecules, int(pairs.molecules[-1]) // CHUNK))
    chunks = np.linspace(0, molecules, parts + 1).astype(np.int64)
    ptr = (pairs.molecules, pairs.ptr, pairs.first, pairs.second)
    return [chunks, channels, rows.shape[1], soft, pairs.largest, *map(flat, ptr)], parts


class _EdgeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        vectors: Tensor,
        rows: Tensor,
        bias: Tensor,
        envelope: Tensor,
        direction: Tensor,
        pairs: Pairs,
        soft: bool,
    ) -> tuple[Tensor, Tensor]:
        channels, heads = vectors.shape[2], rows.shape[0]
        ctx.pairs, ctx.soft = pairs, soft
        ctx.save_for_backward(projected, vectors, rows, bias, envelope, direction)
        scalars, summed = vectors.new_empty(vectors.shape[0], channels), torch.empty_like(vectors)
        common, parts = _common(pairs, rows, channels, soft)
        kernel = _kernels(channels // heads, pairs.points)[0]
        inputs = (projected, vectors, rows, bias, pairs.place, pairs.weight, pairs.scale, envelope, direction)
        run(kernel, heads * parts, *common, *map(flat, inputs), flat(scalars), flat(summed))
        return scalars, summed

    @staticmethod
    def backward(ctx: Any, grad_scalars: Tensor, grad_vectors: Tensor) -> tuple[Tensor | None, ...]:
        pairs = ctx.pairs
        projected, vectors, rows, bias, envelope, direction = ctx.saved_tensors
        if torch.is_grad_enabled():
            twin = partial(plain, pairs=pairs, soft=ctx.soft)
            return (*differentiable(twin, ctx.saved_tensors, (grad_scalars, grad_vectors)), None, None)
        heads, channels = rows.shape[0], vectors.shape[2]
        common, parts = _common(pairs, rows, channels, ctx.soft)
        many = pairs.points > 1
        d_projected, d_vectors = torch.empty_like(projected), torch.empty_like(vectors)
        d_rows = rows.new_zeros(parts, *rows.shape) if many else torch.empty_like(rows)
        d_bias, d_loop = rows.new_empty(2, parts, heads, 4 * (channels // heads))
        d_envelope, d_direction = (rows.new_empty(heads, 0 if many else len(pairs.first), n) for n in (1, 3))
        results = (d_projected, d_vectors, d_rows, d_bias, d_loop, d_envelope, d_direction)
        arguments = (
            projected,
            vectors,
            rows,
            bias,
            pairs.place,
            pairs.weight,
            pairs.scale,
            envelope,
            direction,
        )
        kernel = _kernels(channels // heads, pairs.points)[1]
        run(kernel, heads * parts, *common, *map(flat, (*arguments, grad_scalars, grad_vectors, *results)))
        if many:
            d_rows = d_rows.sum(0)
            d_rows[:, pairs.loop] += d_loop.sum(0)
        else:
            d_rows[:, pairs.loop] = d_loop.sum(0)
        return (
            d_projected,
            d_vectors,
            d_rows,
            d_bias.sum(0),
            None if many else F.pad(d_envelope.sum(0).squeeze(1), (1, 0)),
            None if many else d_direction.sum(0),
            None,
            None,
        )


def plain(
    projected: Tensor,
    vectors: Tensor,
    rows: Tensor,
    bias: Tensor,
    envelope: Tensor,
    direction: Tensor,
    pairs: Pairs,
    soft: bool,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch, differentiable to any order."""
    atoms, channels, heads = len(vectors), vectors.shape[2], len(rows)
    mixed = rows[:, pairs.place]
    if pairs.points > 1:
        reach = torch.arange(pairs.points)
        mixed = (rows[:, pairs.place.unsqueeze(1) + reach] * pairs.weight.unsqueeze(2)).sum(2)
    filters = F.silu(mixed * pairs.scale.unsqueeze(1) + bias.unsqueeze(1))
    loops = torch.arange(atoms)
    target = torch.cat([loops, pairs.first, pairs.second])
    source = torch.cat([loops, pairs.second, pairs.first])
    count = torch.arange(1, len(envelope))
    pair = torch.cat([torch.zeros_like(loops), count, count])
    unit = torch.cat([direction.new_zeros(atoms, 3), direction, -direction])
    key_filter, *value_filters = filters[:, pair].view(heads, len(pair), 4, -1).unbind(2)
    phi = envelope[pair].unsqueeze(1)
    query, key, value = projected.split([channels, channels, 3 * channels], dim=1)
    query, key = (part.view(atoms, heads, -1).transpose(0, 1) for part in (query, key))
    values = value.view(atoms, heads, 3, -1).permute(2, 1, 0, 3)
    attention = F.silu((query[:, target] * key[:, source] * key_filter).sum(-1, keepdim=True))
    if soft:
        value_filters = [part * phi for part in value_filters]
    else:
        attention = attention * phi
    message, gate, along = (
        part[:, source] * value_filter for part, value_filter in zip(values, value_filters, strict=True)
    )
    spread = vectors[source].view(len(pair), 3, heads, -1).permute(2, 0, 1, 3)
    vector_message = spread * gate.unsqueeze(2) + along.unsqueeze(2) * unit.unsqueeze(2)
    scalars = (message * attention).transpose(0, 1).reshape(len(pair), channels)
    moved = vector_message.permute(1, 2, 0, 3).reshape(len(pair), 3, channels)
    return (
        torch.zeros_like(vectors[:, 0]).index_add(0, target, scalars),
        torch.zeros_like(vectors).index_add(0, target, moved),
    )
