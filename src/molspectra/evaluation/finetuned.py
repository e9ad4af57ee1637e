"""Test of a fine-tuned run: errors of the property and, where trained on, of the forces."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.store.store import Store
from molspectra.evaluation.csv_tables import read_table, write_table
from molspectra.evaluation.metrics import errors
from molspectra.evaluation.predict import Predictions, predict_rows
from molspectra.evaluation.subject import Subject
from molspectra.training.config import FinetuneConfig

CHUNK = 4096
"""Rows whose forces are read in one go."""

COLUMNS = ("row", "identity", "computed", "predicted")
INPUT_SPECTRA = "input_spectra"

OTHER_TASK = (
    "The model was given spectra of the molecules tested as input. That is another task than predicting from "
    "the structure alone; the errors must not be compared with those of such models."
)
FORCE_ERROR = "force_error"


def assess_property(subject: Subject, config: FinetuneConfig) -> dict[str, Any]:
    """Predict the part, write `predictions.csv`, and return the errors with their unit."""
    store, rows = subject.selection.store, subject.rows
    predictions = predict_rows(
        subject.model, store, rows, config.target, batch_size=subject.batch_size, forces=config.forces
    )
    quantity = store.metadata.properties[config.target]
    training = store.column(config.target)[subject.selection.train]
    result: dict[str, Any] = {
        "target": config.target,
        "unit": quantity.unit,
        "level": quantity.level,
        **asdict(errors(predictions.prediction, predictions.target)),
        # baseline without a model: the constant with the smallest absolute error on the training part
        "median_predictor_mae": errors(np.full(len(rows), np.median(training)), predictions.target).mae,
        "training_molecules": subject.record["data"]["rows"]["train"],
    }
    if predictions.spectra is not None:
        result["spectrum_input"] = _by_spectra(predictions, subject.model.input_spectra)
    force_errors = None
    if predictions.force_target is not None and predictions.force_prediction is not None:
        force_errors = _force_errors(
            predictions.force_prediction - predictions.force_target, store.atom_counts[rows]
        )
        known = ~np.isnan(predictions.force_target).any(1)
        force_targets = predictions.force_target[known]
        constant = force_constant(store, subject.selection.train)
        assert store.metadata.forces is not None
        result["forces"] = {
            **asdict(store.metadata.forces),
            **asdict(errors(predictions.force_prediction[known], force_targets)),
            "constant": constant,
            "median_predictor_mae": float(np.abs(force_targets - constant).mean()),
        }
    write_predictions(subject.file("predictions", ".csv"), predictions, force_errors)
    return result


def _by_spectra(predictions: Predictions, modalities: tuple[str, ...]) -> dict[str, Any]:
    """Return the modalities given to the model as input, and the errors with and without them."""
    assert predictions.spectra is not None
    given = np.array([bool(names) for names in predictions.spectra])
    result: dict[str, Any] = {"modalities": list(modalities), "task": OTHER_TASK}
    for name, chosen in (("with_spectra", given), ("without_spectra", ~given)):
        if chosen.any():
            result[name] = asdict(errors(predictions.prediction[chosen], predictions.target[chosen]))
    return result


def force_constant(store: Store, rows: npt.NDArray[np.int64]) -> float:
    """Return the constant with the smallest mean absolute error for all force components of the rows."""
    chunks = [
        store.batch(rows[start : start + CHUNK], targets=("forces",)).targets["forces"].numpy()
        for start in range(0, len(rows), CHUNK)
    ]
    return float(np.nanmedian(np.concatenate(chunks).astype(np.float64)))


def write_predictions(
    path: Path, predictions: Predictions, force_errors: npt.NDArray[np.float64] | None = None
) -> None:
    """Write a table with one row per molecule, atomically; numbers round-trip.

    Where spectra are an input of the model, the last column names those of the molecule.
    """
    columns = [predictions.target, predictions.prediction]
    if force_errors is not None:
        columns.append(force_errors)
    header = (*COLUMNS, FORCE_ERROR)[: len(columns) + 2]
    cells = [
        [int(row), identity, *(repr(float(value)) for value in values)]
        for row, identity, *values in zip(predictions.rows, predictions.identities, *columns, strict=True)
    ]
    if predictions.spectra is not None:
        header = (*header, INPUT_SPECTRA)
        cells = [[*row, "+".join(names)] for row, names in zip(cells, predictions.spectra, strict=True)]
    write_table(path, header, cells)


def _force_errors(
    differences: npt.NDArray[np.float64], atoms: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Compute the mean absolute error of the force components of every molecule, [n]; NaN without targets.

    Args:
        differences: prediction - target of all N atoms, [N, 3].
        atoms: [n] number of atoms of every molecule, at least 1.
    """
    starts = np.concatenate([[0], np.cumsum(atoms)[:-1]])
    per_molecule: npt.NDArray[np.float64] = np.add.reduceat(np.abs(differences).mean(1), starts) / atoms
    return per_molecule


def read_force_errors(path: Path) -> list[float] | None:
    """Read the mean absolute errors of the forces per molecule from a `predictions.csv`; None without them.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with read_table(path, "predictions") as rows:
        if not rows or FORCE_ERROR not in rows[0]:
            return None
        return [float(row[FORCE_ERROR]) for row in rows]


def read_predictions(path: Path) -> tuple[list[float], list[float]]:
    """Read computed and predicted values from a `predictions.csv`.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with read_table(path, "predictions") as rows:
        return [float(row["computed"]) for row in rows], [float(row["predicted"]) for row in rows]
