"""Equivariant layer normalisation: vector channels whitened per atom (method, section 4).

M = v vᵀ/C + regulariser; v ← M^(-1/2) v. The inverse square root of the symmetric 3×3 matrix comes from an
eigen-solver; its derivative solves a Sylvester equation, which is well defined also where eigenvalues
coincide (an SVD's derivative is not), and is differentiable again, as forces need.

M^(-1/2) alone enlarges directions in which there is next to nothing by 1/√ε = 316, layer after layer: out of
the plane of a planar molecule, rounding grows to vectors of full size that differ between orientations. The
default therefore multiplies by 1 - ε·M⁻¹ as well, which is about 1 - ε/λ where v vᵀ/C has an eigenvalue λ
well above ε, and 0 where it has none; vectors that pass through zero do so smoothly.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from molspectra.compiled import fast

Regulariser = Literal["isotropic", "reference"]


class _Sylvester(torch.autograd.Function):
    """X with S X + X S = C, for S = U diag(s) Uᵀ positive definite; all [N, 3, 3], s [N, 3]."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, right: Tensor, basis: Tensor, values: Tensor) -> Tensor:
        inner = basis.mT @ right @ basis
        solution = basis @ (inner / (values.unsqueeze(-1) + values.unsqueeze(-2))) @ basis.mT
        ctx.save_for_backward(root, solution, basis, values)
        return solution

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        root, solution, basis, values = ctx.saved_tensors
        adjoint = _Sylvester.apply(root, grad, basis, values)
        return -(adjoint @ solution.mT + solution.mT @ adjoint), adjoint, None, None


class _InverseSquareRoot(torch.autograd.Function):
    """M^(-1/2) of symmetric positive definite matrices [N, 3, 3]."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        finite = matrix.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        # the solver raises where it meets NaN; of zeros comes NaN again, in the molecule it belongs to
        eigenvalues, basis = torch.linalg.eigh(matrix.masked_fill(~finite, 0.0))
        # next to a huge eigenvalue, rounding can turn a tiny one negative
        floor = eigenvalues[..., -1:] * torch.finfo(matrix.dtype).eps
        values = torch.maximum(eigenvalues, floor).sqrt()
        inverse: Tensor = (basis / values.unsqueeze(-2)) @ basis.mT
        ctx.save_for_backward(matrix, inverse, basis, values)
        return inverse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        matrix, inverse, basis, values = ctx.saved_tensors
        grad = 0.5 * (grad + grad.mT)
        # S = M^(1/2) obeys dS S + S dS = dM, and d(S⁻¹) = -S⁻¹ dS S⁻¹
        result: Tensor = _Sylvester.apply(matrix @ inverse, -(inverse @ grad @ inverse), basis, values)
        return result


def inverse_square_root(matrix: Tensor) -> Tensor:
    """M^(-1/2) of symmetric positive definite 3×3 matrices [N, 3, 3], differentiable to any order."""
    result: Tensor = _InverseSquareRoot.apply(matrix)
    return result


class VectorWhitening(nn.Module):
    """Centre vector features over channels, whiten them per atom in float64, scale by a learned weight.

    Args:
        channels: number of channels C.
        regulariser: "isotropic" is v ← (1 - ε·M⁻¹) M^(-1/2) v with M = v vᵀ/C + ε·1, equivariant to rounding;
            "reference" is v ← M^(-1/2) v with M = v vᵀ/C + ε·diag(1, 2, 3) + ε·1, the reference
            implementation's form, which breaks rotation equivariance slightly.
        eps: ε.
    """

    def __init__(self, channels: int, regulariser: Regulariser = "isotropic", eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.regulariser = regulariser
        self.eps = eps

    def forward(self, vectors: Tensor) -> Tensor:
        """Whiten [N, 3, C] vectors; returns the same shape and dtype."""
        reference = self.regulariser == "reference"
        diagonal = vectors.new_tensor([2.0, 3.0, 4.0] if reference else [1.0, 1.0, 1.0], dtype=torch.float64)
        ridge = torch.diag(diagonal) * self.eps
        if fast(vectors, self.weight):
            from molspectra.models.kernels.whitening import whiten

            return whiten(vectors, self.weight, ridge, self.eps, reference)
        return whitened(vectors, self.weight, ridge, self.eps, reference)


def whitened(vectors: Tensor, weight: Tensor, ridge: Tensor, eps: float, reference: bool) -> Tensor:
    """See `VectorWhitening`; `ridge` [3, 3] is what M has besides v vᵀ/C."""
    centred = (vectors - vectors.mean(-1, keepdim=True)).double()
    whiten = inverse_square_root(centred @ centred.mT / vectors.shape[-1] + ridge)
    if not reference:
        whiten = whiten - eps * (whiten @ whiten @ whiten)
    return (whiten @ centred).to(vectors.dtype) * weight
