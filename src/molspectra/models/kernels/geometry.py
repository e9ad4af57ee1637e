"""What the layers take of the positions of all pairs, and the gradient on its way back, in one pass each."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molspectra.compiled.simd import (
    array_of,
    exp,
    fma,
    inline,
    integers,
    jit,
    load,
    real_of,
    splat,
    store,
    total,
)
from molspectra.compiled.threads import run
from molspectra.models.formulas import ExponentialNormal
from molspectra.models.kernels.arrays import lanes_of


@cache
def _kernels(dtype: torch.dtype, lanes: int) -> tuple[Any, Any]:
    real = real_of(dtype)
    reals = array_of(real)

    @inline
    def number(value: Any) -> Any:
        return real(value)

    @jit
    def forward(
        first_task: int, last_task: int, pairs: int, radial: int, cutoff: float, alpha: float,
        first: Any, second: Any, positions: Any, means: Any, betas: Any,
        distance: Any, envelope: Any, basis: Any, direction: Any,
    ) -> None:  # fmt: skip
        first, second = integers(first), integers(second)
        positions, means, betas = reals(positions), reals(means), reals(betas)
        distance, envelope, basis, direction = (
            reals(distance),
            reals(envelope),
            reals(basis),
            reals(direction),
        )
        for _ in range(first_task, last_task):
            for q in range(-1, pairs):  # the self-pair first
                d = 0.0
                if q >= 0:
                    i, j, o = 3 * first[q], 3 * second[q], 3 * q
                    x, y, z = (
                        positions[j] - positions[i],
                        positions[j + 1] - positions[i + 1],
                        positions[j + 2] - positions[i + 2],
                    )
                    d = np.sqrt(x * x + y * y + z * z)
                    direction[o], direction[o + 1], direction[o + 2] = x / d, y / d, z / d
                phi = 0.5 * (math.cos(d * math.pi / cutoff) + 1.0) if d < cutoff else d * 0.0
                distance[q + 1], envelope[q + 1] = d, phi
                decay, scale = splat(number(math.exp(-alpha * d)), lanes), splat(number(phi), lanes)
                for k in range(0, radial, lanes):
                    t = decay - load(means, k, lanes)
                    value = exp(t * t * (t - t - load(betas, k, lanes))) * scale
                    store(basis, (q + 1) * radial + k, value)

    @jit
    def backward(
        first_task: int, last_task: int, pairs: int, radial: int, cutoff: float, alpha: float,
        first: Any, second: Any, means: Any, betas: Any, distance: Any, envelope: Any, direction: Any,
        d_envelope: Any, d_basis: Any, d_direction: Any, gradient: Any,
    ) -> None:  # fmt: skip
        first, second, means, betas = integers(first), integers(second), reals(means), reals(betas)
        distance, envelope, direction = reals(distance), reals(envelope), reals(direction)
        gradient = reals(gradient)
        d_envelope, d_basis, d_direction = reals(d_envelope), reals(d_basis), reals(d_direction)
        for _ in range(first_task, last_task):
            for q in range(pairs):
                d, at = distance[q + 1], (q + 1) * radial
                phi, slope = envelope[q + 1], d * 0.0
                if d < cutoff:
                    slope = -0.5 * math.pi / cutoff * math.sin(d * math.pi / cutoff)
                u = math.exp(-alpha * d)
                decay, factor = splat(number(u), lanes), splat(number(2.0 * alpha * phi * u), lanes)
                rise = splat(number(slope), lanes)
                sums = decay - decay
                for k in range(0, radial, lanes):
                    beta, t = load(betas, k, lanes), decay - load(means, k, lanes)
                    value = exp(t * t * (t - t - beta)) * load(d_basis, at + k, lanes)
                    sums = fma(value, fma(factor, beta * t, rise), sums)
                pull = total(sums) + d_envelope[q + 1] * slope
                o = 3 * q
                along = d * 0.0
                for x in range(3):
                    along += direction[o + x] * d_direction[o + x]
                i, j = 3 * first[q], 3 * second[q]
                for x in range(3):
                    n = direction[o + x]
                    value = (d_direction[o + x] - n * along) / d + n * pull
                    gradient[j + x] += value
                    gradient[i + x] -= value

    return forward, backward


class Geometry:
    """Radial functions, cutoffs and directions of the pairs of a batch, and their pullback to positions.

    Args:
        positions: [N, 3] float32 or float64, Å.
        first: [Q] int64, the smaller atom of every pair.
        second: [Q] int64, the larger one.
        expansion: the radial functions.

    Attributes:
        basis: [1 + Q, K] radial functions with φ; row 0 is the self-pair, d = 0.
        envelope: [1 + Q] φ(d).
        direction: [Q, 3] unit vectors from the first atom to the second.
    """

    def __init__(
        self, positions: Tensor, first: Tensor, second: Tensor, expansion: ExponentialNormal
    ) -> None:
        count, radial = len(first), len(expansion.means)
        self._sizes = (count, radial, expansion.cutoff, expansion.alpha)
        self._ends, self._constants = (first, second), (expansion.means, expansion.betas)
        self._atoms = len(positions)
        self._distance, self.envelope = positions.new_empty(1 + count), positions.new_empty(1 + count)
        self.basis, self.direction = positions.new_empty(1 + count, radial), positions.new_empty(count, 3)
        results = (self._distance, self.envelope, self.basis, self.direction)
        kernel = _kernels(positions.dtype, lanes_of(radial))[0]
        run(kernel, 1, *self._sizes, *self._ends, positions, *self._constants, *results)

    def pullback(self, d_basis: Tensor, d_envelope: Tensor, d_direction: Tensor) -> Tensor:
        """Gradient [N, 3] of the positions from those of basis, envelope and direction; row 0 is constant."""
        gradient = d_basis.new_zeros(self._atoms, 3)
        geometry = (*self._ends, *self._constants, self._distance, self.envelope, self.direction)
        kernel = _kernels(d_basis.dtype, lanes_of(self._sizes[1]))[1]
        run(kernel, 1, *self._sizes, *geometry, d_envelope, d_basis, d_direction, gradient)
        return gradient
