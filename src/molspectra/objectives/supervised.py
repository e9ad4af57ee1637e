"""Losses on properties, classes and forces, and the smoothing of the energy loss used for MD17."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from molspectra.objectives.config import ErrorKind
from molspectra.objectives.config import SupervisedConfig as SupervisedConfig
from molspectra.objectives.loss import Loss


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
    return Loss(errors.sum(), known.sum())


def class_loss(logit: Tensor, label: Tensor) -> Loss:
    """Cross-entropy -y ln P - (1 - y) ln(1 - P) of P = 1/(1 + exp(-logit)); every element is an item.

    Args:
        logit: any shape.
        label: y of the same shape, 0 or 1; elements that are NaN (no label) are left out.

    Raises:
        ValueError: the shapes differ.
    """
    if logit.shape != label.shape:
        raise ValueError(f"logits {tuple(logit.shape)}, but labels {tuple(label.shape)}")
    known = ~torch.isnan(label)
    entropy = binary_cross_entropy_with_logits(logit, torch.where(known, label, 0.0), reduction="none")
    return Loss(torch.where(known, entropy, 0.0).sum(), known.sum())


def auroc(score: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Area under the receiver operating characteristic: how often a 1 scores above a 0; ties count half.

    Args:
        score: [n] any increasing function of the probability of class 1.
        label: [n] of 0 and 1.

    Returns:
        U/(n₁ n₀) with the U of Mann and Whitney (Ann. Math. Stat. 18, 50, 1947); NaN where one class lacks.
    """
    from scipy.stats import rankdata

    is_one = np.asarray(label) == 1
    ones, zeros = int(is_one.sum()), int((~is_one).sum())
    if not ones or not zeros:
        return math.nan
    ranks = rankdata(np.asarray(score, np.float64))
    return float((ranks[is_one].sum() - ones * (ones + 1) / 2) / (ones * zeros))


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
