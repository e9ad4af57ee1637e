"""Coordinate denoising (Coord; Zaidi et al., ICLR 2023): noise on the structure, predicted by the encoder.

`Frad` and `SliDe` (modules of their names) add moves along internal coordinates before it. All three are
called alike: `perturb` moves a batch, the call itself turns predictions into losses.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.data.coordinates import InternalBatch
from molspectra.data.random import Purpose, normal
from molspectra.errors import InputError
from molspectra.models.segments import spread_to_atoms, sum_by_molecule
from molspectra.models.shared import Shared
from molspectra.objectives.loss import Loss, NoiseKey


@dataclass(frozen=True)
class DenoisingConfig:
    """Settings of denoising."""

    kind: Literal["coord", "frad", "slide"] = "coord"
    """"coord": Gaussian noise on all atoms, which is to be predicted. "frad": rotatable bonds are turned
    before, and only the Gaussian noise is to be predicted. "slide": bonds, angles and torsions are moved
    before; to be predicted are the Gaussian noise and, by another head, the force of a harmonic field."""
    sigma: float = 0.04
    """Standard deviation σ of the Gaussian noise per coordinate, in Å."""
    centred: bool = True
    """Subtract the mean noise of each molecule: a translation cannot be identified from the structure."""
    normalise: Literal["sigma", "running"] = "sigma"
    """Standardise the target by σ, or by a running mean and deviation over all noise seen ("running", the
    reference implementation's way)."""
    rotation: float = 2.0
    """Standard deviation of the turn of a rotatable bond, in degrees (Frad)."""
    force_unit: float = 50.0
    """The force target is divided by this, in 1/Å (SliDe); 50 makes its root mean square about 1."""

    def __post_init__(self) -> None:
        """Refuse noise without a size.

        Raises:
            InputError: a standard deviation or unit that is not positive.
        """
        for name in ("sigma", "rotation", "force_unit"):
            if not getattr(self, name) > 0:
                raise InputError(f"denoising: {name} must be positive, not {getattr(self, name)}")


class Noised(NamedTuple):
    """A batch with moved atoms and what the heads are to predict."""

    batch: Batch
    """The batch at the moved positions, without edges."""
    target: Tensor
    """[N, 3] Gaussian noise in Å."""
    force: Tensor | None = None
    """[N, 3] gradient of the harmonic energy in 1/Å (SliDe)."""


class RunningNormaliser(Shared):
    """Mean and deviation per coordinate of all noise seen so far, that of the step included."""

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
        """[3] mean of the noise seen."""
        return self.acc_sum / self.acc_count.clamp(min=1.0)

    @property
    def std(self) -> Tensor:
        """[3] population standard deviation of the noise seen, at least 1e-8."""
        variance = self.acc_squared_sum / self.acc_count.clamp(min=1.0) - self.mean**2
        return variance.clamp(min=0.0).sqrt().clamp(min=1e-8)

    @torch.no_grad()
    def observe(self, noises: Iterable[Tensor]) -> None:
        """Take in the noise of a whole step, [N, 3] per micro-batch, on all ranks."""
        parts = [torch.stack([noise, noise.square(), torch.ones_like(noise)]).sum(1) for noise in noises]
        sums = torch.stack(parts).sum(0)
        if self.everyone is not None:
            sums = self.everyone(sums.double()).sum(0)
        self.acc_sum += sums[0]
        self.acc_squared_sum += sums[1]
        self.acc_count += sums[2, :1]
        self.num_accumulations += 1

    def forward(self, noise: Tensor) -> Tensor:
        """Standardise [N, 3] by what was observed."""
        return (noise - self.mean) / self.std


class CoordDenoising(nn.Module):
    """x = x₀ + σε; the noise head predicts the standardised noise of every atom.

    Attributes:
        losses: names of the losses, which are also those of the predictions.
        internal: whether batches need internal coordinates.
    """

    losses: tuple[str, ...] = ("denoising",)
    internal: bool = False

    def __init__(self, config: DenoisingConfig) -> None:
        super().__init__()
        self.config = config
        self.normaliser = RunningNormaliser() if config.normalise == "running" else None

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Move the atoms; the same molecule, seed and epoch give the same noise in any batch."""
        noise = self.noise(batch, key)
        return Noised(batch.with_positions(batch.positions + noise), noise)

    def observe(self, micros: Iterable[tuple[Batch, NoiseKey]]) -> None:
        """Let a running normaliser see the noise of all micro-batches of a step, before any loss of it."""
        if self.normaliser is not None:
            self.normaliser.observe(self.noise(batch, key) for batch, key in micros)

    def noise(self, batch: Batch, key: NoiseKey) -> Tensor:
        """Gaussian noise [N, 3] in Å."""
        counts = batch.ptr.diff()
        noise = normal(key.seed, key.epoch, batch.geometry_id, Purpose.NOISE, counts, 3)
        noise = noise.to(batch.positions) * self.config.sigma
        if self.config.centred:
            total = sum_by_molecule(noise, batch.molecule, batch.ptr)
            noise = noise - spread_to_atoms(total / counts.unsqueeze(1), batch.molecule, batch.ptr)
        return noise

    def forward(self, predictions: Mapping[str, Tensor], noised: Noised) -> dict[str, Loss]:
        """Squared errors of standardised predictions [N, 3], by loss; an item is a coordinate."""
        target = noised.target
        wanted = target / self.config.sigma if self.normaliser is None else self.normaliser(target)
        error = (predictions["denoising"] - wanted).square().sum()
        return {"denoising": Loss(error, 3.0 * target.shape[0])}

    def counts(self, batch: Batch) -> dict[str, float]:
        """Items of every loss in a batch."""
        return {"denoising": 3.0 * len(batch.numbers)}


def internal_of(batch: Batch) -> InternalBatch:
    """The internal coordinates of a batch.

    Raises:
        InputError: it has none.
    """
    if batch.internal is None:
        raise InputError("Frad and SliDe need internal coordinates; open the store with `with_internal()`")
    return batch.internal
