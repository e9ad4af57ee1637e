"""Test of a fine-tuned run: errors of the property, figures of classes and, where trained on, of forces."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.store.schema import Metadata
from molspectra.data.store.store import Store
from molspectra.errors import NotFoundError
from molspectra.evaluation.csv_tables import read_table, write_table
from molspectra.evaluation.ensemble import MemberPredictions, predict_members
from molspectra.evaluation.metrics import THRESHOLD, ClassFigures, Errors, class_figures, errors
from molspectra.evaluation.predict import Predictions, predict_rows
from molspectra.evaluation.subject import Subject
from molspectra.evaluation.uncertainty import Calibration, calibration_report, uncertainties_of
from molspectra.training.config import FinetuneConfig
from molspectra.training.targets import PROBABILITY, classes_of

CHUNK = 4096
"""Rows whose forces are read in one go."""

COLUMNS = ("row", "identity")
"""First columns of `predictions.csv`; then come the computed and predicted values of each target, of a class
its label and its probability."""

INPUT_SPECTRA = "input_spectra"

OTHER_TASK = (
    "The model was given spectra of the molecules tested as input. That is another task than predicting from "
    "the structure alone; the errors must not be compared with those of such models."
)
FORCE_ERROR = "force_error"

Floats = npt.NDArray[np.float64]


def assess_property(subject: Subject, config: FinetuneConfig) -> dict[str, Any]:
    """Predict the part, write `predictions.csv`, and return errors with their units, or figures of classes.

    Of several targets, those of the first stand at the top, and those of each under "targets".
    """
    store, rows, members = subject.selection.store, subject.rows, None
    options: dict[str, Any] = {"batch_size": subject.batch_size, "forces": config.forces}
    if subject.others:
        models = (subject.model, *subject.others)
        members = predict_members(models, store, rows, config.targets, **options)
        predictions = members.mean
    else:
        predictions = predict_rows(subject.model, store, rows, config.targets, **options)
    classes = classes_of(config)
    by_target = {
        name: (_class_errors if name in classes else _target_errors)(
            subject, name, predictions.prediction[:, index], predictions.target[:, index]
        )
        for index, name in enumerate(config.targets)
    }
    uncertainties = None
    if members is not None:
        uncertainties = uncertainties_of(members.spreads, config.targets, subject.calibrations)
        for index, name in enumerate(config.targets):
            if name in subject.calibrations:
                by_target[name] |= _of_ensemble(subject.calibrations[name], members, index)
    first = config.targets[0]
    result: dict[str, Any] = {
        "target": first,
        **by_target[first],
        "training_molecules": subject.record["data"]["rows"]["train"],
    }
    if len(by_target) > 1:
        result["targets"] = by_target
    if predictions.spectra is not None:
        compare = class_figures if first in classes else errors
        result["spectrum_input"] = _by_spectra(predictions, subject.model.input_spectra, compare)
    force_errors = None
    if predictions.force_target is not None and predictions.force_prediction is not None:
        force_errors = _force_errors(
            predictions.force_prediction - predictions.force_target, store.atom_counts[rows]
        )
        known = ~np.isnan(predictions.force_target).any(1)
        force_targets = predictions.force_target[known]
        training = subject.training
        constant = None if training is None else force_constant(training.store, training.train)
        assert store.metadata.forces is not None
        result["forces"] = {
            **asdict(store.metadata.forces),
            **asdict(errors(predictions.force_prediction[known], force_targets)),
            "constant": constant,
            "median_predictor_mae": None
            if constant is None
            else float(np.abs(force_targets - constant).mean()),
        }
    path = subject.file("predictions", ".csv")
    write_predictions(path, predictions, store.metadata, force_errors, classes, uncertainties)
    return result


def _of_ensemble(calibration: Calibration, members: MemberPredictions, index: int) -> dict[str, Any]:
    """Return the mean absolute error of every member, and how the calibration fits, of one target."""
    computed = members.mean.target[:, index]
    known = ~np.isnan(computed)
    differences = members.mean.prediction[known, index] - computed[known]
    return {
        "mae_of_members": [
            float(np.abs(one[known, index] - computed[known]).mean()) for one in members.values
        ],
        "uncertainty": calibration_report(calibration, differences, members.spreads[known, index]),
    }


def _target_errors(subject: Subject, name: str, predicted: Floats, computed: Floats) -> dict[str, Any]:
    """Return unit, level and errors [n] of one target, over the molecules whose value is known.

    Raises:
        NotFoundError: it is known of none.
    """
    training, known = subject.training, _known(subject, name, computed)
    constant_mae = None
    if training is not None:
        # baseline without a model: the constant with the smallest absolute error on the training part
        median = np.nanmedian(training.store.column(name)[training.train])
        constant_mae = errors(np.full(known.sum(), median), computed[known]).mae
    store = subject.selection.store
    return {
        **asdict(store.metadata.properties[name]),
        **asdict(errors(predicted[known], computed[known])),
        "median_predictor_mae": constant_mae,
    }


def _class_errors(subject: Subject, name: str, probability: Floats, label: Floats) -> dict[str, Any]:
    """Return the figures [n] of one class, over the molecules with a label, and those of a constant.

    The constant is the base rate of the training part, the best probability without a model.

    Raises:
        NotFoundError: there is no label.
        ValueRangeError: one is neither 0 nor 1.
    """
    store, known = subject.selection.store, _known(subject, name, label)
    subject.selection.check_classes([name])
    training, base_rate = subject.training, None
    if training is not None:
        base_rate = float(np.nanmean(training.store.column(name)[training.train]))
    level = store.metadata.properties[name].level
    return class_result(probability[known], label[known], level, base_rate, subject.part)


def class_result(
    probability: Floats, label: Floats, level: str, base_rate: float | None, part: str
) -> dict[str, Any]:
    """Return the figures of probabilities [n] of a class against its labels [n], and those of a constant.

    Args:
        probability: that a label is 1.
        label: 0 or 1.
        level: of the labels.
        base_rate: share of ones in the training part, which is the constant; None where it is not known.
        part: what to call the labels where all are of one class.
    """
    figures = class_figures(probability, label)
    result = {
        "unit": PROBABILITY,
        "level": level,
        **asdict(figures),
        "threshold": THRESHOLD,
        "base_rate": figures.positive / figures.count,
        "training_base_rate": base_rate,
        "constant": None
        if base_rate is None
        else asdict(class_figures(np.full(figures.count, base_rate), label)),
    }
    if figures.positive in (0, figures.count):
        one = f"all {figures.count} labels of the {part} part are {int(figures.positive > 0)}"
        result["undefined"] = f"{one}: AUROC, AUPRC, balanced accuracy and F1 need both classes"
    return result


def _known(subject: Subject, name: str, computed: Floats) -> npt.NDArray[np.bool_]:
    """Return [n] which molecules have a value of a target; refuse a part without any."""
    known: npt.NDArray[np.bool_] = ~np.isnan(computed)
    if not known.any():
        store = subject.selection.store
        raise NotFoundError(f"{store.path}: no {name} in the {subject.part} part, nothing to compare with")
    return known


def _by_spectra(
    predictions: Predictions,
    modalities: tuple[str, ...],
    compare: Callable[[Floats, Floats], Errors | ClassFigures],
) -> dict[str, Any]:
    """Return the modalities given to the model as input, and the errors with and without them."""
    assert predictions.spectra is not None
    given = np.array([bool(names) for names in predictions.spectra])
    known = ~np.isnan(predictions.target[:, 0])
    result: dict[str, Any] = {"modalities": list(modalities), "task": OTHER_TASK}
    for name, chosen in (("with_spectra", given & known), ("without_spectra", ~given & known)):
        if chosen.any():
            first = predictions.prediction[chosen, 0], predictions.target[chosen, 0]
            result[name] = asdict(compare(*first))
    return result


def force_constant(store: Store, rows: npt.NDArray[np.int64]) -> float:
    """Return the constant with the smallest mean absolute error for all force components of the rows."""
    chunks = [
        store.batch(rows[start : start + CHUNK], targets=("forces",)).targets["forces"].numpy()
        for start in range(0, len(rows), CHUNK)
    ]
    return float(np.nanmedian(np.concatenate(chunks).astype(np.float64)))


def write_predictions(
    path: Path,
    predictions: Predictions,
    metadata: Metadata,
    force_errors: Floats | None = None,
    classes: Collection[str] = (),
    uncertainties: Floats | None = None,
) -> None:
    """Write a table with one row per molecule, atomically; numbers round-trip, missing ones are nan.

    Columns are named as in "computed gap [eV]", those of classes "label active" and "active [probability]";
    those of uncertainties [n, T] come after the others. Where spectra are an input of the model, the last
    column names those of the molecule.
    """
    header, columns = list(COLUMNS), []
    for index, name in enumerate(predictions.targets):
        unit = in_brackets(metadata.properties[name].unit)
        if name in classes:
            header += [f"label {name}", f"{name}{in_brackets(PROBABILITY)}"]
        else:
            header += [f"computed {name}{unit}", f"predicted {name}{unit}"]
        columns += [predictions.target[:, index], predictions.prediction[:, index]]
    if force_errors is not None:
        header.append(f"{FORCE_ERROR}{in_brackets(metadata.forces.unit if metadata.forces else '')}")
        columns.append(force_errors)
    if uncertainties is not None:
        for name, values in zip(predictions.targets, uncertainties.T, strict=True):
            header.append(f"uncertainty of {name}{in_brackets(metadata.properties[name].unit)}")
            columns.append(values)
    cells = [
        [int(row), identity, *(repr(float(value)) for value in values)]
        for row, identity, *values in zip(predictions.rows, predictions.identities, *columns, strict=True)
    ]
    if predictions.spectra is not None:
        header.append(INPUT_SPECTRA)
        cells = [[*row, "+".join(names)] for row, names in zip(cells, predictions.spectra, strict=True)]
    write_table(path, header, cells)


def errors_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the errors of every target, and of the forces, by name, from the result of `assess_property`."""
    found = dict(result.get("targets", {result["target"]: result}))
    return found | ({"forces": result["forces"]} if "forces" in result else {})


def in_brackets(unit: str) -> str:
    """Return what stands after a name in the head of a table, such as " [eV]"."""
    return f" [{unit}]" if unit else ""


def _force_errors(differences: Floats, atoms: npt.NDArray[np.int64]) -> Floats:
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
        name = next((name for name in rows[0] if name.startswith(FORCE_ERROR)), None) if rows else None
        return None if name is None else [float(row[name]) for row in rows]


def read_predictions(path: Path, target: int = 0) -> tuple[list[float], list[float]]:
    """Read computed and predicted values of a target from a `predictions.csv`, where both are known.

    Args:
        path: of the file.
        target: its place among the targets.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with read_table(path, "predictions") as rows:
        if not rows:
            return [], []
        place = len(COLUMNS) + 2 * target
        computed, predicted = list(rows[0])[place : place + 2]
        pairs = [(float(row[computed]), float(row[predicted])) for row in rows]
    known = [pair for pair in pairs if not math.isnan(pair[0])]
    return [pair[0] for pair in known], [pair[1] for pair in known]
