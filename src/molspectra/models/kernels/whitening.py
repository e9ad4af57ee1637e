"""Whitening of vector features (`plain_whitening`) in one pass per atom, forward and backward.

With c = v - mean(v), M = c cᵀ/C + ridge = U diag(λ) Uᵀ, the result is W c ⊙ w with W = U diag(f(λ)) Uᵀ. The
gradient of a function of a symmetric matrix is dM = U ((Uᵀ dW U) ⊙ Δ) Uᵀ with the divided differences
Δ_ij = (f(λ_i) - f(λ_j))/(λ_i - λ_j) (Daleckii and Krein, 1965), written here without a difference of equals.
All arithmetic is in float64.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molspectra.compiled.simd import (
    array_of,
    doubles,
    fma,
    inline,
    jit,
    load,
    narrow,
    real_of,
    splat,
    store,
    total,
    widen,
)
from molspectra.compiled.threads import run
from molspectra.models.formulas import plain_whitening
from molspectra.models.kernels.arrays import differentiable, lanes_of
from molspectra.models.kernels.symmetric import diagonalise, divided_differences, scale_in_basis

ATOMS = 64
"""Atoms per task."""
Pullback = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the gradient of the result to those of vectors and weight."""
SMALLEST = float(np.finfo(np.float64).eps)
"""Eigenvalues below this fraction of the largest are set to it: they are rounding."""


@inline
def _whiten(basis: Any, roots: Any, eps: Any, reference: Any, out: Any) -> Any:
    """W = U f(λ) Uᵀ of roots √λ."""
    for i in range(3):
        for j in range(3):
            value = 0.0
            for k in range(3):
                f = 1.0 / roots[k]
                if not reference:
                    f -= eps / (roots[k] * roots[k] * roots[k])
                value += basis[3 * i + k] * f * basis[3 * j + k]
            out[3 * i + j] = value


@cache
def _kernels(dtype: torch.dtype, lanes: int) -> tuple[Any, Any]:
    single, reals = dtype == torch.float32, array_of(real_of(dtype))

    @inline
    def centred(vectors: Any, start: Any, mean: Any) -> Any:
        return widen(load(vectors, start, lanes)) - splat(mean, lanes)

    @inline
    def put(array: Any, start: Any, value: Any) -> Any:
        store(array, start, narrow(value) if single else value)

    @inline
    def row_of(matrix: Any, i: Any, x: Any, y: Any, z: Any) -> Any:
        """Row i of a 3×3 matrix times (x, y, z)."""
        value = fma(y, splat(matrix[3 * i + 1], lanes), x * splat(matrix[3 * i], lanes))
        return fma(z, splat(matrix[3 * i + 2], lanes), value)

    @jit
    def forward(
        first_task: int, last_task: int, atoms: int, channels: int, eps: float, ridge: Any, reference: bool,
        vectors: Any, weight: Any, out: Any, means: Any, bases: Any, roots: Any,
    ) -> None:  # fmt: skip
        vectors, weight, out = reals(vectors), reals(weight), reals(out)
        ridge, means, bases, roots = doubles(ridge), doubles(means), doubles(bases), doubles(roots)
        zero = splat(0.0, lanes)
        matrix, whiten = np.empty(9), np.empty(9)
        for atom in range(first_task * ATOMS, min(last_task * ATOMS, atoms)):
            start, mean = 3 * atom * channels, means[3 * atom : 3 * atom + 3]
            basis, root = bases[9 * atom : 9 * atom + 9], roots[3 * atom : 3 * atom + 3]
            # means over channels
            for x in range(3):
                sums = zero
                for c in range(start + x * channels, start + (x + 1) * channels, lanes):
                    sums = sums + widen(load(vectors, c, lanes))
                mean[x] = total(sums) / channels
            # M = c cᵀ/C + ridge
            xx, yy, zz, xy, xz, yz = zero, zero, zero, zero, zero, zero
            for c in range(start, start + channels, lanes):
                x0 = centred(vectors, c, mean[0])
                y0 = centred(vectors, c + channels, mean[1])
                z0 = centred(vectors, c + 2 * channels, mean[2])
                xx, yy, zz = fma(x0, x0, xx), fma(y0, y0, yy), fma(z0, z0, zz)
                xy, xz, yz = fma(x0, y0, xy), fma(x0, z0, xz), fma(y0, z0, yz)
            matrix[0], matrix[1], matrix[2] = total(xx), total(xy), total(xz)
            matrix[4], matrix[5], matrix[8] = total(yy), total(yz), total(zz)
            matrix[3], matrix[6], matrix[7] = matrix[1], matrix[2], matrix[5]
            for i in range(9):
                matrix[i] = matrix[i] / channels + ridge[i]
            # W
            diagonalise(matrix, basis)
            floor = max(matrix[0], matrix[4], matrix[8]) * SMALLEST
            for i in range(3):
                root[i] = np.sqrt(floor if matrix[4 * i] < floor else matrix[4 * i])
            _whiten(basis, root, eps, reference, whiten)
            # W c ⊙ w
            for c in range(0, channels, lanes):
                x0 = centred(vectors, start + c, mean[0])
                y0 = centred(vectors, start + c + channels, mean[1])
                z0 = centred(vectors, start + c + 2 * channels, mean[2])
                scale = widen(load(weight, c, lanes))
                for i in range(3):
                    put(out, start + i * channels + c, row_of(whiten, i, x0, y0, z0) * scale)

    @jit
    def backward(
        first_task: int, last_task: int, atoms: int, channels: int, eps: float, ridge: Any, reference: bool,
        vectors: Any, weight: Any, grad: Any, means: Any, bases: Any, roots: Any,
        d_vectors: Any, d_weight: Any,
    ) -> None:  # fmt: skip
        vectors, weight, grad, d_vectors = reals(vectors), reals(weight), reals(grad), reals(d_vectors)
        means, bases, roots, d_weight = doubles(means), doubles(bases), doubles(roots), doubles(d_weight)
        zero = splat(0.0, lanes)
        whiten, slopes, pull = np.empty(9), np.empty(9), np.empty(9)
        shift = np.empty(3)
        for task in range(first_task, last_task):
            for c in range(0, channels, lanes):
                store(d_weight, task * channels + c, zero)
            for atom in range(task * ATOMS, min((task + 1) * ATOMS, atoms)):
                start, mean = 3 * atom * channels, means[3 * atom : 3 * atom + 3]
                basis, root = bases[9 * atom : 9 * atom + 9], roots[3 * atom : 3 * atom + 3]
                _whiten(basis, root, eps, reference, whiten)
                # sums over channels: gradients of the weight, of W (p) and of the mean (m)
                p0, p1, p2, p3, p4, p5, p6, p7, p8 = (
                    zero, zero, zero, zero, zero, zero, zero, zero, zero,
                )  # fmt: skip
                m0, m1, m2 = zero, zero, zero
                for c in range(0, channels, lanes):
                    x0 = centred(vectors, start + c, mean[0])
                    y0 = centred(vectors, start + c + channels, mean[1])
                    z0 = centred(vectors, start + c + 2 * channels, mean[2])
                    gx = widen(load(grad, start + c, lanes))
                    gy = widen(load(grad, start + c + channels, lanes))
                    gz = widen(load(grad, start + c + 2 * channels, lanes))
                    own = row_of(whiten, 0, x0, y0, z0) * gx
                    own = fma(row_of(whiten, 1, x0, y0, z0), gy, own)
                    own = fma(row_of(whiten, 2, x0, y0, z0), gz, own)
                    at = task * channels + c
                    store(d_weight, at, load(d_weight, at, lanes) + own)
                    scale = widen(load(weight, c, lanes))
                    gx, gy, gz = gx * scale, gy * scale, gz * scale
                    m0, m1, m2 = m0 + gx, m1 + gy, m2 + gz
                    p0, p1, p2 = fma(gx, x0, p0), fma(gx, y0, p1), fma(gx, z0, p2)
                    p3, p4, p5 = fma(gy, x0, p3), fma(gy, y0, p4), fma(gy, z0, p5)
                    p6, p7, p8 = fma(gz, x0, p6), fma(gz, y0, p7), fma(gz, z0, p8)
                # gradient of M by divided differences
                pull[0], pull[4], pull[8] = total(p0), total(p4), total(p8)
                pull[1] = pull[3] = 0.5 * (total(p1) + total(p3))
                pull[2] = pull[6] = 0.5 * (total(p2) + total(p6))
                pull[5] = pull[7] = 0.5 * (total(p5) + total(p7))
                divided_differences(root, eps, reference, slopes)
                scale_in_basis(basis, pull, slopes)
                for i in range(9):
                    pull[i] *= 2.0 / channels
                # gradient of the vectors, centred again
                for i in range(3):
                    shift[i] = whiten[i] * total(m0) + whiten[3 + i] * total(m1) + whiten[6 + i] * total(m2)
                    shift[i] /= channels
                for c in range(0, channels, lanes):
                    x0 = centred(vectors, start + c, mean[0])
                    y0 = centred(vectors, start + c + channels, mean[1])
                    z0 = centred(vectors, start + c + 2 * channels, mean[2])
                    scale = widen(load(weight, c, lanes))
                    gx = widen(load(grad, start + c, lanes)) * scale
                    gy = widen(load(grad, start + c + channels, lanes)) * scale
                    gz = widen(load(grad, start + c + 2 * channels, lanes)) * scale
                    for i in range(3):
                        value = row_of(whiten, i, gx, gy, gz) + row_of(pull, i, x0, y0, z0)
                        put(d_vectors, start + i * channels + c, value - splat(shift[i], lanes))

    return forward, backward


def whiten(vectors: Tensor, weight: Tensor, ridge: Tensor, eps: float, reference: bool) -> Tensor:
    """`plain_whitening` of float32 or float64 tensors on the CPU, vectors [N, 3, C] to [N, 3, C]."""
    result: Tensor = _Whitening.apply(vectors, weight, ridge, eps, reference)
    return result


def whiten_with_pullback(
    vectors: Tensor, weight: Tensor, ridge: Tensor, eps: float, reference: bool
) -> tuple[Tensor, Pullback]:
    """`whiten` without a graph, and the function from its gradient to those of vectors and weight."""
    atoms, _, channels = vectors.shape
    tasks = -(-atoms // ATOMS)
    common = (atoms, channels, eps, ridge.double(), reference)
    spectral = [torch.empty(atoms, n, dtype=torch.float64) for n in (3, 9, 3)]
    out = vectors.new_empty(vectors.shape)
    forward, backward = _kernels(vectors.dtype, lanes_of(channels))
    run(forward, tasks, *common, vectors, weight, out, *spectral)

    def pullback(grad: Tensor) -> tuple[Tensor, Tensor]:
        d_vectors = vectors.new_empty(vectors.shape)
        d_weight = torch.empty(tasks, channels, dtype=torch.float64)
        run(backward, tasks, *common, vectors, weight, grad, *spectral, d_vectors, d_weight)
        return d_vectors, d_weight.sum(0).to(weight)

    return out, pullback


class _Whitening(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, weight: Tensor, ridge: Tensor, eps: float, reference: bool
    ) -> Tensor:
        ctx.save_for_backward(vectors, weight)
        ctx.constants = {"ridge": ridge, "eps": eps, "reference": reference}
        out, ctx.pullback = whiten_with_pullback(vectors, weight, ridge, eps, reference)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # also where only the kernel uses them: it tells what was changed in place
        if torch.is_grad_enabled():
            function = partial(plain_whitening, **ctx.constants)
            return (*differentiable(function, inputs, (grad,)), None, None, None)
        return (*ctx.pullback(grad), None, None, None)
