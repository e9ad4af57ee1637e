"""Losses on properties and forces, and the smoothing of the energy loss used for MD17."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from molspectra.objectives.loss import Loss

ErrorKind = Literal["mse", "mae"]


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of the supervised losses."""

    error: ErrorKind = "mse"
    """Squared or absolute error."""
    standardised: bool = True
    """Divide errors by the training set's standard deviation, so that the loss has no unit; False is the
    reference implementation's loss in the property's unit."""


def regression_loss(
    prediction: Tensor, target: Tensor, scale: Tensor | float = 1.0, error: ErrorKind = "mse"
) -> Loss:
    """Squared ("mse") or absolute ("mae") error of (prediction - target)/scale; every element is an item.

    Args:
        prediction: any shape.
        target: the same shape; elements that are NaN (no label) are left out.
        scale: unit in which the error is counted.
        error: "mse" or "mae".

    Raises:
        ValueError: the shapes differ (broadcasting them would pair every prediction with every target).
    """
    if prediction.shape != target.shape:
        raise ValueError(f"predictions {tuple(prediction.shape)}, but targets {tuple(target.shape)}")
    known = ~torch.isnan(target)
    difference = torch.where(known, prediction - target, 0.0) / scale
    errors = difference.square() if error == "mse" else difference.abs()
    return Loss(errors.sum(), float(known.sum()))


class Smoothed(nn.Module):
    """Exponential smoothing of a loss: α·loss + (1 - α)·previous, with gradients of the new loss only.

    The first loss is its own previous value (its gradient is scaled by α from the start, as published).
    With α = 1 losses are returned unchanged.
    """

    value: Tensor

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("value", torch.tensor(float("nan")))

    def forward(self, loss: Tensor) -> Tensor:
        """Smooth a mean loss []."""
        if self.alpha >= 1.0:
            return loss
        previous = loss.detach() if bool(torch.isnan(self.value)) else self.value
        smoothed = self.alpha * loss + (1.0 - self.alpha) * previous
        self.value = smoothed.detach()
        return smoothed
