"""Alignment and uniformity of embeddings on the unit sphere.

After T. Wang and P. Isola, ICML 2020, arXiv:2005.10242.

Both are losses: the lower, the better. Embeddings are divided by their Euclidean norms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.errors import ValueRangeError

TEMPERATURE = 2.0
"""t of the uniformity, as published."""

CHUNK = 1024  # embeddings whose distances to all are held in memory at once


def alignment(one: Tensor, other: Tensor) -> float:
    """Mean squared distance of the pairs, L_align = E[‖f(x) - f(y)‖²] over pairs (x, y) of one molecule.

    It is 0 where all pairs coincide, 2 for directions at right angles, and 4 for opposite ones.

    Args:
        one: [n, D], not of unit length.
        other: [n, D], of the same molecules.

    Raises:
        ValueRangeError: no pairs.
    """
    if not len(one):
        raise ValueRangeError("alignment needs a pair of embeddings")
    return float((F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean())


def uniformity(embeddings: Tensor) -> float:
    """Logarithm of the mean Gaussian potential, L_uniform = log E[exp(-2 ‖f(x) - f(y)‖²)], over x ≠ y.

    It is 0 where all embeddings coincide and -4 where all are at right angles, as in many dimensions those
    spread evenly over the sphere nearly are.

    Args:
        embeddings: [n, D] float64, not of unit length, of n ≥ 2 molecules.

    Raises:
        ValueRangeError: fewer than two embeddings.
    """
    count = len(embeddings)
    if count < 2:
        raise ValueRangeError("uniformity needs two embeddings")
    points, total = F.normalize(embeddings, dim=1), 0.0
    for start in range(0, count, CHUNK):
        chunk = points[start : start + CHUNK]
        potential = (-TEMPERATURE * (2.0 - 2.0 * chunk @ points.T)).exp()  # ‖a - b‖² = 2 - 2 a·b
        own = torch.arange(len(chunk))
        potential[own, start + own] = 0.0
        total += float(potential.sum())
    return float(torch.tensor(total / (count * (count - 1)), dtype=torch.float64).log())
