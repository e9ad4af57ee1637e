"""The pairs of a batch as the edge kernels take them, with the rows that make up their distance filters.

A filter is a smooth function of the distance, φ(d)·Σ_k W_k exp(-β(u - μ_k)²) + b with u = exp(-αd). With many
pairs it is cheaper to evaluate Σ_k W_k exp(…) on a grid in u, once per layer, and to interpolate: by cubics
over 4 knots, `KNOTS` knots per radial function. One basis function is then off by less than 2e-8, below the
rounding of float32, for any weights. Float64, few pairs, and positions that need gradients take the
filters of the pairs themselves.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.neighbours import Edges
from molspectra.models.formulas import ExponentialNormal, cosine_cutoff

KNOTS = 32
"""Number of grid points per radial function."""


class Pairs(NamedTuple):
    """The pairs of a batch, Q of them, sorted by molecule; entry 0 of the first group is the self-pair."""

    basis: Tensor
    """[R, K] radial functions of every row of filters: at grid points (without φ) or at pairs (with φ)."""
    row: Tensor
    """[1 + Q] int64, first of the rows that make up a pair's filters."""
    weight: Tensor
    """[1 + Q, 4] weight of this row and the next three; [1 + Q, 0] where every pair has its own row."""
    scale: Tensor
    """[1 + Q] factor on the sum of the rows: φ(d), or 1 where the rows contain it."""
    envelope: Tensor
    """[1 + Q] φ(d)."""
    direction: Tensor
    """[Q, 3] unit vectors from a pair's first atom to its second."""
    first: Tensor
    """[Q] int64, the smaller atom."""
    second: Tensor
    """[Q] int64, the larger atom."""
    ptr: Tensor
    """[B + 1] int64, the pairs of molecule b are ptr[b]:ptr[b + 1]."""
    molecules: Tensor
    """[B + 1] int64, its atoms are molecules[b]:molecules[b + 1]."""
    largest: int
    """Number of atoms of the largest molecule."""

    @property
    def points(self) -> int:
        """Number of rows per pair, 4 or 1."""
        return max(1, self.weight.shape[1])

    @property
    def loop(self) -> int:
        """The row of the self-pair."""
        return len(self.basis) - 1 if self.points > 1 else 0


def pairs_of(batch: Batch, edges: Edges, expansion: ExponentialNormal) -> Pairs:
    """The pairs of a batch with edges; differentiable in its positions where they require a gradient.

    Raises:
        ValueError: as in `checked`.
    """
    positions, (first, second) = batch.positions, checked(batch, edges)
    wide = positions if positions.requires_grad else positions.double()
    difference = wide.index_select(0, second) - wide.index_select(0, first)
    separation = torch.linalg.vector_norm(difference, dim=1)
    distance = torch.cat([separation.new_zeros(1), separation])
    envelope = cosine_cutoff(distance, expansion.cutoff)
    dtype, per_pair = positions.dtype, positions.requires_grad or positions.dtype == torch.float64
    scale = envelope
    if not per_pair:
        row, weight, basis = _grid(distance, expansion)
        per_pair = len(basis) > len(distance)
    if per_pair:
        row, weight = torch.arange(len(distance)), distance.new_empty(len(distance), 0)
        basis, scale = expansion(distance), torch.ones_like(envelope)
    return Pairs(
        basis=basis.to(dtype),
        row=row,
        weight=weight.to(dtype),
        scale=scale.to(dtype),
        envelope=envelope.to(dtype),
        direction=(difference / separation.unsqueeze(1)).to(dtype),
        **layout(batch, first, second),
    )


def checked(batch: Batch, edges: Edges) -> tuple[Tensor, Tensor]:
    """The two atoms of every pair [Q].

    Raises:
        ValueError: the edges are those of another batch; kernels would write beyond its molecules.
    """
    first, second = edges.pair_first, edges.pair_second
    of_first, of_second = (batch.molecule.index_select(0, atoms) for atoms in (first, second))
    if not torch.equal(of_first, of_second) or bool((first.diff() < 0).any()):
        raise ValueError("the edges do not fit the batch: pairs across molecules, or not sorted by molecule")
    return first, second


def layout(batch: Batch, first: Tensor, second: Tensor) -> dict[str, Any]:
    """Those fields of `Pairs` that do not depend on positions, of the atoms [Q] of all pairs."""
    return {
        "first": first,
        "second": second,
        "ptr": torch.searchsorted(first, batch.ptr),
        "molecules": batch.ptr,
        "largest": int(batch.ptr.diff().max()),
    }


@torch.no_grad()
def _grid(distance: Tensor, expansion: ExponentialNormal) -> tuple[Tensor, Tensor, Tensor]:
    """Row [1 + Q], weight [1 + Q, 4] and basis [R, K] on the part of the grid that distances [1 + Q] need.

    The last row is exactly d = 0, for the self-pair; a distance of NaN has weights of NaN.
    """
    means, betas = expansion.means.double(), expansion.betas.double()
    step = float(1.0 - means[0]) / (KNOTS * len(means))
    position = torch.exp(-expansion.alpha * distance.double()) / step
    knot = position.nan_to_num().floor()
    t = position - knot
    low, high = torch.aminmax(knot[1:] if len(knot) > 1 else knot)
    row = (knot - low).long()  # row 0 is the knot before the lowest
    weight = torch.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        dim=1,
    )
    knots = torch.arange(float(low) - 1, float(high) + 3, dtype=torch.float64) * step
    knots = torch.cat([knots, knots.new_ones(1)])  # rows before the last only need to be finite
    row[0], weight[0] = len(knots) - 4, weight.new_tensor([0.0, 0.0, 0.0, 1.0])
    return row, weight, torch.exp(-betas * (knots.unsqueeze(1) - means) ** 2)
