"""The edge part of an attention layer as one differentiable operation (loops in `edge_loops`)."""

from collections.abc import Sequence
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.compiled.threads import run
from molspectra.models.kernels.arrays import differentiable
from molspectra.models.kernels.edge_loops import edge_kernels
from molspectra.models.kernels.edge_second import second_kernel
from molspectra.models.kernels.pairs import Pairs

SMALL = 1 << 16
"""Pairs times channels below which one thread does all the work."""
CHUNK = 1024
"""Approximate atoms per task; chunks do not depend on the number of threads, so sums do not either."""

_kernels = cache(edge_kernels)
_second = cache(second_kernel)


def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    vectors: Tensor,
    rows: Tensor,
    bias: Tensor,
    pairs: Pairs,
    soft: bool,
) -> tuple[Tensor, Tensor]:
    """Sums of the messages to every atom (method, section 4).

    Args:
        query: [N, C] of every atom.
        key: [N, C].
        value: [N, 3C], per head 3 × D.
        vectors: [N, 3, C] vector features.
        rows: [H, R, 4D] filters before activation and without bias, for every row of `pairs.basis`: of the
            key, and of the value's three parts; [R, H, 4D] where every pair has a row of its own.
        bias: [H, 4D] their bias.
        pairs: the pairs of the batch.
        soft: whether φ multiplies the value filters instead of the attention.

    Returns:
        [N, C] sums of scalar messages, [N, 3, C] sums of vector messages.

    Raises:
        ValueError: tensors of different precision.
    """
    if len({tensor.dtype for tensor in (query, key, value, vectors, rows, bias, pairs.weight)}) > 1:
        raise ValueError("the edge kernel takes tensors of one precision")
    result: tuple[Tensor, Tensor] = _EdgeAttention.apply(
        query, key, value, vectors, rows, bias, pairs.envelope, pairs.direction, pairs, soft
    )
    return result


def _common(pairs: Pairs, channels: int, soft: bool) -> tuple[list[Any], int]:
    """The first arguments of all edge kernels, and their number of chunks."""
    molecules = len(pairs.molecules) - 1
    parts = max(1, min(molecules, int(pairs.molecules[-1]) // CHUNK))
    ptr = (_chunks(molecules, parts), pairs.molecules, pairs.ptr, pairs.first, pairs.second)
    return [parts, channels, len(pairs.basis), len(pairs.first), soft, pairs.largest, *ptr], parts


@lru_cache(maxsize=256)
def _chunks(molecules: int, parts: int) -> Tensor:
    """First molecule of every chunk, and the end of the last, [parts + 1] int64."""
    return torch.tensor([molecules * part // parts for part in range(parts + 1)])


def _small(pairs: Pairs, channels: int) -> bool:
    return len(pairs.first) * channels < SMALL


def edge_sums(inputs: Sequence[Tensor], pairs: Pairs, soft: bool) -> tuple[Tensor, Tensor]:
    """`edge_attention` without a graph.

    Args:
        inputs: query, key, value, vectors, rows, bias, envelope [1 + Q] and directions [Q, 3].
        pairs: the pairs of the batch; envelope and directions are taken from `inputs`.
        soft: see `edge_attention`.
    """
    *features, envelope, direction = inputs
    vectors, rows, bias = features[3:]
    channels, heads = vectors.shape[2], bias.shape[0]
    scalars, summed = (vectors.new_empty(shape) for shape in (vectors[:, 0].shape, vectors.shape))
    common, parts = _common(pairs, channels, soft)
    kernel = _kernels(rows.dtype, channels // heads, pairs.points)[0]
    geometry = (pairs.row, pairs.weight, pairs.scale, envelope, direction)
    arguments = (*features, *geometry, scalars, summed)
    run(kernel, heads * parts, *common, *arguments, small=_small(pairs, channels))
    return scalars, summed


class _EdgeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        vectors: Tensor,
        rows: Tensor,
        bias: Tensor,
        envelope: Tensor,
        direction: Tensor,
        pairs: Pairs,
        soft: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.pairs, ctx.soft = pairs, soft
        tensors = (query, key, value, vectors, rows, bias, envelope, direction)
        ctx.save_for_backward(*tensors)
        return edge_sums(tensors, pairs, soft)

    @staticmethod
    def backward(ctx: Any, grad_scalars: Tensor, grad_vectors: Tensor) -> tuple[Tensor | None, ...]:
        inputs, pairs, soft = ctx.saved_tensors, ctx.pairs, ctx.soft
        gradients = (grad_scalars, grad_vectors)
        arguments = (*inputs, *gradients, pairs, soft)
        if not torch.is_grad_enabled():
            return (*_gradients(*arguments), None, None)
        if pairs.points == 1:
            return (*_EdgeGradients.apply(*arguments), None, None)
        function = partial(plain_edge_attention, pairs=pairs, soft=soft)
        return (*differentiable(function, inputs, gradients), None, None)


def edge_gradients(
    inputs: Sequence[Tensor], gradients: Sequence[Tensor], pairs: Pairs, soft: bool
) -> tuple[Tensor, ...]:
    """Gradients as the kernel gives them, see `_results`; those of all inputs are `_reduced` from them.

    Args:
        inputs: as for `edge_sums`.
        gradients: of both sums.
        pairs: as for `edge_sums`.
        soft: see `edge_attention`.
    """
    *features, envelope, direction = inputs
    vectors, rows, bias = features[3:]
    heads, channels = bias.shape[0], vectors.shape[2]
    common, parts = _common(pairs, channels, soft)
    results = _results(vectors, rows, bias, pairs, parts)
    geometry = (pairs.row, pairs.weight, pairs.scale, envelope, direction)
    arguments = (*features, *geometry, *gradients, *results)
    kernel = _kernels(rows.dtype, channels // heads, pairs.points)[1]
    run(kernel, heads * parts, *common, *arguments, small=_small(pairs, channels))
    return results


def _gradients(*arguments: Any) -> tuple[Tensor | None, ...]:
    """Gradients of all inputs; of `envelope` and `direction` only where every pair has its own filters."""
    *tensors, pairs, soft = arguments
    reduced = _reduced(edge_gradients(tensors[:8], tensors[8:], pairs, soft), pairs)
    return (*reduced[:6], None, None) if pairs.points > 1 else reduced


def _results(vectors: Tensor, rows: Tensor, bias: Tensor, pairs: Pairs, parts: int) -> tuple[Tensor, ...]:
    """Empty gradients: query, key, value, vectors, rows, bias, self-pair's rows, envelope, direction."""
    heads, quad = bias.shape
    interpolated = pairs.points > 1
    return (
        *(rows.new_empty(len(vectors), n * vectors.shape[2]) for n in (1, 1, 3)),
        rows.new_empty(vectors.shape),
        rows.new_zeros(parts, *rows.shape) if interpolated else rows.new_empty(rows.shape),
        rows.new_empty(parts, heads, quad),
        rows.new_empty(parts, heads, quad),
        *(rows.new_empty(heads, 0 if interpolated else len(pairs.first), n) for n in (1, 3)),
    )


def _reduced(results: tuple[Tensor, ...], pairs: Pairs) -> tuple[Tensor, ...]:
    """The results of a kernel summed over chunks and heads, in the order of the inputs."""
    *nodes, d_rows, d_bias, d_loop, d_envelope, d_direction = results
    if pairs.points > 1:
        d_rows = d_rows.sum(0)
        d_rows[:, pairs.loop] += d_loop.sum(0)
    else:
        d_rows[pairs.loop] = d_loop.sum(0)
    d_envelope = F.pad(d_envelope.sum(0).squeeze(1), (1, 0))  # constant for the self-pair
    return *nodes, d_rows, d_bias.sum(0), d_envelope, d_direction.sum(0)


class _EdgeGradients(torch.autograd.Function):
    """`_gradients`, differentiable once more; every pair has its own filters."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *tensors, ctx.pairs, ctx.soft = arguments
        ctx.save_for_backward(*tensors)
        return tuple(gradient for gradient in _gradients(*arguments) if gradient is not None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        tensors, pairs = ctx.saved_tensors, ctx.pairs
        _, _, _, vectors, rows, bias, *_, grad_scalars, grad_vectors = tensors
        heads, channels = bias.shape[0], vectors.shape[2]
        common, parts = _common(pairs, channels, ctx.soft)
        results = _results(vectors, rows, bias, pairs, parts)
        dots = rows.new_empty(grad_scalars.shape), rows.new_empty(grad_vectors.shape)
        kernel = _second(rows.dtype, channels // heads)
        arrays = (*tensors, *cotangents, *results, *dots)
        run(kernel, heads * parts, *common, *arrays, small=_small(pairs, channels))
        return (*_reduced(results, pairs), *dots, None, None)


def plain_edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    vectors: Tensor,
    rows: Tensor,
    bias: Tensor,
    envelope: Tensor,
    direction: Tensor,
    pairs: Pairs,
    soft: bool,
) -> tuple[Tensor, Tensor]:
    """`edge_attention` in plain torch, differentiable to any order; φ is [1 + Q], directions are [Q, 3]."""
    atoms, channels, heads = len(vectors), vectors.shape[2], len(bias)
    rows = rows if pairs.points > 1 else rows.transpose(0, 1)
    mixed = rows[:, pairs.row]
    if pairs.points > 1:
        reach = torch.arange(pairs.points)
        mixed = (rows[:, pairs.row.unsqueeze(1) + reach] * pairs.weight.unsqueeze(2)).sum(2)
    filters = F.silu(mixed * pairs.scale.unsqueeze(1) + bias.unsqueeze(1))
    loops = torch.arange(atoms)
    target = torch.cat([loops, pairs.first, pairs.second])
    source = torch.cat([loops, pairs.second, pairs.first])
    count = torch.arange(1, len(envelope))
    pair = torch.cat([torch.zeros_like(loops), count, count])
    unit = torch.cat([direction.new_zeros(atoms, 3), direction, -direction])
    key_filter, *value_filters = filters[:, pair].view(heads, len(pair), 4, -1).unbind(2)
    phi = envelope[pair].unsqueeze(1)
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
