"""Errors of predictions against computed values, and their mean and spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError, ValueRangeError


@dataclass(frozen=True)
class Errors:
    """Errors of n predictions, in the unit of the values.

    Attributes:
        count: number of values compared.
        mae: mean absolute error.
        rmse: root of the mean squared error.
        bias: mean of prediction - target.
        largest: largest absolute error.
        r2: coefficient of determination 1 - Σ(p - t)² / Σ(t - t̄)²; NaN where all targets are equal.
    """

    count: int
    mae: float
    rmse: float
    bias: float
    largest: float
    r2: float


def errors(prediction: npt.ArrayLike, target: npt.ArrayLike) -> Errors:
    """Compute errors of predictions against targets of the same (any) shape, in float64.

    Raises:
        InputError: different shapes, nothing to compare, or a value that is not finite.
    """
    predicted, expected = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if predicted.shape != expected.shape:
        raise MismatchError(f"{predicted.shape} predictions cannot be compared with {expected.shape} targets")
    if not predicted.size:
        raise ValueRangeError("there are no predictions to compare")
    for name, values in (("prediction", predicted), ("target", expected)):
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueRangeError(f"{name} {first} of {values.size} is not a finite number")
    difference = predicted - expected
    spread = float(np.square(expected - expected.mean()).sum())
    squared = float(np.square(difference).sum())
    return Errors(
        count=predicted.size,
        mae=float(np.abs(difference).mean()),
        rmse=math.sqrt(squared / predicted.size),
        bias=float(difference.mean()),
        largest=float(np.abs(difference).max()),
        r2=1.0 - squared / spread if spread > 0 else math.nan,
    )


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1 in the denominator; NaN for a single value).

    Raises:
        ValueRangeError: no values.
    """
    if not len(values):
        raise ValueRangeError("the mean of no values is not defined")
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan
