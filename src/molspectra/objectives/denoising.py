"""Coordinate denoising (Coord; Zaidi et al., ICLR 2023): noise on the structure, predicted by the encoder."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, normal
from molspectra.models.segments import spread_to_atoms, sum_by_molecule
from molspectra.objectives.loss import Loss, NoiseKey


@dataclass(frozen=True)
class CoordConfig:
    """Settings of coordinate denoising."""

    sigma: float = 0.04
    """Standard deviation σ of the noise per coordinate, in Å."""
    centred: bool = True
    """Subtract the mean noise of each molecule: a translation cannot be identified from the structure."""
    normalise: Literal["sigma", "running"] = "sigma"
    """Standardise the target by σ, or by a running mean and deviation over all noise seen ("running", the
    reference implementation's way)."""


class Noised(NamedTuple):
    """A batch with moved atoms and what the noise head is to predict."""

    batch: Batch
    """The batch at x₀ + noise, without edges."""
    target: Tensor
    """[N, 3] noise in Å."""


class RunningNormaliser(nn.Module):
    """Mean and deviation per coordinate of all noise seen so far (updated in training, before use)."""

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

    def forward(self, noise: Tensor) -> Tensor:
        """Standardise [N, 3]; in training mode the rows are added to the statistics first."""
        if self.training:
            self.acc_sum += noise.sum(0)
            self.acc_squared_sum += noise.square().sum(0)
            self.acc_count += noise.shape[0]
            self.num_accumulations += 1
        return (noise - self.mean) / self.std


class CoordDenoising(nn.Module):
    """x = x₀ + σε; the noise head predicts the standardised noise of every atom."""

    def __init__(self, config: CoordConfig) -> None:
        super().__init__()
        self.config = config
        self.normaliser = RunningNormaliser() if config.normalise == "running" else None

    def perturb(self, batch: Batch, key: NoiseKey) -> Noised:
        """Move the atoms; the same molecule, seed and epoch give the same noise in any batch."""
        counts = batch.ptr.diff()
        noise = normal(key.seed, key.epoch, batch.geometry_id, Purpose.NOISE, counts, 3)
        noise = noise.to(batch.positions) * self.config.sigma
        if self.config.centred:
            total = sum_by_molecule(noise, batch.molecule, batch.ptr)
            noise = noise - spread_to_atoms(total / counts.unsqueeze(1), batch.molecule, batch.ptr)
        return Noised(batch.with_positions(batch.positions + noise), noise)

    def forward(self, prediction: Tensor, target: Tensor) -> Loss:
        """Squared error of the standardised prediction [N, 3] against noise in Å; an item is a coordinate."""
        wanted = target / self.config.sigma if self.normaliser is None else self.normaliser(target)
        return Loss((prediction - wanted).square().sum(), self.count(target.shape[0]))

    @staticmethod
    def count(atoms: int) -> float:
        """Items in a batch of N atoms."""
        return 3.0 * atoms
