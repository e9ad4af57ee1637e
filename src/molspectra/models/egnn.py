"""E(n)-equivariant graph network (EGNN; Satorras, Hoogeboom, Welling, ICML 2021), the paper's pilot encoder.

As in the authors' QM9 experiments, coordinates are not updated; the updates are returned as vectors instead,
so that noise and dipoles can be predicted from them. Departures from the publication, each for a property
that every encoder here has:

- Edges end at a cutoff, with a switch that is 1 up to `cutoff - switch` and falls to 0 with two continuous
  derivatives; the publication connects all atoms. With the defaults nearly all pairs of a QM9 molecule count
  in full.
- The coordinate update has one weight per channel instead of one: v_i = Σ_layers Σ_j φ_x(m_ij) ⊗
  (r_j - r_i)/(d_ij + 1 Å), whose directions are bounded.
- The vectors of an atom fade where all of them are short, v ← v·n²/(n² + 1e-4) with n² the mean of their
  squares: the heads take lengths, which have a cusp at 0, and atoms on a centre of symmetry sit there.
- Elements are embedded by their number; the publication gives powers of the nuclear charge besides.

Shapes: N atoms, E directed edges, Q unordered pairs, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.data.batch import Batch
from molspectra.data.neighbours import Edges
from molspectra.models.config import EGNNConfig
from molspectra.models.formulas import ExponentialNormal
from molspectra.models.segments import gather_pair, gather_source, gather_target, sum_by_target
from molspectra.models.shared import Encoded, Encoder

FADE = 1e-4
"""Mean square of an atom's vectors at which they are halved."""


class PairGeometry(NamedTuple):
    """Geometry of a batch, as the layers take it."""

    features: Tensor
    """[1 + Q, 1 + K] squared distance of every pair in Å² and its radial basis; row 0 is the self-pair."""
    weight: Tensor
    """[1 + Q, 1] switch of every pair; 0 in row 0, no atom is its own neighbour."""
    direction: Tensor
    """[E, 3] (r_source - r_target)/(d + 1 Å); 0 for self-edges."""


def switched(distance: Tensor, cutoff: float, width: float) -> Tensor:
    """Return 1 - 6t⁵ + 15t⁴ - 10t³ with t from 0 at cutoff - width to 1 at the cutoff; any shape, Å."""
    t = ((distance - (cutoff - width)) / width).clamp(0.0, 1.0)
    return 1.0 - t * t * t * (10.0 + t * (6.0 * t - 15.0))


def pair_geometry(
    positions: Tensor, edges: Edges, config: EGNNConfig, expansion: ExponentialNormal | None
) -> PairGeometry:
    """Distances, switches and directions, differentiable in `positions` [N, 3] (Å)."""
    difference = gather_source(positions, edges) - gather_target(positions, edges)
    squared = difference.index_select(0, edges.pair_edge).square().sum(1)
    distance = squared.sqrt()
    self_pair = squared.new_zeros(1)
    shrink = torch.cat([self_pair, 1.0 / (distance + 1.0)])
    weight = torch.cat([self_pair, switched(distance, config.cutoff, config.switch)])
    features = torch.cat([self_pair, squared]).unsqueeze(1)
    if expansion is not None:
        features = torch.cat([features, expansion(torch.cat([self_pair, distance]))], dim=1)
    return PairGeometry(
        features=features,
        weight=weight.unsqueeze(1),
        direction=difference * gather_pair(shrink, edges).unsqueeze(1),
    )


class MessageLayer(nn.Module):
    """One message-passing layer; returns the updates (Δx [N, C], Δv [N, 3, C])."""

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        channels = config.channels
        self.first = nn.Linear(2 * channels + 1 + config.radial, channels)
        self.second = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, 1) if config.gate else None
        self.update = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.SiLU(), nn.Linear(channels, channels)
        )
        self.along = nn.Sequential(
            nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, channels, bias=False)
        )

    def forward(self, scalars: Tensor, edges: Edges, geometry: PairGeometry) -> tuple[Tensor, Tensor]:
        """Pass messages along the edges; scalars [N, C] to updates [N, C] and [N, 3, C]."""
        message = F.silu(self.second(F.silu(self._first(scalars, edges, geometry))))
        if self.gate is not None:
            message = message * torch.sigmoid(self.gate(message))
        weight = gather_pair(geometry.weight, edges)
        along = self.along(message) * weight
        received = sum_by_target(message * weight, edges)
        delta: Tensor = self.update(torch.cat([scalars, received], dim=1))
        return delta, sum_by_target(along.unsqueeze(1) * geometry.direction.unsqueeze(2), edges)

    def _first(self, scalars: Tensor, edges: Edges, geometry: PairGeometry) -> Tensor:
        """Map (x_target, x_source, d², e(d)) [E, C], applied to atoms and pairs before gathering."""
        width = scalars.shape[1]
        of_target, of_source, of_pair = self.first.weight.tensor_split([width, 2 * width], dim=1)
        pairs = gather_pair(F.linear(geometry.features, of_pair, self.first.bias), edges)
        return (
            gather_target(F.linear(scalars, of_target), edges)
            + gather_source(F.linear(scalars, of_source), edges)
            + pairs
        )


class EGNN(Encoder):
    """E(n)-equivariant graph network: embedding and message-passing layers."""

    fades = True

    def __init__(self, config: EGNNConfig) -> None:
        super().__init__()
        self.config = config
        self.channels, self.cutoff = config.channels, config.cutoff
        self.embedding = nn.Embedding(config.max_number + 1, config.channels)
        self.expansion = ExponentialNormal(config.radial, config.cutoff) if config.radial else None
        self.layers = nn.ModuleList(MessageLayer(config) for _ in range(config.layers))

    def forward(self, batch: Batch) -> Encoded:
        """Encode a batch; see `Encoder.forward`.

        Raises:
            ValueError: the batch has no edges.
        """
        if batch.edges is None:
            raise ValueError("the batch has no edges: call batch.with_edges(encoder.cutoff) first")
        geometry = pair_geometry(batch.positions, batch.edges, self.config, self.expansion)
        scalars = self.embedding(batch.numbers).to(batch.positions.dtype)
        vectors = scalars.new_zeros(scalars.shape[0], 3, self.channels)
        for layer in self.layers:
            delta_scalars, delta_vectors = layer(scalars, batch.edges, geometry)
            scalars, vectors = scalars + delta_scalars, vectors + delta_vectors
        square = vectors.square().sum(1, keepdim=True).mean(2, keepdim=True)
        return Encoded(scalars, vectors * (square / (square + FADE)))
