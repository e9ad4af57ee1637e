"""Sliced denoising (SliDe; Ni et al., ICLR 2024): noise on bonds, angles and torsions, and its force.

The structure is moved along its internal coordinates by N(0, σ²), σ from a force field: all bonds, then the
angles, then the torsions, each set exactly at its turn. Then Gaussian noise is added as in Coord, which is
predicted too (the Coord term). The new target is the force f = ∇ ½Σ((d - d₀)/σ)² at the structure that the
encoder sees. The paper estimates it with 128 random slices; here it is exact, by automatic differentiation.
"""

from collections.abc import Mapping

from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.coordinates import Terms
from molspectra.data.random import Purpose
from molspectra.models.segments import spread_to_atoms
from molspectra.objectives.denoising import CoordDenoising, Noised, internal_of
from molspectra.objectives.frad import draw
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.moves import bend, stretch, twist
from molspectra.objectives.strain import gradient


class SlideDenoising(CoordDenoising):
    """Two targets: the Gaussian noise ("denoising") and the force of the harmonic energy ("slide")."""

    losses = ("denoising", "slide")
    internal = True

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Move internal coordinates, then the atoms; the same in any batch."""
        internal, noise = internal_of(batch), self.noise(batch, key)

        def drawn(purpose: Purpose, terms: Terms) -> Tensor:
            return draw(batch, key, purpose, terms.counts, len(terms.sigma)) * terms.sigma

        clean = batch.positions.double()
        now = stretch(clean, internal, drawn(Purpose.BOND, internal.bonds))
        now = bend(now, internal, drawn(Purpose.ANGLE, internal.angles))
        now = twist(now, internal, drawn(Purpose.TORSION, internal.torsions))
        moved = now.to(batch.positions) + noise
        force = gradient(clean, moved.double(), internal).to(batch.positions)
        return Noised(batch.with_positions(moved), noise, force)

    def forward(self, predictions: Mapping[str, Tensor], noised: Noised) -> dict[str, Loss]:
        """See `CoordDenoising.forward`; molecules without internal coordinates have no force to learn."""
        assert noised.force is not None
        wanted = noised.force / self.config.force_unit
        errors = (predictions["slide"] - wanted).square()
        here = _in_motion(noised.batch).unsqueeze(1)
        losses = super().forward(predictions, noised)
        return losses | {"slide": Loss((errors * here).sum(), self.counts(noised.batch)["slide"])}

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `CoordDenoising.counts`."""
        return super().counts(batch) | {"slide": 3.0 * float(_in_motion(batch).sum())}


def _in_motion(batch: Batch) -> Tensor:
    """[N] bool, whether an atom belongs to a molecule with internal coordinates."""
    return spread_to_atoms(internal_of(batch).moves, batch.molecule, batch.ptr)
