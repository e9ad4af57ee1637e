"""Probes: what linear models and nearest neighbours read of a property from frozen embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import MissingExtraError, ValueRangeError
from molspectra.evaluation.metrics import class_figures, errors

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

PROBES = ("linear", "neighbours")
"""Ridge regression (logistic regression for a class), and the mean of the k nearest neighbours."""

STRENGTHS = tuple(10.0**power for power in range(-6, 6))
"""Regularisations of the ridge regression that are tried; of the logistic regression the inverse."""

NEIGHBOURS = (1, 2, 3, 5, 10, 20)
"""Numbers of neighbours that are tried."""

FOLDS = 5
LEAST = 10
"""Labelled molecules that a probe is fitted to at least."""


def probe(
    fitted: Floats,
    values: Floats,
    groups: Sequence[str],
    tested: Floats,
    truth: Floats,
    *,
    is_class: bool = False,
) -> dict[str, Any]:
    """Fit both probes to the embeddings of some molecules and test them on those of others.

    Features are standardised by the molecules fitted to. The regularisation and the number of neighbours are
    chosen by cross-validation among these, structures of one molecule in one fold.

    Args:
        fitted: [n, D] embeddings.
        values: [n] of the property, or labels 0 and 1.
        groups: [n] molecules that the structures are of.
        tested: [m, D] embeddings of other molecules.
        truth: [m] values of theirs.
        is_class: whether values are labels; the probes then tell probabilities.

    Returns:
        By probe, the errors (`Errors`) or figures (`ClassFigures`), and what was chosen.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        ValueRangeError: too few molecules, or labels of one class.
    """
    try:
        from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedGroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtraError(
            "probes need scikit-learn, which is not installed; pip install 'molspectra[sklearn]'"
        ) from error
    molecules = len(set(groups))
    if molecules < LEAST or not len(truth):
        raise ValueRangeError(f"{molecules} labelled molecules to fit a probe to, {len(truth)} to test it on")
    smallest = min(np.unique(values, return_counts=True)[1]) if is_class else molecules
    if is_class and (len(np.unique(values)) < 2 or smallest < FOLDS):
        raise ValueRangeError(f"fewer than {FOLDS} labels of one class to fit a probe to")
    folds = (StratifiedGroupKFold if is_class else GroupKFold)(FOLDS)
    splits = list(folds.split(fitted, values, groups))
    if is_class and any(len(np.unique(values[train])) < 2 for train, _ in splits):
        raise ValueRangeError("too few molecules of one class to fit a probe to")
    scoring = "neg_brier_score" if is_class else "neg_mean_absolute_error"
    fewest = min(len(train) for train, _ in splits)
    found: dict[str, Any] = {}
    for name in PROBES:
        model, choices = _model(name, fewest, is_class)
        parameter = next(iter(choices))
        search = GridSearchCV(
            make_pipeline(StandardScaler(), model),
            {f"{type(model).__name__.lower()}__{parameter}": choices[parameter]},
            scoring=scoring,
            cv=splits,
        )
        search.fit(fitted, values)
        predicted = search.predict_proba(tested)[:, 1] if is_class else search.predict(tested)
        figures = class_figures(predicted, truth) if is_class else errors(predicted, truth)
        found[name] = {**vars(figures), parameter: next(iter(search.best_params_.values()))}
    return found


def _model(name: str, fewest: int, is_class: bool) -> tuple[Any, Mapping[str, Sequence[float]]]:
    """Return a probe and the values to choose from, by the name of its parameter."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if name == "neighbours":
        counts = [count for count in NEIGHBOURS if count <= fewest]
        return (KNeighborsClassifier if is_class else KNeighborsRegressor)(), {"n_neighbors": counts}
    if is_class:
        return LogisticRegression(max_iter=2000), {"C": [1 / strength for strength in STRENGTHS[4:]]}
    return Ridge(), {"alpha": STRENGTHS}


def constant(values: Floats, truth: Floats, *, is_class: bool = False) -> dict[str, Any]:
    """Figures of the best constant: the median [values] of a property, the share of ones of a class."""
    if is_class:
        return vars(class_figures(np.full(len(truth), values.mean()), truth))
    return vars(errors(np.full(len(truth), np.median(values)), truth)) | {"value": float(np.median(values))}


def is_labels(values: Floats) -> bool:
    """Whether a column holds labels of two classes: 0 and 1 and nothing else, NaN left out."""
    known = values[np.isfinite(values)]
    return set(np.unique(known)) == {0.0, 1.0}


def probe_column(
    features: Mapping[str, Floats], column: Floats, groups: Sequence[str], fit: Flags, test: Flags
) -> dict[str, Any]:
    """Probe a column of a store by several kinds of features.

    Args:
        features: [rows, D] of the rows probed, by name.
        column: [rows] values, NaN where there is none.
        groups: [rows] molecules.
        fit: [rows] bool, those to fit to.
        test: [rows] bool, those to test on.

    Raises:
        InputError: as in `probe`.
    """
    known, is_class = np.isfinite(column), is_labels(column)
    train, held_out = np.flatnonzero(known & fit), np.flatnonzero(known & test)
    names = [groups[row] for row in train.tolist()]
    values, truth = column[train], column[held_out]
    probes = {
        name: probe(each[train], values, names, each[held_out], truth, is_class=is_class)
        for name, each in features.items()
    }
    return {
        "class": is_class,
        "fitted": len(train),
        "tested": len(held_out),
        "constant": constant(values, truth, is_class=is_class),
        "probes": probes,
    }
