"""The feed-forward part of a transformer layer, Linear(GELU(Linear(x))), without stored hidden features.

On the CPU rows pass in chunks whose hidden features stay in the cache, and backward computes them again: no
slower than reading them back from memory, and the largest part of what a layer would store.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.compiled import kernels
from molspectra.models.kernels.arrays import differentiable

ROWS = 2048
"""Rows of a chunk."""


class FeedForward(nn.Sequential):
    """x [..., d] to [..., d] through `hidden` features."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every row."""
        whole = x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or kernels() == "plain"
        if whole:
            result: Tensor = super().forward(x)
            return result
        first, _, last = self
        rows = x.reshape(-1, x.shape[-1])
        result = _Chunks.apply(rows, first.weight, first.bias, last.weight, last.bias)
        return result.view_as(x)


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, last: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias, last, shift)
        result = torch.empty_like(x)
        for rows, out in zip(x.split(ROWS), result.split(ROWS), strict=True):
            torch.addmm(shift, F.gelu(torch.addmm(bias, rows, weight.T)), last.T, out=out)
        return result

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # for second derivatives
            return differentiable(_plain, ctx.saved_tensors, [slope])
        x, weight, bias, last, _ = ctx.saved_tensors
        back, slopes = torch.empty_like(x), [torch.zeros_like(each) for each in ctx.saved_tensors[1:]]
        for rows, out, after in zip(x.split(ROWS), back.split(ROWS), slope.split(ROWS), strict=True):
            hidden = torch.addmm(bias, rows, weight.T)
            slopes[2].addmm_(after.T, F.gelu(hidden))
            before = torch.ops.aten.gelu_backward(torch.mm(after, last), hidden)
            torch.mm(before, weight, out=out)
            slopes[0].addmm_(before.T, rows)
            slopes[1] += before.sum(0)
            slopes[3] += after.sum(0)
        return back, *slopes


def _plain(x: Tensor, weight: Tensor, bias: Tensor, last: Tensor, shift: Tensor) -> Tensor:
    """The same in one go, which can be differentiated again."""
    return F.linear(F.gelu(F.linear(x, weight, bias)), last, shift)
