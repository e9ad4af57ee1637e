"""Predictors of a property or class that learn from fixed descriptors alone: what a network has to beat."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.identity import parsed_smiles, perceived_bonds
from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Store
from molspectra.errors import FormatError, MissingExtraError, SettingError
from molspectra.evaluation.ensemble import is_ensemble, read_ensemble
from molspectra.evaluation.finetuned import class_result, write_predictions
from molspectra.evaluation.metrics import errors
from molspectra.evaluation.predict import Predictions
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.record import commit, machine, read_run, versions, write_json
from molspectra.training.settings import to_dict
from molspectra.training.targets import classes_of, resolved

Floats = npt.NDArray[np.float64]

LARGEST = 1e6
"""Descriptors are cut to this size: a few of RDKit's grow without bound."""

RADIUS, BITS = 2, 2048
"""Bonds around an atom that a Morgan fingerprint sees, and its length."""


def rdkit_descriptors(molecules: list[Molecule]) -> Floats:
    """Two-dimensional descriptors of RDKit, [n, about 217]; NaN where one is not defined."""
    from rdkit.Chem.Descriptors import CalcMolDescriptors

    rows = [list(CalcMolDescriptors(_graph(one), missingVal=np.nan).values()) for one in molecules]
    return np.clip(np.array(rows, dtype=np.float64), -LARGEST, LARGEST)


def morgan_fingerprints(molecules: list[Molecule]) -> Floats:
    """Counts of Morgan environments of up to two bonds, [n, 2048]."""
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    rows = [generator.GetCountFingerprintAsNumPy(_graph(one)) for one in molecules]
    return np.array(rows, dtype=np.float64)


def _graph(molecule: Molecule) -> Any:
    """The RDKit molecule without hydrogens, from SMILES or geometry; empty if neither gives one.

    Raises:
        ValueRangeError: it has too many rings.
    """
    from rdkit import Chem

    smiles = molecule.smiles
    if smiles is None and (mol := perceived_bonds(molecule)) is not None:
        smiles = Chem.MolToSmiles(mol)
    try:
        return parsed_smiles(smiles or "")
    except FormatError:
        return Chem.Mol()


def _boosting_of_classes(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=500, learning_rate=0.05, random_state=seed)


def _forest_of_classes(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=300, n_jobs=1, random_state=seed)


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=500, learning_rate=0.05, random_state=seed
    )


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=300, max_features=0.33, n_jobs=1, random_state=seed)


class Floor(NamedTuple):
    """Descriptors of molecules, and what learns a property or a class from them, by its seed."""

    describe: Callable[[list[Molecule]], Floats]
    regressor: Callable[[int], Any]
    classifier: Callable[[int], Any]


FLOORS: Mapping[str, Floor] = {
    "descriptors": Floor(rdkit_descriptors, _boosting, _boosting_of_classes),
    "fingerprints": Floor(morgan_fingerprints, _forest, _forest_of_classes),
}
"""Floors by name."""


def assess_floors(
    run: str | Path, out: str | Path, store: str | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Fit every floor to every target of a fine-tuned run or ensemble, and test it on the run's test part.

    Args:
        run: its directory.
        out: directory in which `floors` gets the files, see `assess_floor`.
        store: another path of the run's store.

    Returns:
        Results by floor and target.

    Raises:
        SettingError: a run that was not fine-tuned.
        InputError: as in `assess_floor`.
    """
    first = read_ensemble(run).members[0] if is_ensemble(run) else Path(run)
    config, _ = read_run(first)
    if not isinstance(config, FinetuneConfig):
        raise SettingError(f"{run}: floors are compared with fine-tuned runs, and this one is pre-trained")
    if store is not None:
        config = replace(config, data=replace(config.data, store=store))
    return {
        name: {
            target: assess_floor(name, config, Path(out) / "floors" / f"{name}-{target}", target)
            for target in config.targets
        }
        for name in FLOORS
    }


def assess_floor(
    name: str, config: FinetuneConfig, directory: Path, target: str | None = None
) -> dict[str, Any]:
    """Fit a floor to the training part of a fine-tuning run, test it, and leave the files of a tested run.

    These are `config.json`, `record.json`, `predictions.csv` and `evaluation.json`, which is also returned.

    Args:
        name: key of `FLOORS`.
        config: the run whose data, target and seed are taken.
        directory: made where it is missing.
        target: of several targets, the one; None takes that of the run. For a class the probability is
            learnt, and the figures of the base rate of the training part stand beside as "constant".

    Raises:
        MissingExtraError: scikit-learn is not installed.
        InputError: data that are missing or lack the target; labels of one class.
    """
    began = time.perf_counter()
    column = config.target if target is None else target
    is_class, floor = column in classes_of(resolved(config)), FLOORS[name]
    try:
        model = (floor.classifier if is_class else floor.regressor)(config.loop.seed)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} need scikit-learn, which is not installed; pip install 'molspectra[floors]'"
        ) from error
    selection = Selection.of(config.data, (column,))
    if is_class:
        selection.check_classes([column])
        selection.check_varies([column])
    store, values = selection.store, selection.store.column(column)
    with warnings.catch_warnings(action="ignore"):  # of RDKit about descriptors that are not defined
        train, test = (floor.describe(_molecules(store, rows)) for rows in (selection.train, selection.test))
    varies = np.array([len(np.unique(each[np.isfinite(each)])) > 1 for each in train.T])
    model.fit(train[:, varies], values[selection.train])
    labels, known = values[selection.test], test[:, varies]
    predicted = model.predict_proba(known)[:, 1] if is_class else model.predict(known)
    quantity, constant = store.metadata.properties[column], np.median(values[selection.train])
    if is_class:
        base_rate = float(values[selection.train].mean())
        figures = class_result(predicted, labels, quantity.level, base_rate, "test")
    else:
        figures = asdict(quantity) | asdict(errors(predicted, labels))
        figures["median_predictor_mae"] = errors(np.full(len(labels), constant), labels).mae
    parts = {part: len(getattr(selection, part)) for part in ("train", "val", "test")}
    facts = {"commit": commit(), "versions": versions(), "machine": machine(), "finished": True}
    record = facts | {
        "config": to_dict(config),
        "seed": config.loop.seed,
        "data": {"store": config.data.store, "hash": store.hash, "rows": parts},
        "steps": 0,
        "seconds": round(time.perf_counter() - began, 2),
    }
    result = facts | {
        "stage": "floor",
        "floor": name,
        "part": "test",
        "molecules": len(labels),
        "target": column,
        **figures,
        "training_molecules": parts["train"],
    }
    directory.mkdir(parents=True, exist_ok=True)
    identities = store.identities
    tested = tuple(identities[row] for row in selection.test)
    predictions = Predictions(selection.test, tested, (column,), labels[:, None], predicted[:, None])
    classes = (column,) if is_class else ()
    write_predictions(directory / "predictions.csv", predictions, store.metadata, classes=classes)
    write_json(directory / "config.json", to_dict(config))
    write_json(directory / "evaluation.json", result)
    write_json(directory / "record.json", record)  # last: a run with a finished record is not made again
    return result


def _molecules(store: Store, rows: npt.NDArray[np.int64]) -> list[Molecule]:
    return [store.molecule(int(row)) for row in rows]
