"""Sliced denoising (SliDe; Ni et al., ICLR 2024): noise on bonds, angles and torsions, and its force.

The structure is moved along its internal coordinates by N(0, σ²), σ from a force field: all bonds, then the
angles, then the torsions, each set exactly at its turn. Then Gaussian noise is added as in Coord, which is
predicted too (the Coord term). The new target is the force f = ∇ ½Σ((d - d₀)/σ)² at the structure that the
encoder sees. The paper estimates it with 128 random slices; here it is exact, by automatic differentiation.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.coordinates import Terms
from molspectra.data.random import Purpose, normal
from molspectra.models.segments import spread_to_atoms
from molspectra.objectives.denoising import CoordDenoising, DenoisingConfig, Noised, internal_of
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.moves import bend, rotate, stretch, twist
from molspectra.objectives.strain import gradient


class FradDenoising(CoordDenoising):
    """Every rotatable bond turned by N(0, rotation²), then x = x_a + σε; only σε is to be predicted.

    A molecule without rotatable bonds is treated as by `CoordDenoising`, bit for bit.
    """

    internal = True

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Turn, then move the atoms; the same molecule, seed and epoch give the same in any batch."""
        internal, noise = internal_of(batch), self.noise(batch, key)
        counts = internal.rotatable_counts
        total = len(internal.rotatable)
        turns = draw(batch, key, Purpose.TORSION, counts, total) * math.radians(self.config.rotation)
        turned = rotate(batch.positions.double(), internal, turns).to(batch.positions)
        return Noised(batch.with_positions(turned + noise), noise)


def draw(batch: Batch, key: NoiseKey, purpose: Purpose, counts: Tensor, total: int) -> Tensor:
    """Standard normal numbers for terms, `counts` [B] per molecule: [total] float64."""
    return normal(key.seed, key.epoch, batch.geometry_id, purpose, counts, 1, total=total).squeeze(1)


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


_KINDS = {"coord": CoordDenoising, "frad": FradDenoising, "slide": SlideDenoising}


def denoising_objective(config: DenoisingConfig) -> CoordDenoising:
    """The objective of `config.kind`."""
    return _KINDS[config.kind](config)
