"""Fused residual attention on the CPU (extra `fast`), equal to `plain_attention` up to rounding.

Nothing of the size of the scores is stored; gradients are written out. Shapes: B molecules, H heads, T
tokens, d width of all heads together.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from molspectra.compiled import threads
from molspectra.models.formulas import plain_attention
from molspectra.models.kernels.arrays import differentiable
from molspectra.models.kernels.attention_loops import attend, attend_backward


def fused_attention(parts: Sequence[Tensor], heads: int, scale: float, visible: Tensor | None) -> Tensor:
    """`residual_attention` of float32 or float64 tensors on the CPU.

    Args:
        parts: [B, T, d] queries of all layers, then their keys, then the value.
        heads: number of heads H.
        scale: factor of the scores.
        visible: [B, T] bool, tokens that are attended to; None for all.

    Returns:
        [B, T, d].

    Raises:
        ValueError: shapes that do not fit.
    """
    molecules, tokens, width = parts[-1].shape
    fits = visible is None or visible.shape == (molecules, tokens)
    if width % heads or not fits or any(part.shape != parts[-1].shape for part in parts):
        raise ValueError(f"attention with {heads} heads over {[tuple(part.shape) for part in parts]}")
    result: Tensor = _Attention.apply(heads, scale, visible, *parts)
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: int, scale: float, visible: Tensor | None, *parts: Tensor) -> Tensor:
        molecules, tokens, width = parts[-1].shape
        attended, levels = parts[-1].new_empty(parts[-1].shape), parts[-1].new_empty(molecules, heads, tokens)
        sizes = (len(parts) // 2, tokens, heads, width // heads, scale, _visible_array(visible))
        rows, stride = _with_one_stride(parts)
        results = attended.view(-1).numpy(), levels.view(-1).numpy()
        threads.run(attend, molecules * heads, _addresses(rows), stride, *sizes, *results)
        ctx.save_for_backward(*parts, attended, levels, visible)
        ctx.settings = heads, scale
        return attended

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *parts, attended, levels, visible = ctx.saved_tensors
        heads, scale = ctx.settings
        if torch.is_grad_enabled():  # for second derivatives
            with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention has none
                return None, None, None, *differentiable(_plain(heads, scale, visible), parts, [grad])
        molecules, tokens, width = grad.shape
        new = grad.new_empty if visible is None else grad.new_zeros
        d_parts = [new(grad.shape) for _ in parts]
        rows, stride = _with_one_stride(parts)
        sizes = (len(rows) // 2, tokens, heads, width // heads, scale, _visible_array(visible))
        arrays = (tensor.contiguous().view(-1).numpy() for tensor in (attended, grad, levels))
        addresses = (_addresses(rows), stride, _addresses(d_parts))
        threads.run(attend_backward, molecules * heads, *addresses, *sizes, *arrays)
        return None, None, None, *d_parts


def _plain(heads: int, scale: float, visible: Tensor | None) -> Callable[..., Tensor]:
    """`plain_attention` as a function of the parts [B, T, d], one after the other."""

    def function(*parts: Tensor) -> Tensor:
        layers = len(parts) // 2
        return plain_attention(parts[:layers], parts[layers:-1], parts[-1], heads, scale, visible)

    return function


def _with_one_stride(parts: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    """Parts [B, T, d] whose rows have one stride, and that stride; contiguous copies where strides differ."""
    tokens = parts[0].shape[1]
    stride = parts[0].stride(1)
    if all(part.stride() == (tokens * stride, stride, 1) for part in parts):
        return list(parts), stride
    copies = [part.contiguous() for part in parts]
    return copies, copies[0].shape[2]


def _addresses(tensors: Sequence[Tensor]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


def _visible_array(visible: Tensor | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """`visible` [B, T] as an array; [0, 0] for None."""
    return np.zeros((0, 0), dtype=np.bool_) if visible is None else visible.contiguous().numpy()
