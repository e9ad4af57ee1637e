"""Formulas in plain torch below the modules that use them and the compiled kernels that repeat them.

- residual attention (method, section 3), repeated by `kernels.attention`;
- whitening of vector features (method, section 4), repeated by `kernels.whitening`;
- the node update of the equivariant transformer, repeated by `kernels.update`;
- radial functions of a distance, evaluated for all kernels by `kernels.pairs`.

All are differentiable to any order; the kernels of attention and whitening take their second derivatives from
here. The modules above decide between formula and kernel; kernels never import those modules.

Shapes: B molecules, H heads, T tokens, d token width, N atoms, C channels, Q pairs, K radial functions.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Residual attention


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """Split tokens [B, T, d] into heads [B, H, T, d/H]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def plain_attention(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    value: Tensor,
    heads: int,
    scale: float,
    visible: Tensor | None = None,
) -> Tensor:
    """softmax_j(scale·Σ_m q_m,i·k_m,j)·v_j per head, [B, T, d]; arguments as in `residual_attention`."""
    query, key = (
        torch.cat([split_heads(layer, heads) for layer in layers], -1) for layers in (queries, keys)
    )
    values = split_heads(value, heads)
    width = values.shape[-1]
    attended = F.scaled_dot_product_attention(
        query,
        key,
        F.pad(values, (0, query.shape[-1] - width)),  # fused kernels want one width for all three
        attn_mask=None if visible is None else visible[:, None, None, :],
        scale=scale,
    )[..., :width]
    return attended.transpose(1, 2).flatten(-2)


# Whitening


def diagonalised(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [N, 3], in no order, and eigenvectors [N, 3, 3] (columns) of symmetric 3×3 matrices.

    In closed form (Eberly, "A robust eigensolver for 3×3 symmetric matrices", 2014): the eigenvalue that is
    farther from the middle one by the trigonometric formula, its vector as a cross product, and in the plane
    normal to it one rotation. The error is that of `torch.linalg.eigh`, rounding of the largest eigenvalue;
    unlike there no GPU is waited for.
    """
    tiny = torch.finfo(matrix.dtype).tiny
    one = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    offset = matrix - matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * one
    size = (offset.square().mean((-2, -1)) * 1.5).sqrt()[:, None, None]
    # the eigenvalues are 2 cos(φ + 2πk/3) of this, with 2 cos 3φ its determinant
    scaled = offset / size.clamp(min=tiny)
    first, second, third = scaled.unbind(-2)
    half = 0.5 * (torch.linalg.cross(first, second) * third).sum(-1)
    angle = torch.acos(half.clamp(-1.0, 1.0)) / 3.0
    apart = 2.0 * torch.cos(torch.where(half >= 0, angle, angle + math.tau / 3))
    rest = scaled - apart[:, None, None] * one
    normals = torch.linalg.cross(rest, rest.roll(-1, -2))
    longest = normals.square().sum(-1).argmax(-1)[:, None, None].expand(-1, 1, 3)
    axis = _unit(normals.gather(1, longest).squeeze(1), one[0])
    # two more that make a basis, then the rotation of these two that leaves nothing beside the diagonal
    helper = one[axis.abs().argmin(-1)]
    u = _unit(torch.linalg.cross(axis, helper), one[1])
    w = torch.linalg.cross(axis, u)
    plane = torch.stack([u, w], dim=-1)
    block = plane.mT @ offset @ plane
    turn = 0.5 * torch.atan2(2.0 * block[:, 0, 1], block[:, 0, 0] - block[:, 1, 1]).unsqueeze(-1)
    cosine, sine = turn.cos(), turn.sin()
    basis = torch.stack([axis, cosine * u + sine * w, cosine * w - sine * u], dim=-1)
    return ((matrix @ basis) * basis).sum(-2), basis


def _unit(vectors: Tensor, default: Tensor) -> Tensor:
    """Unit vectors [N, 3] along vectors [N, 3]; `default` [3] for those of no length."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return torch.where(length > 0, vectors / length.clamp(min=torch.finfo(vectors.dtype).tiny), default)


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
        # rows of zeros become NaN again below, in their own molecule only
        eigenvalues, basis = diagonalised(matrix.masked_fill(~finite, 0.0))
        # next to a huge eigenvalue, rounding can turn a tiny one negative
        floor = eigenvalues.amax(-1, keepdim=True) * torch.finfo(matrix.dtype).eps
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
    """M^(-1/2) of symmetric positive definite 3×3 matrices [N, 3, 3], differentiable to any order.

    Its derivative solves a Sylvester equation, which is well defined also where eigenvalues coincide (the
    derivative of an SVD is not), and is differentiable again, as forces need.
    """
    result: Tensor = _InverseSquareRoot.apply(matrix)
    return result


def plain_whitening(vectors: Tensor, weight: Tensor, ridge: Tensor, eps: float, reference: bool) -> Tensor:
    """Whiten vectors [N, 3, C] over their channels, see `VectorWhitening`; same shape and dtype.

    Args:
        vectors: v [N, 3, C].
        weight: [C] factor per channel.
        ridge: [3, 3] float64, the regulariser added to v vᵀ/C.
        eps: ε.
        reference: leave out the factor 1 - ε·M⁻¹.
    """
    centred = (vectors - vectors.mean(-1, keepdim=True)).double()
    whiten = inverse_square_root(centred @ centred.mT / vectors.shape[-1] + ridge)
    if not reference:
        whiten = whiten - eps * (whiten @ whiten @ whiten)
    return (whiten @ centred).to(vectors.dtype) * weight


# Node update


def plain_update(
    scalars: Tensor, vectors: Tensor, mixed: Tensor, output: Tensor, summed: Tensor
) -> tuple[Tensor, Tensor]:
    """Return x + (v₁·v₂) ⊙ o₂ + o₃ [N, C] and v + v₃ ⊙ o₁ + summed [N, 3, C], an attention layer's result.

    Args:
        scalars: x [N, C].
        vectors: v [N, 3, C].
        mixed: v₁, v₂, v₃ [N, 3, 3C].
        output: o₁, o₂, o₃ [N, 3C].
        summed: [N, 3, C] sums of the vector messages.
    """
    first, second, third = mixed.chunk(3, dim=-1)
    o1, o2, o3 = output.chunk(3, dim=-1)
    return scalars + ((first * second).sum(1) * o2 + o3), vectors + (third * o1.unsqueeze(1) + summed)


# Radial functions


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
