"""Energy and forces without an automatic graph: both passes written down.

One call for a small molecule is some hundred small operations, and the books of automatic differentiation
take a good part of its time. Only the gradient of the positions is made, and the distance filters of all
layers are one product. The formulas are those of `equivariant_transformer` and `heads`.

Shapes: N atoms, Q pairs, K radial functions, L layers, C channels, H heads, D = C/H.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.data.batch import Batch
from molspectra.data.neighbours import close_pairs
from molspectra.models.kernels.edges import edge_gradients, edge_sums
from molspectra.models.kernels.geometry import Geometry
from molspectra.models.kernels.pairs import Pairs, checked, layout
from molspectra.models.kernels.update import no_product, update_gradients, updated
from molspectra.models.kernels.whitening import whiten_with_pullback
from molspectra.models.shared import Encoded

if TYPE_CHECKING:
    from molspectra.models.equivariant_transformer import (
        AttentionLayer,
        EquivariantTransformer,
        NeighbourEmbedding,
        VectorWhitening,
    )
    from molspectra.models.heads import AtomHead, GatedEquivariantBlock

Pullback = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From the gradients of scalars and vectors after a step to those before it."""


class _OfPairs:
    """Gradients that add up over embedding and layers; those of the self-pair, which has no distance, are 0.

    Attributes:
        basis: [1 + Q, K] of the radial functions.
        envelope: [1 + Q] of φ.
        direction: [Q, 3] of the directions.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.basis, self.envelope = torch.zeros_like(pairs.basis), torch.zeros_like(pairs.envelope)
        self.direction = torch.zeros_like(pairs.direction)


class Scalars(NamedTuple):
    """Result of `atom_scalars`."""

    scalars: Tensor
    """[N] of every atom, the head's."""
    gradient: Tensor
    """[N, 3] of their sum by the positions, 1/Å."""
    encoded: Encoded
    """Atom features of the same pass."""


@torch.no_grad()
def atom_scalars(encoder: "EquivariantTransformer", head: "AtomHead", batch: Batch) -> Scalars:
    """Scalars of all atoms and the gradient of their sum.

    Args:
        encoder: of the same precision as the batch, float32 or float64, on the CPU.
        head: whose scalars are meant.
        batch: with or without edges.

    Raises:
        ValueError: the edges are those of another batch.
    """
    if batch.edges is None:
        ends = close_pairs(batch.positions, batch.ptr, encoder.cutoff, batch.pairs)
    else:
        ends = checked(batch, batch.edges)
    geometry = Geometry(batch.positions, *ends, encoder.expansion)
    count = len(geometry.envelope)
    pairs = Pairs(
        basis=geometry.basis,
        row=torch.arange(count),
        weight=geometry.basis.new_empty(count, 0),
        scale=torch.ones_like(geometry.envelope),
        envelope=geometry.envelope,
        direction=geometry.direction,
        **layout(batch, *ends),
    )
    found = _OfPairs(pairs)
    own = F.embedding(batch.numbers, encoder.embedding.weight)
    scalars, embedding_back = _embedding(encoder.neighbours, own, batch.numbers, pairs, found)
    scalars, vectors, layers_back = _layers(encoder, scalars, pairs, found)
    scalars, vectors, last_back = _norms(encoder.scalar_norm, encoder.vector_norm, scalars, vectors)
    encoded = Encoded(scalars, vectors)
    values, head_back = _head(head, encoded)
    embedding_back(layers_back(*last_back(*head_back())))
    return Scalars(values, geometry.pullback(found.basis, found.envelope, found.direction), encoded)


def _embedding(
    module: "NeighbourEmbedding", own: Tensor, numbers: Tensor, pairs: Pairs, found: _OfPairs
) -> tuple[Tensor, Callable[[Tensor], None]]:
    """Scalars [N, C] with their neighbourhood, see `NeighbourEmbedding`; the pullback adds to `found`."""
    values = F.embedding(numbers, module.embedding.weight)
    of_first, of_second = values.index_select(0, pairs.first), values.index_select(0, pairs.second)
    rows = F.linear(pairs.basis[1:], module.filter.weight, module.filter.bias)
    phi = pairs.envelope[1:].unsqueeze(1)
    filters = rows * phi
    sums = torch.zeros_like(values).index_add_(0, pairs.first, of_second * filters)
    sums.index_add_(0, pairs.second, of_first * filters)
    weight = module.combine.weight
    out = F.linear(torch.cat([own, sums], dim=1), weight, module.combine.bias)

    def back(grad: Tensor) -> None:
        d_sums = grad @ weight[:, own.shape[1] :]
        d_filters = d_sums.index_select(0, pairs.first).mul_(of_second)
        d_filters.addcmul_(d_sums.index_select(0, pairs.second), of_first)
        found.envelope[1:] += (d_filters * rows).sum(1)
        found.basis[1:].addmm_(d_filters.mul_(phi), module.filter.weight)

    return out, back


def _layers(
    encoder: "EquivariantTransformer", scalars: Tensor, pairs: Pairs, found: _OfPairs
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """Scalars [N, C] and vectors [N, 3, C] after all layers; the pullback adds to `found`."""
    weight, bias = _filters(list(encoder.layers))  # type: ignore[arg-type]
    rows = torch.matmul(pairs.basis, weight.mT)
    vectors = scalars.new_zeros(len(scalars), 3, scalars.shape[1])
    backs: list[Pullback] = []
    for index, layer in enumerate(encoder.layers):
        filters = (rows[index], bias[index], weight[index])
        scalars, vectors, back = _layer(layer, scalars, vectors, filters, pairs, found)  # type: ignore[arg-type]
        backs.append(back)
        if encoder.config.layer_norms:
            norms = encoder.scalar_norms[index], encoder.vector_norms[index]
            scalars, vectors, back = _norms(*norms, scalars, vectors)  # type: ignore[arg-type]
            backs.append(back)

    def all_back(d_scalars: Tensor, d_vectors: Tensor) -> Tensor:
        for one in reversed(backs):
            d_scalars, d_vectors = one(d_scalars, d_vectors)
        return d_scalars

    return scalars, vectors, all_back


def _filters(layers: "Sequence[AttentionLayer]") -> tuple[Tensor, Tensor]:
    """Weights [L, 4C, K] and biases [L, H, 4D] of all layers' filters, head by head: key, value's parts."""

    def joined(keys: list[Tensor], values: list[Tensor]) -> Tensor:
        by_head = (torch.stack(each).unflatten(1, (layers[0].heads, -1)) for each in (keys, values))
        return torch.cat(list(by_head), dim=2)

    weight = joined([one.key_filter.weight for one in layers], [one.value_filter.weight for one in layers])
    bias = joined([one.key_filter.bias for one in layers], [one.value_filter.bias for one in layers])
    return weight.flatten(1, 2), bias


def _layer(
    layer: "AttentionLayer",
    scalars: Tensor,
    vectors: Tensor,
    filters: tuple[Tensor, Tensor, Tensor],
    pairs: Pairs,
    found: _OfPairs,
) -> tuple[Tensor, Tensor, Pullback]:
    """One attention layer with its filters' rows, bias and weight; its pullback adds to `found`."""
    normed, norm_back = _layer_norm(layer.norm, scalars)
    query, key, value = (
        F.linear(normed, each.weight, each.bias) for each in (layer.query, layer.key, layer.value)
    )
    edge = (query, key, value, vectors, *filters[:2], pairs.envelope, pairs.direction)
    summed, summed_vectors = edge_sums(edge, pairs, layer.vector_cutoff)
    weight = layer.vector.weight
    mixed = no_product(vectors, weight) if layer.is_first else F.linear(vectors, weight)
    output = F.linear(summed, layer.output.weight, layer.output.bias)

    def back(d_scalars: Tensor, d_vectors: Tensor) -> tuple[Tensor, Tensor]:
        d_mixed, d_output = update_gradients(mixed, output, d_scalars, d_vectors)
        gradients = (d_output @ layer.output.weight, d_vectors)
        d_query, d_key, d_value, d_own, d_rows, _, _, d_envelope, d_direction = edge_gradients(
            edge, gradients, pairs, layer.vector_cutoff
        )
        found.basis[1:].addmm_(d_rows.flatten(1)[1:], filters[2])
        found.envelope[1:] += d_envelope.sum((0, 2))
        found.direction += d_direction.sum(0)
        d_normed = d_query @ layer.query.weight
        d_normed.addmm_(d_key, layer.key.weight).addmm_(d_value, layer.value.weight)
        if not layer.is_first:
            d_own.view(-1, d_own.shape[2]).addmm_(d_mixed.flatten(0, 1), weight)
        return norm_back(d_normed).add_(d_scalars), d_own.add_(d_vectors)

    return *updated(scalars, vectors, mixed, output, summed_vectors), back


def _layer_norm(norm: nn.LayerNorm, values: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A layer norm of values [N, C]."""
    shape = list(norm.normalized_shape)
    normed, mean, scale = torch.native_layer_norm(values, shape, norm.weight, norm.bias, norm.eps)

    def back(grad: Tensor) -> Tensor:
        arguments = (grad, values, shape, mean, scale, norm.weight, norm.bias, [True, False, False])
        gradient: Tensor = torch.ops.aten.native_layer_norm_backward(*arguments)[0]
        return gradient

    return normed, back


def _norms(
    norm: nn.LayerNorm, whitening: "VectorWhitening", scalars: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor, Pullback]:
    """Layer norm of scalars and whitening of vectors."""
    scalars, scalars_back = _layer_norm(norm, scalars)
    vectors, vectors_back = whiten_with_pullback(vectors, *whitening.constants(vectors))

    def back(d_scalars: Tensor, d_vectors: Tensor) -> tuple[Tensor, Tensor]:
        return scalars_back(d_scalars), vectors_back(d_vectors)[0]

    return scalars, vectors, back


def _head(head: "AtomHead", encoded: Encoded) -> tuple[Tensor, Callable[[], tuple[Tensor, Tensor]]]:
    """Scalars [N], and the gradients of their sum."""
    first, second = head.blocks
    scalars, vectors, first_back = _block(first, *encoded)  # type: ignore[arg-type]
    values, _, second_back = _block(second, scalars, vectors)  # type: ignore[arg-type]

    def back() -> tuple[Tensor, Tensor]:
        return first_back(*second_back(torch.ones_like(values), None))

    return values.squeeze(1), back


def _block(
    block: "GatedEquivariantBlock", scalars: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]]:
    """A gated block; where no gradient of its vectors comes back, there is none of the gates either."""
    inner, last = cast(nn.Linear, block.update[0]), cast(nn.Linear, block.update[2])
    wide, channels = F.linear(vectors, block.invariant.weight), scalars.shape[1]
    length = wide.square().sum(1).sqrt_()
    hidden = F.linear(torch.cat([scalars, length], dim=1), inner.weight, inner.bias)
    update, gate = F.linear(F.silu(hidden), last.weight, last.bias).chunk(2, dim=1)
    plain = F.linear(vectors, block.equivariant.weight)

    def back(d_scalars: Tensor, d_vectors: Tensor | None) -> tuple[Tensor, Tensor]:
        d_update = torch.ops.aten.silu_backward(d_scalars, update) if block.activate else d_scalars
        d_last = d_update @ last.weight[: update.shape[1]]
        if d_vectors is not None:
            d_last.addmm_((d_vectors * plain).sum(1), last.weight[update.shape[1] :])
        d_both = torch.ops.aten.silu_backward(d_last, hidden) @ inner.weight
        # at the zero vector the gradient of the norm is zero, as in `safe_norm`
        unit = wide / length.clamp(min=torch.finfo(length.dtype).tiny).unsqueeze(1)
        d_in = (unit * d_both[:, None, channels:]) @ block.invariant.weight
        if d_vectors is not None:
            d_in += (gate.unsqueeze(1) * d_vectors) @ block.equivariant.weight
        return d_both[:, :channels], d_in

    result = F.silu(update) if block.activate else update
    return result, gate.unsqueeze(1) * plain, back
