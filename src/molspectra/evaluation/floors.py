"""Predictors of a property that learn from fixed descriptors alone: what a network has to be better than."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.identity import parsed_smiles, perceived_bonds
from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Store
from molspectra.errors import FormatError, MissingExtraError
from molspectra.evaluation.finetuned import write_predictions
from molspectra.evaluation.metrics import errors
from molspectra.evaluation.predict import Predictions
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.record import commit, machine, versions, write_json
from molspectra.training.settings import to_dict

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


def _boosting(seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=500, learning_rate=0.05, random_state=seed
    )


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=300, max_features=0.33, n_jobs=1, random_state=seed)


FLOORS: Mapping[str, tuple[Callable[[list[Molecule]], Floats], Callable[[int], Any]]] = {
    "descriptors": (rdkit_descriptors, _boosting),
    "fingerprints": (morgan_fingerprints, _forest),
}
"""Descriptors and the regressor that learns from them, by name."""


def assess_floor(name: str, config: FinetuneConfig, directory: Path) -> dict[str, Any]:
    """Fit a floor to the training part of a fine-tuning run, test it, and leave the files of a tested run.

    These are `config.json`, `record.json`, `predictions.csv` and `evaluation.json`, which is also returned.

    Args:
        name: key of `FLOORS`.
        config: the run whose data, target and seed are taken.
        directory: made where it is missing.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        InputError: data that are missing or lack the target.
    """
    began = time.perf_counter()
    describe, regressor = FLOORS[name]
    try:
        model = regressor(config.loop.seed)
    except ImportError as error:
        raise MissingExtraError(
            f"{name} need scikit-learn, which is not installed; pip install 'molspectra[floors]'"
        ) from error
    selection = Selection.of(config.data, (config.target,))
    store, values = selection.store, selection.store.column(config.target)
    with warnings.catch_warnings(action="ignore"):  # of RDKit about descriptors that are not defined
        train, test = (describe(_molecules(store, rows)) for rows in (selection.train, selection.test))
    varies = np.array([len(np.unique(column[np.isfinite(column)])) > 1 for column in train.T])
    model.fit(train[:, varies], values[selection.train])
    predicted, target = model.predict(test[:, varies]), values[selection.test]
    quantity = store.metadata.properties[config.target]
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
        "molecules": len(target),
        "target": config.target,
        **asdict(quantity),
        **asdict(errors(predicted, target)),
        "median_predictor_mae": errors(np.full(len(target), np.median(values[selection.train])), target).mae,
        "training_molecules": parts["train"],
    }
    directory.mkdir(parents=True, exist_ok=True)
    identities = store.identities
    tested = tuple(identities[row] for row in selection.test)
    columns = target[:, None], predicted[:, None]
    predictions = Predictions(selection.test, tested, (config.target,), *columns)
    write_predictions(directory / "predictions.csv", predictions, store.metadata)
    write_json(directory / "config.json", to_dict(config))
    write_json(directory / "evaluation.json", result)
    write_json(directory / "record.json", record)  # last: a run with a finished record is not made again
    return result


def _molecules(store: Store, rows: npt.NDArray[np.int64]) -> list[Molecule]:
    return [store.molecule(int(row)) for row in rows]
