"""Errors of predictions against computed values, figures of classes, and mean and spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError, ValueRangeError
from molspectra.objectives.supervised import auroc

THRESHOLD = 0.5
"""Probability from which on a molecule counts as of class 1."""


Floats = npt.NDArray[np.float64]


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
    predicted, expected = _comparable(prediction, target)
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


@dataclass(frozen=True)
class ClassFigures:
    """How well n probabilities tell two classes apart; NaN, all four, where all labels are of one class.

    Attributes:
        count: number of labels.
        positive: those that are 1.
        auroc: area under the receiver operating characteristic, see `auroc`.
        auprc: area under the precision-recall curve as average precision, Σ_k (R_k - R_{k-1}) P_k with
            recall R_k and precision P_k of the molecules above the k-th largest distinct probability.
        balanced_accuracy: mean of the shares of ones and of zeros that are told right, at `THRESHOLD`.
        f1: 2 TP/(2 TP + FP + FN) of class 1, at `THRESHOLD`.
    """

    count: int
    positive: int
    auroc: float
    auprc: float
    balanced_accuracy: float
    f1: float


def class_figures(probability: npt.ArrayLike, label: npt.ArrayLike) -> ClassFigures:
    """Compute the figures of probabilities [n] of class 1 against labels [n] of 0 and 1.

    Raises:
        InputError: different shapes, nothing to compare, a value that is not finite, or another label.
    """
    score, labels = _comparable(probability, label)
    if not np.isin(labels, (0, 1)).all():
        raise ValueRangeError(f"labels of classes are 0 and 1, not {labels[~np.isin(labels, (0, 1))][0]:g}")
    is_one, said_one = labels == 1, score >= THRESHOLD
    ones, zeros = int(is_one.sum()), int((~is_one).sum())
    if not ones or not zeros:
        return ClassFigures(len(labels), ones, *[math.nan] * 4)
    true, false = int((is_one & said_one).sum()), int((~is_one & said_one).sum())
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = np.cumsum(is_one[order])[last_of_ties]
    return ClassFigures(
        count=len(labels),
        positive=ones,
        auroc=auroc(score, labels),
        auprc=float((np.diff(found, prepend=0) / ones * found / (last_of_ties + 1)).sum()),
        balanced_accuracy=(true / ones + 1 - false / zeros) / 2,
        f1=2 * true / (true + false + ones),
    )


def _comparable(prediction: npt.ArrayLike, target: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return predictions and targets in float64; refuse what cannot be compared."""
    predicted, expected = np.asarray(prediction, np.float64), np.asarray(target, np.float64)
    if predicted.shape != expected.shape:
        raise MismatchError(f"{predicted.shape} predictions cannot be compared with {expected.shape} targets")
    if not predicted.size:
        raise ValueRangeError("there are no predictions to compare")
    for name, values in (("prediction", predicted), ("target", expected)):
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueRangeError(f"{name} {first} of {values.size} is not a finite number")
    return predicted, expected


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1 in the denominator; NaN for a single value).

    Raises:
        ValueRangeError: no values.
    """
    if not len(values):
        raise ValueRangeError("the mean of no values is not defined")
    array = np.asarray(values, np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan
