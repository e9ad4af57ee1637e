"""What the models' kernels share: how many channels at once, and the gradient of a gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def lanes_of(channels: int) -> int:
    """Channels that a kernel works on at once: up to 16, a power of two that divides them."""
    return min(16, channels & -channels)


def differentiable(
    function: Callable[..., Any], inputs: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of a kernel's plain twin that have gradients themselves; None where none is needed.

    Args:
        function: plain torch, called with the inputs.
        inputs: what the kernel was called with.
        gradients: of its results.
    """
    apart = [each.view_as(each) for each in inputs]  # one input may have come from another
    needed = [each for each in apart if each.requires_grad]
    found = iter(torch.autograd.grad(function(*apart), needed, gradients, create_graph=True))
    return tuple(next(found) if each.requires_grad else None for each in apart)
