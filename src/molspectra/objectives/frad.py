"""Fractional denoising (Frad; Feng et al., ICML 2023): turns of rotatable bonds, then Gaussian noise."""

import math

from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, normal
from molspectra.objectives.denoising import CoordDenoising, Noised, internal_of
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.moves import rotate


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
