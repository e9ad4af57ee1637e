"""Symmetric 3×3 matrices inside kernels: eigenvectors, and derivatives of λ^(-1/2) - ε·λ^(-3/2).

Matrices are flat arrays of 9, row by row.
"""

from typing import Any

import numpy as np

from molspectra.compiled.simd import inline

SWEEPS = 12
"""Most sweeps of Jacobi's method, which needs 3 to 5; only NaN reaches the limit."""


@inline
def diagonalise(matrix: Any, basis: Any) -> Any:
    """Leave a positive definite matrix's eigenvalues on its diagonal, eigenvectors in the columns of `basis`.

    Jacobi's rotations keep small eigenvalues to relative accuracy (Demmel and Veselić, 1992).
    """
    for i in range(9):
        basis[i] = 1.0 if i % 4 == 0 else 0.0
    for _ in range(SWEEPS):
        done = True
        for p in range(2):
            for q in range(p + 1, 3):
                off = matrix[3 * p + q]
                if not abs(off) > 1e-17 * np.sqrt(abs(matrix[4 * p] * matrix[4 * q])):
                    continue
                done = False
                ratio = (matrix[4 * q] - matrix[4 * p]) / (2.0 * off)
                t = 1.0 / (abs(ratio) + np.sqrt(ratio * ratio + 1.0))
                if ratio < 0:
                    t = -t
                c = 1.0 / np.sqrt(t * t + 1.0)
                s, r = t * c, 3 - p - q
                matrix[4 * p] -= t * off
                matrix[4 * q] += t * off
                matrix[3 * p + q] = matrix[3 * q + p] = 0.0
                a, b = matrix[3 * r + p], matrix[3 * r + q]
                matrix[3 * r + p] = matrix[3 * p + r] = c * a - s * b
                matrix[3 * r + q] = matrix[3 * q + r] = s * a + c * b
                for k in range(0, 9, 3):
                    a, b = basis[k + p], basis[k + q]
                    basis[k + p], basis[k + q] = c * a - s * b, s * a + c * b
        if done:
            break


@inline
def divided_differences(roots: Any, eps: Any, plain: Any, out: Any) -> Any:
    """Divided differences [3, 3] of f(λ) = λ^(-1/2), less ε·λ^(-3/2) unless `plain`, at λ = roots²."""
    for i in range(3):
        for j in range(3):
            a, b = roots[i], roots[j]
            product = a * b
            value = -1.0 / (product * (a + b))
            if not plain:
                value += eps * (a * a + product + b * b) / (product * product * product * (a + b))
            out[3 * i + j] = value


@inline
def product(left: Any, right: Any, transpose_left: Any, transpose_right: Any, out: Any) -> Any:
    """The product of two matrices, either of them transposed first if asked to."""
    for i in range(3):
        for j in range(3):
            value = 0.0
            for k in range(3):
                a = left[3 * k + i] if transpose_left else left[3 * i + k]
                b = right[3 * j + k] if transpose_right else right[3 * k + j]
                value += a * b
            out[3 * i + j] = value


@inline
def scale_in_basis(basis: Any, matrix: Any, factors: Any) -> Any:
    """Replace a matrix A by U ((Uᵀ A U) ⊙ factors) Uᵀ."""
    half, inner = np.empty(9), np.empty(9)
    product(matrix, basis, False, False, half)
    product(basis, half, True, False, inner)
    for i in range(9):
        inner[i] *= factors[i]
    product(basis, inner, False, False, half)
    product(half, basis, False, True, matrix)
