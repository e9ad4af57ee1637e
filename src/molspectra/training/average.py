"""Exponential moving average of weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """θ̄ ← β θ̄ + (1 - β) θ with a warm-up of β: (1 + k)/(10 + k) in step k, at most `decay`.

    Buffers (batch-norm statistics) are not averaged: they are averages over the steps already.
    Nor are frozen weights, which have no steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [weights[name] for name in self.values], 1.0 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self.values

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averaged weights."""
        for name, value in self.values.items():
            value.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the averaged weights into the model for the duration of a block."""
        weights = dict(model.named_parameters())
        own = {name: weights[name].detach().clone() for name in self.values}
        try:
            _copy(model, self.values)
            yield
        finally:
            _copy(model, own)


@torch.no_grad()
def _copy(model: nn.Module, values: dict[str, Tensor]) -> None:
    weights = dict(model.named_parameters())
    for name, value in values.items():
        weights[name].copy_(value)
