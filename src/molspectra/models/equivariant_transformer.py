"""The TorchMD-NET equivariant transformer (ET), the paper's 3D encoder (method, section 4).

Shapes: N atoms, E directed edges, Q unordered pairs, K radial functions, C channels, H heads.
Distance filters depend on the distance only, so they are computed once per pair and used in both directions.
`EquivariantTransformer` chooses between plain torch and compiled kernels once per pass, by the geometry that
its layers get: `EdgeGeometry` or `kernels.pairs.Pairs`. Only the whitening, which has no edges, chooses
itself.
"""

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.compiled import fast
from molspectra.data.batch import Batch
from molspectra.data.neighbours import Edges
from molspectra.models.config import EquivariantTransformerConfig
from molspectra.models.formulas import ExponentialNormal, cosine_cutoff, plain_update, plain_whitening
from molspectra.models.segments import gather_pair, gather_source, gather_target, sum_by_target
from molspectra.models.shared import Encoded, Encoder

if TYPE_CHECKING:
    from molspectra.models.kernels.pairs import Pairs


class EdgeGeometry(NamedTuple):
    """Geometry of a batch, as the plain layers take it."""

    radial: Tensor
    """[1 + Q, K] radial basis of every pair; row 0 is the self-pair, d = 0."""
    cutoff: Tensor
    """[1 + Q, 1] φ(d) of every pair; 1 in row 0."""
    direction: Tensor
    """[E, 3] unit vector (r_source - r_target)/d; 0 for self-edges."""


def edge_geometry(positions: Tensor, edges: Edges, expansion: ExponentialNormal) -> EdgeGeometry:
    """Radial functions, cutoffs and directions of all edges, differentiable in `positions` [N, 3] (Å)."""
    difference = gather_source(positions, edges) - gather_target(positions, edges)
    separation = torch.linalg.vector_norm(difference.index_select(0, edges.pair_edge), dim=1)
    distance = torch.cat([separation.new_zeros(1), separation])
    inverse = torch.cat([separation.new_zeros(1), 1.0 / separation])
    return EdgeGeometry(
        radial=expansion(distance),
        cutoff=cosine_cutoff(distance, expansion.cutoff).unsqueeze(1),
        direction=difference * gather_pair(inverse, edges).unsqueeze(1),
    )


class NeighbourEmbedding(nn.Module):
    """x_i = Linear([A_{z_i}, Σ_{j≠i} B_{z_j} ⊙ (W e(d_ij) + b) φ(d_ij)])."""

    def __init__(self, config: EquivariantTransformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.max_number + 1, config.channels)
        self.filter = nn.Linear(config.radial, config.channels)
        self.combine = nn.Linear(2 * config.channels, config.channels)

    def forward(self, own: Tensor, numbers: Tensor, edges: Edges, geometry: "EdgeGeometry | Pairs") -> Tensor:
        """Add the neighbourhood to the atoms' own embedding; [N, C] to [N, C]."""
        if isinstance(geometry, EdgeGeometry):
            neighbours = self.plain_sums(numbers, edges, geometry)
        else:
            neighbours = self.fused_sums(numbers, geometry)
        combined: Tensor = self.combine(torch.cat([own, neighbours], dim=1))
        return combined

    def plain_sums(self, numbers: Tensor, edges: Edges, geometry: EdgeGeometry) -> Tensor:
        """Sums [N, C] over the neighbours of atoms of `numbers` [N]."""
        filters = self.filter(geometry.radial[1:]) * geometry.cutoff[1:]
        filters = torch.cat([filters.new_zeros(1, filters.shape[1]), filters])  # no atom is its own neighbour
        messages = gather_source(self.embedding(numbers), edges) * gather_pair(filters, edges)
        return sum_by_target(messages, edges)

    def fused_sums(self, numbers: Tensor, pairs: "Pairs") -> Tensor:
        """`plain_sums` by a compiled kernel."""
        from molspectra.models.kernels.embedding import neighbour_sum

        return neighbour_sum(self.embedding(numbers), self.filter.weight, self.filter.bias, pairs)


class AttentionLayer(nn.Module):
    """One equivariant attention layer: (x [N, C], v [N, 3, C]) to (x + Δx, v + Δv).

    Args:
        config: of the encoder.
        is_first: the vectors are zero.
    """

    def __init__(self, config: EquivariantTransformerConfig, is_first: bool = False) -> None:
        super().__init__()
        self.is_first = is_first
        channels, radial = config.channels, config.radial
        self.heads = config.heads
        self.vector_cutoff = config.vector_cutoff
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, 3 * channels)
        self.vector = nn.Linear(channels, 3 * channels, bias=False)
        self.key_filter = nn.Linear(radial, channels)
        self.value_filter = nn.Linear(radial, 3 * channels)

    def forward(
        self, scalars: Tensor, vectors: Tensor, edges: Edges, geometry: "EdgeGeometry | Pairs"
    ) -> tuple[Tensor, Tensor]:
        """Attend over the neighbours (the atom itself included) of every atom."""
        normed = self.norm(scalars)
        if isinstance(geometry, EdgeGeometry):
            summed, summed_vectors = self.plain_messages(normed, vectors, edges, geometry)
            mixed, output = self.vector(vectors), self.output(summed)
            return plain_update(scalars, vectors, mixed, output, summed_vectors)
        from molspectra.models.kernels.update import no_product, update

        summed, summed_vectors = self.fused_messages(normed, vectors, geometry)
        mixed = no_product(vectors, self.vector.weight) if self.is_first else self.vector(vectors)
        mixed, output = mixed.to(scalars), self.output(summed).to(scalars)
        return update(scalars, vectors, mixed, output, summed_vectors)

    def plain_messages(
        self, normed: Tensor, vectors: Tensor, edges: Edges, geometry: EdgeGeometry
    ) -> tuple[Tensor, Tensor]:
        """Sums [N, C] and [N, 3, C] of the messages to every atom.

        Args:
            normed: [N, C] normalised scalars.
            vectors: [N, 3, C].
            edges: the batch's edges.
            geometry: their geometry.
        """
        channels = normed.shape[1]
        per_head = (-1, self.heads, channels // self.heads)
        query = gather_target(self.query(normed), edges)
        key = gather_source(self.key(normed), edges)
        key_filter = gather_pair(F.silu(self.key_filter(geometry.radial)), edges)
        attention = F.silu((query * key * key_filter).view(per_head).sum(-1))

        value_filter = F.silu(self.value_filter(geometry.radial))
        if self.vector_cutoff:  # the basis vanishes at the cutoff, the filter would stay at silu(bias)
            value_filter = value_filter * geometry.cutoff
        else:
            attention = attention * gather_pair(geometry.cutoff, edges)
        value = gather_source(self.value(normed), edges) * gather_pair(value_filter, edges)
        message, gate, along = value.view(-1, self.heads, 3 * per_head[2]).chunk(3, dim=-1)
        message = (message * attention.unsqueeze(-1)).reshape(-1, channels)
        gate, along = gate.reshape(-1, 1, channels), along.reshape(-1, 1, channels)
        vector_message = gather_source(vectors, edges) * gate + along * geometry.direction.unsqueeze(-1)
        return sum_by_target(message, edges), sum_by_target(vector_message, edges)

    def fused_messages(self, normed: Tensor, vectors: Tensor, pairs: "Pairs") -> tuple[Tensor, Tensor]:
        """`plain_messages` by a compiled kernel, which evaluates the filters pair by pair."""
        from molspectra.models.kernels.edges import edge_attention

        projections = (self.query, self.key, self.value)
        query, key, value = (linear(normed).to(vectors.dtype) for linear in projections)
        filters, per_head = (self.key_filter, self.value_filter), (self.heads, -1)
        weight = torch.cat([linear.weight.unflatten(0, per_head) for linear in filters], dim=1)
        bias = torch.cat([linear.bias.unflatten(0, per_head) for linear in filters], dim=1)
        with torch.autocast(vectors.device.type, enabled=False):
            if pairs.points == 1:
                rows = F.linear(pairs.basis, weight.flatten(0, 1)).unflatten(1, (self.heads, -1))
            else:
                rows = torch.bmm(pairs.basis.expand(self.heads, -1, -1), weight.mT)
        return edge_attention(query, key, value, vectors, rows, bias, pairs, self.vector_cutoff)


class VectorWhitening(nn.Module):
    """Equivariant layer normalisation: centre vectors over channels, whiten them per atom, scale by a weight.

    M = v vᵀ/C + regulariser; v ← M^(-1/2) v, in float64. M^(-1/2) alone enlarges directions in which there is
    next to nothing by 1/√ε = 316, layer after layer: out of the plane of a planar molecule, rounding grows to
    vectors of full size that differ between orientations. The default therefore multiplies by 1 - ε·M⁻¹ as
    well, which is about 1 - ε/λ where v vᵀ/C has an eigenvalue λ well above ε, and 0 where λ = 0; vectors
    that pass through zero do so smoothly.

    Args:
        channels: number of channels C.
        regulariser: "isotropic" is v ← (1 - ε·M⁻¹) M^(-1/2) v with M = v vᵀ/C + ε·1, equivariant to rounding;
            "reference" is v ← M^(-1/2) v with M = v vᵀ/C + ε·diag(1, 2, 3) + ε·1, the reference
            implementation's form, which breaks rotation equivariance slightly.
        eps: ε.
    """

    def __init__(
        self, channels: int, regulariser: Literal["isotropic", "reference"] = "isotropic", eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.regulariser = regulariser
        self.eps = eps

    def constants(self, vectors: Tensor) -> tuple[Tensor, Tensor, float, bool]:
        """What whitening takes beside the vectors: weight, ridge [3, 3] float64, ε, whether as published."""
        reference = self.regulariser == "reference"
        first, step = (2.0, 1.0) if reference else (1.0, 0.0)
        diagonal = first + step * torch.arange(3, dtype=torch.float64, device=vectors.device)
        return self.weight, torch.diag(diagonal) * self.eps, self.eps, reference

    def forward(self, vectors: Tensor) -> Tensor:
        """Whiten [N, 3, C] vectors; returns the same shape and dtype."""
        if fast(vectors, self.weight):
            from molspectra.models.kernels.whitening import whiten

            return whiten(vectors, *self.constants(vectors))
        return plain_whitening(vectors, *self.constants(vectors))


class EquivariantTransformer(Encoder):
    """TorchMD-NET ET: embedding, attention layers, final norms."""

    def __init__(self, config: EquivariantTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.channels, self.cutoff, self.fades = config.channels, config.cutoff, config.vector_cutoff
        self.embedding = nn.Embedding(config.max_number + 1, config.channels)
        self.expansion = ExponentialNormal(config.radial, config.cutoff)
        self.neighbours = NeighbourEmbedding(config)
        self.layers = nn.ModuleList(AttentionLayer(config, index == 0) for index in range(config.layers))
        norms = config.layers if config.layer_norms else 0
        self.scalar_norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in range(norms))
        self.vector_norms = nn.ModuleList(self._whitening() for _ in range(norms))
        self.scalar_norm = nn.LayerNorm(config.channels)
        self.vector_norm = self._whitening()
        self.reset_parameters()

    def _whitening(self) -> VectorWhitening:
        return VectorWhitening(self.config.channels, self.config.whitening)

    def reset_parameters(self) -> None:
        """Xavier-uniform weights and zero biases in every linear map of the layers, as published for ET."""
        for module in [*self.layers.modules(), self.neighbours.filter, self.neighbours.combine]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Encoded:
        """Encode a batch; see `Encoder.forward`.

        Raises:
            ValueError: the batch has no edges.
        """
        if batch.edges is None:
            raise ValueError("the batch has no edges: call batch.with_edges(encoder.cutoff) first")
        edges = batch.edges
        geometry = self._geometry(batch, edges)
        scalars = self.neighbours(self.embedding(batch.numbers), batch.numbers, edges, geometry)
        scalars = scalars.to(batch.positions.dtype)  # sums over layers keep their precision under autocast
        vectors = scalars.new_zeros(scalars.shape[0], 3, self.channels)
        for index, layer in enumerate(self.layers):
            scalars, vectors = layer(scalars, vectors, edges, geometry)
            if self.config.layer_norms:
                scalars = self.scalar_norms[index](scalars)
                vectors = self.vector_norms[index](vectors)
        return Encoded(self.scalar_norm(scalars), self.vector_norm(vectors))

    def _geometry(self, batch: Batch, edges: Edges) -> "EdgeGeometry | Pairs":
        """Geometry for compiled kernels or for plain torch, which decides what the layers run."""
        if fast(batch.positions, self.embedding.weight):
            from molspectra.models.kernels.pairs import pairs_of

            return pairs_of(batch, edges, self.expansion)
        return edge_geometry(batch.positions, edges, self.expansion)
