"""Test of a fine-tuned run: errors of the property and, where learnt, of the forces."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.atomic import atomic_file
from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.metrics import errors
from molspectra.evaluation.predict import ForcePredictions, Predictions, predict_rows
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
    if predictions.spectra is not None:
        result["spectrum_input"] = _by_spectra(predictions, subject.model.input_spectra)
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
    write_predictions(subject.file("predictions", ".csv"), predictions, store.atom_counts[rows])
    return result


def _by_spectra(predictions: Predictions, modalities: tuple[str, ...]) -> dict[str, Any]:
    """What was given to the model besides structures, and the errors with and without it."""
    assert predictions.spectra is not None
    given = np.array([bool(names) for names in predictions.spectra])
    found: dict[str, Any] = {"modalities": list(modalities), "task": OTHER_TASK}
    for name, chosen in (("with_spectra", given), ("without_spectra", ~given)):
        if chosen.any():
            found[name] = asdict(errors(predictions.prediction[chosen], predictions.target[chosen]))
    return found


def force_constant(store: Store, rows: npt.NDArray[np.int64]) -> float:
    """The number with the smallest mean absolute error of all force components of the given rows."""
    parts = [
        store.batch(rows[start : start + CHUNK], targets=("forces",)).targets["forces"].numpy()
        for start in range(0, len(rows), CHUNK)
    ]
    return float(np.nanmedian(np.concatenate(parts).astype(np.float64)))


def write_predictions(
    path: Path, predictions: Predictions, atoms: npt.NDArray[np.int64] | None = None
) -> None:
    """Write a table with one line per molecule, atomically; numbers round-trip.

    Where spectra are an input of the model, the last column names those that were given.

    Args:
        path: of the table.
        predictions: of n molecules.
        atoms: [n] number of atoms; where there are forces, the table then has their mean absolute error.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [predictions.target, predictions.prediction]
    if predictions.forces is not None and atoms is not None:
        columns.append(force_errors(predictions.forces, atoms))
    header = (*COLUMNS, FORCE_ERROR)[: len(columns) + 2]
    given = predictions.spectra
    writer.writerow(header if given is None else (*header, INPUT_SPECTRA))
    rows = (predictions.rows, predictions.identities, *columns)
    for place, (row, identity, *values) in enumerate(zip(*rows, strict=True)):
        more = () if given is None else ("+".join(given[place]),)
        writer.writerow((int(row), identity, *(repr(float(value)) for value in values), *more))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def force_errors(forces: ForcePredictions, atoms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean absolute error of the force components of every molecule, [n]; NaN without computed forces.

    Args:
        forces: of all atoms, [N, 3].
        atoms: [n] number of atoms of every molecule, at least 1.
    """
    per_atom = np.abs(forces.prediction - forces.target).mean(1)
    starts = np.concatenate([[0], np.cumsum(atoms)[:-1]])
    errors_of: npt.NDArray[np.float64] = np.add.reduceat(per_atom, starts) / atoms
    return errors_of


def read_force_errors(path: Path) -> list[float] | None:
    """Mean absolute errors of the forces per molecule of a `predictions.csv`; None where it has none.

    Raises:
        InputError: the file is missing or damaged.
    """
    rows = _rows(path)
    if not rows or FORCE_ERROR not in rows[0]:
        return None
    with _damage(path):
        return [float(row[FORCE_ERROR]) for row in rows]


def read_predictions(path: Path) -> tuple[list[float], list[float]]:
    """Computed and predicted values of a `predictions.csv`.

    Raises:
        InputError: the file is missing or damaged.
    """
    rows = _rows(path)
    with _damage(path):
        return [float(row["computed"]) for row in rows], [float(row["predicted"]) for row in rows]


def _rows(path: Path) -> list[dict[str, str]]:
    with _damage(path), path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Name a table that is missing or damaged.

    Raises:
        InputError: in place of what goes wrong in the block.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of predictions ({error}); evaluate the run again") from error
