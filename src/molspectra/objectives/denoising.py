"""Denoising of structures; `denoising_objective` chooses one of three kinds.

- `CoordDenoising` (Coord; Zaidi et al., ICLR 2023) puts Gaussian noise on all atoms, which the encoder
  predicts.
- `FradDenoising` (Frad; Feng et al., ICML 2023) turns rotatable bonds before; the angles are not predicted.
- `SlideDenoising` (SliDe; Ni et al., ICLR 2024) moves all bonds, then the angles, then the torsions by
  N(0, σ²), σ from a force field, before the Gaussian noise of Coord, which is predicted too. The other target
  is the force f = ∇ ½Σ((d - d₀)/σ)² at the structure that the encoder sees. The paper estimates it with 128
  random slices; here it is exact, by automatic differentiation.

All are called alike: `perturb` moves a batch, the call itself turns predictions into losses.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.data.coordinates import InternalBatch, Terms
from molspectra.data.random import Purpose, normal
from molspectra.errors import MismatchError
from molspectra.models.segments import spread_to_atoms, sum_by_molecule
from molspectra.models.shared import Shared
from molspectra.objectives.config import DenoisingConfig
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.moves import bend, rotate, stretch, twist
from molspectra.objectives.strain import gradient


class Noised(NamedTuple):
    """A batch with moved atoms and the targets of the heads."""

    batch: Batch
    """The batch at the moved positions, without edges."""
    target: Tensor
    """[N, 3] Gaussian noise in Å."""
    force: Tensor | None = None
    """[N, 3] gradient of the harmonic energy in 1/Å (SliDe)."""


class RunningNormaliser(Shared):
    """Mean and standard deviation per coordinate of all noise so far, including the current step's."""

    acc_sum: Tensor
    acc_squared_sum: Tensor
    acc_count: Tensor
    num_accumulations: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("acc_sum", torch.zeros(3))
        self.register_buffer("acc_squared_sum", torch.zeros(3))
        self.register_buffer("acc_count", torch.zeros(1))
        self.register_buffer("num_accumulations", torch.zeros(1))

    @property
    def mean(self) -> Tensor:
        """[3] mean of the noise so far."""
        return self.acc_sum / self.acc_count.clamp(min=1.0)

    @property
    def std(self) -> Tensor:
        """[3] population standard deviation of the noise so far, at least 1e-8."""
        variance = self.acc_squared_sum / self.acc_count.clamp(min=1.0) - self.mean**2
        return variance.clamp(min=0.0).sqrt().clamp(min=1e-8)

    @torch.no_grad()
    def observe(self, noises: Iterable[Tensor]) -> None:
        """Add the noise of a whole step, [N, 3] per micro-batch, of all ranks."""
        parts = [torch.stack([noise, noise.square(), torch.ones_like(noise)]).sum(1) for noise in noises]
        sums = torch.stack(parts).sum(0)
        if self.all_gather is not None:
            sums = self.all_gather(sums.double()).sum(0)
        self.acc_sum += sums[0]
        self.acc_squared_sum += sums[1]
        self.acc_count += sums[2, :1]
        self.num_accumulations += 1

    def forward(self, noise: Tensor) -> Tensor:
        """Standardise noise [N, 3] by the mean and standard deviation so far."""
        return (noise - self.mean) / self.std


class CoordDenoising(nn.Module):
    """Gaussian noise, x = x₀ + σε; the noise head predicts the standardised noise of every atom.

    Attributes:
        losses: names of the losses, which are also the names of the predictions.
        internal: whether batches need internal coordinates.
    """

    losses: tuple[str, ...] = ("denoising",)
    internal: bool = False

    def __init__(self, config: DenoisingConfig) -> None:
        super().__init__()
        self.config = config
        self.normaliser = RunningNormaliser() if config.normalise == "running" else None

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Move the atoms; a molecule, seed and epoch give the same noise in any batch."""
        noise = self.noise(batch, key)
        return Noised(batch.with_positions(batch.positions + noise), noise)

    def observe(self, micros: Iterable[tuple[Batch, NoiseKey]]) -> None:
        """Add the noise of all micro-batches of a step to a running normaliser, before the step's losses."""
        if self.normaliser is not None:
            self.normaliser.observe(self.noise(batch, key) for batch, key in micros)

    def noise(self, batch: Batch, key: NoiseKey) -> Tensor:
        """Gaussian noise [N, 3] in Å."""
        counts = batch.ptr.diff()
        noise = normal(
            key.seed, key.epoch, batch.geometry_id, Purpose.NOISE, counts, 3, total=len(batch.numbers)
        )
        noise = noise.to(batch.positions) * self.config.sigma
        if self.config.centred:
            total = sum_by_molecule(noise, batch.molecule, batch.ptr)
            noise = noise - spread_to_atoms(total / counts.unsqueeze(1), batch.molecule, batch.ptr)
        return noise

    def forward(self, predictions: Mapping[str, Tensor], noised: Noised) -> dict[str, Loss]:
        """Squared errors of standardised predictions [N, 3], by loss; an item is a coordinate."""
        noise = noised.target
        target = noise / self.config.sigma if self.normaliser is None else self.normaliser(noise)
        error = (predictions["denoising"] - target).square().sum()
        return {"denoising": Loss(error, 3.0 * noise.shape[0])}

    def counts(self, batch: Batch) -> dict[str, float]:
        """Number of items of every loss in a batch."""
        return {"denoising": 3.0 * len(batch.numbers)}


class FradDenoising(CoordDenoising):
    """Every rotatable bond turned by N(0, rotation²), then x = x_a + σε; only σε is to be predicted.

    A molecule without rotatable bonds is treated as by `CoordDenoising`, bit for bit.
    """

    internal = True

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Turn bonds, then move atoms; a molecule, seed and epoch give the same in any batch."""
        internal, noise = _internal_of(batch), self.noise(batch, key)
        counts = internal.rotatable_counts
        total = len(internal.rotatable)
        turns = _draw(batch, key, Purpose.TORSION, counts, total) * math.radians(self.config.rotation)
        turned = rotate(batch.positions.double(), internal, turns).to(batch.positions)
        return Noised(batch.with_positions(turned + noise), noise)


class SlideDenoising(CoordDenoising):
    """Two targets: the Gaussian noise ("denoising") and the force of the harmonic energy ("slide")."""

    losses = ("denoising", "slide")
    internal = True

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Move internal coordinates, then atoms; a molecule, seed and epoch give the same in any batch."""
        internal, noise = _internal_of(batch), self.noise(batch, key)

        def deviations(purpose: Purpose, terms: Terms) -> Tensor:
            return _draw(batch, key, purpose, terms.counts, len(terms.sigma)) * terms.sigma

        clean = batch.positions.double()
        moved = stretch(clean, internal, deviations(Purpose.BOND, internal.bonds))
        moved = bend(moved, internal, deviations(Purpose.ANGLE, internal.angles))
        moved = twist(moved, internal, deviations(Purpose.TORSION, internal.torsions))
        moved = moved.to(batch.positions) + noise
        force = gradient(clean, moved.double(), internal).to(batch.positions)
        return Noised(batch.with_positions(moved), noise, force)

    def forward(self, predictions: Mapping[str, Tensor], noised: Noised) -> dict[str, Loss]:
        """See `CoordDenoising.forward`; molecules without internal coordinates have no force target."""
        assert noised.force is not None
        target = noised.force / self.config.force_unit
        errors = (predictions["slide"] - target).square()
        has_force = _has_internal(noised.batch).unsqueeze(1)
        losses = super().forward(predictions, noised)
        return losses | {"slide": Loss((errors * has_force).sum(), 3.0 * has_force.sum())}

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `CoordDenoising.counts`."""
        return super().counts(batch) | {"slide": 3.0 * float(_has_internal(batch).sum())}


def _internal_of(batch: Batch) -> InternalBatch:
    """The internal coordinates of a batch.

    Raises:
        MismatchError: it has none.
    """
    if batch.internal is None:
        raise MismatchError("Frad and SliDe need internal coordinates; open the store with `with_internal()`")
    return batch.internal


def _draw(batch: Batch, key: NoiseKey, purpose: Purpose, counts: Tensor, total: int) -> Tensor:
    """Standard normal numbers [total] float64 for internal coordinates, `counts` [B] per molecule."""
    return normal(key.seed, key.epoch, batch.geometry_id, purpose, counts, 1, total=total).squeeze(1)


def _has_internal(batch: Batch) -> Tensor:
    """Whether an atom belongs to a molecule with internal coordinates, [N] bool."""
    return spread_to_atoms(_internal_of(batch).moves, batch.molecule, batch.ptr)


_KINDS = {"coord": CoordDenoising, "frad": FradDenoising, "slide": SlideDenoising}


def denoising_objective(config: DenoisingConfig) -> CoordDenoising:
    """Build the objective of `config.kind`."""
    return _KINDS[config.kind](config)
