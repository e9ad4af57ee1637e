"""Test of a fine-tuned run: errors of the property and, where learnt, of the forces."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.atomic import atomic_file
from molspectra.data.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.metrics import errors
from molspectra.evaluation.predict import Predictions, predict_rows
from molspectra.evaluation.subject import Subject
from molspectra.training.config import FinetuneConfig

CHUNK = 4096
"""Rows whose forces are read in one go."""

COLUMNS = ("row", "identity", "computed", "predicted")


def assess_property(subject: Subject, config: FinetuneConfig) -> dict[str, Any]:
    """Predict the part, write `predictions.csv`, and return the errors with their unit."""
    device = str(next(subject.model.parameters()).device)
    store, rows = subject.selection.store, subject.rows
    predictions = predict_rows(
        subject.model,
        store,
        rows,
        config.target,
        batch_size=subject.batch_size,
        forces=config.forces,
        device=device,
    )
    training = store.column(config.target)[subject.selection.train]
    plain = np.full(len(rows), np.median(training))
    result: dict[str, Any] = {
        "target": config.target,
        "unit": predictions.unit,
        "level": store.metadata.properties[config.target].level,
        **asdict(errors(predictions.prediction, predictions.target)),
        # what no model has to beat: the constant with the smallest absolute error on the training part
        "median_predictor_mae": errors(plain, predictions.target).mae,
        "training_molecules": subject.record["data"]["rows"]["train"],
    }
    if predictions.forces is not None:
        known = ~np.isnan(predictions.forces.target).any(1)
        found = errors(predictions.forces.prediction[known], predictions.forces.target[known])
        constant = force_constant(store, subject.selection.train)
        result["forces"] = {
            "unit": predictions.forces.unit,
            "level": store.metadata.forces.level if store.metadata.forces else "",
            **asdict(found),
            "constant": constant,
            "median_predictor_mae": float(np.abs(predictions.forces.target[known] - constant).mean()),
        }
    write_predictions(subject.file("predictions", ".csv"), predictions)
    return result


def force_constant(store: Store, rows: npt.NDArray[np.int64]) -> float:
    """The number with the smallest mean absolute error of all force components of the given rows."""
    parts = [
        store.batch(rows[start : start + CHUNK], targets=("forces",)).targets["forces"].numpy()
        for start in range(0, len(rows), CHUNK)
    ]
    return float(np.nanmedian(np.concatenate(parts).astype(np.float64)))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a table with one line per molecule, atomically; numbers round-trip."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = (predictions.rows, predictions.identities, predictions.target, predictions.prediction)
    for row, identity, target, prediction in zip(*rows, strict=True):
        writer.writerow((int(row), identity, repr(float(target)), repr(float(prediction))))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def read_predictions(path: Path) -> tuple[list[float], list[float]]:
    """Computed and predicted values of a `predictions.csv`.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [float(row["computed"]) for row in rows], [float(row["predicted"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of predictions ({error}); evaluate the run again") from error
