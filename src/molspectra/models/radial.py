"""Radial functions of a distance: cosine cutoff and exponential-normal basis (method, section 4)."""

import math

import torch
from torch import Tensor, nn


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """φ(d) = ½(cos(πd/cutoff) + 1) below the cutoff, else 0; any shape, Å."""
    smooth = 0.5 * (torch.cos(distance * (math.pi / cutoff)) + 1.0)
    return smooth * (distance < cutoff)


class ExponentialNormal(nn.Module):
    """e_k(d) = φ(d)·exp(-β_k (exp(-αd) - μ_k)²), fixed centres and widths (PhysNet basis, TorchMD-NET).

    Args:
        radial: number of functions K.
        cutoff: φ's cutoff in Å; α = 5/cutoff in 1/Å.
    """

    means: Tensor
    betas: Tensor

    def __init__(self, radial: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.alpha = 5.0 / cutoff
        start = math.exp(-cutoff)
        self.register_buffer("means", torch.linspace(start, 1.0, radial))
        self.register_buffer("betas", torch.full((radial,), (2.0 / radial * (1.0 - start)) ** -2))

    def forward(self, distance: Tensor) -> Tensor:
        """Expand distances [Q] (Å) to [Q, K]."""
        decay = torch.exp(-self.alpha * distance).unsqueeze(-1)
        basis = torch.exp(-self.betas * (decay - self.means) ** 2)
        return cosine_cutoff(distance, self.cutoff).unsqueeze(-1) * basis
