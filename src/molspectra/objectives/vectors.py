"""Products of vectors whose last bit does not depend on how many are computed at once.

A sum along an axis may add in another order for other numbers of rows; products added one by one do not.
"""

import torch
from torch import Tensor


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Inner products [...] of vectors [..., 3]."""
    x, y, z = (one * other).unbind(-1)
    return x + y + z


def norm(vectors: Tensor) -> Tensor:
    """Lengths [...] of vectors [..., 3], with a zero gradient at zero."""
    squared = dot(vectors, vectors)
    zero = squared == 0
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


def polar_angle(y: Tensor, x: Tensor) -> Tensor:
    """Angles [K] in (-π, π] whose tangents are y/x.

    Of columns of one table, not of vectors of their own: for those, torch takes another routine for the last
    few elements than for the others.
    """
    table = torch.stack([y, x], dim=1)
    return torch.atan2(table[:, 0], table[:, 1])
