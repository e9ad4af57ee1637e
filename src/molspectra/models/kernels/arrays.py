"""Helpers of the models' kernels: the number of channels at once, and second derivatives by plain torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def lanes_of(channels: int) -> int:
    """Channels that a kernel works on at once: the largest power of two up to 16 that divides all."""
    return min(16, channels & -channels)


def differentiable(
    function: Callable[..., Any], inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients that are differentiable again, of the formula that a kernel computes; None where not needed.

    Args:
        function: the formula in plain torch, called with the inputs.
        inputs: the kernel's tensors, any shapes.
        gradients: of its results, in their shapes.
    """
    views = [tensor.view_as(tensor) for tensor in inputs]  # one input may depend on another
    needed = [view for view in views if view.requires_grad]
    input_gradients = iter(torch.autograd.grad(function(*views), needed, gradients, create_graph=True))
    return tuple(next(input_gradients) if view.requires_grad else None for view in views)
