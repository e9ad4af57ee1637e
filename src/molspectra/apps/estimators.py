"""scikit-learn estimators: molecules to embeddings, and properties by a fine-tuned encoder.

The rows of X are molecules in any form that `molspectra.embed` takes, mostly a list, array or series of
SMILES or of `Molecule` objects; no arrays of numbers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.apps.embed import Length, embed
from molspectra.apps.loading import LoadedModel, load, loaded
from molspectra.apps.molecules import Molecules, candidates_of
from molspectra.apps.predict import predict
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import ErrorPolicy
from molspectra.data.store.schema import SPLIT, Metadata, Quantity
from molspectra.data.store.writer import Row, write_store
from molspectra.errors import (
    FormatError,
    InputError,
    MismatchError,
    MissingExtraError,
    SettingError,
    ValueRangeError,
)
from molspectra.training.config import DataConfig, FinetuneConfig
from molspectra.training.run import finetune
from molspectra.training.settings import from_dict, put, read_recipe

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.metrics import r2_score
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError(
        "the estimators need scikit-learn, which is not installed; pip install 'molspectra[sklearn]'"
    ) from error

RECIPE = "base-gap"
"""Recipe whose settings a fine-tuning takes where it is told nothing else."""


PART = "molspectra_part"
"""Column of the temporary store that tells the parts of a stratified split."""


class _OfMolecules(BaseEstimator):
    """Tells scikit-learn that the rows of X are no rows of numbers."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


class MolSpectraEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _OfMolecules):
    """Embeds structures by a trained model, which `fit` loads and does not change; see `molspectra.embed`.

    Args:
        model: name, path or loaded model, see `load`.
        pooled: mean and standard deviation over the atoms, four times as long, instead of their sum.
        length: "auto", "unit" or "raw".
        batch_size: molecules per pass.
        device: where to compute.

    Attributes:
        model_: the model, after `fit`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LoadedModel = "base",
        *,
        pooled: bool = False,
        length: Length = "auto",
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        self.model = model
        self.pooled = pooled
        self.length = length
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Molecules, y: object = None) -> Self:
        """Load the model; the molecules are not looked at.

        Raises:
            InputError: no such model.
        """
        self.model_ = loaded(self.model)
        self._n_features_out = (4 if self.pooled else 1) * self.model_.width
        return self

    def transform(self, X: Molecules) -> npt.NDArray[np.float32]:
        """Embeddings [n, D].

        Raises:
            InputError: as in `molspectra.embed`, for the first bad molecule.
        """
        check_is_fitted(self)
        return embed(
            X,
            self.model_,
            pooled=self.pooled,
            length=self.length,
            batch_size=self.batch_size,
            device=self.device,
        ).vectors


class _FineTuned(_OfMolecules):
    """Fine-tunes an encoder on the columns of y; the settings are told where they are public."""

    def __init__(
        self,
        init: str | os.PathLike[str] | None = "base",
        *,
        steps: int = 800,
        batch_size: int = 32,
        learning_rate: float = 5e-4,
        validation: float = 0.1,
        target: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "cpu",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.init = init
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.target = target
        self.random_state = random_state
        self.device = device
        self.settings = settings

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _fit(self, X: Molecules, labels: npt.NDArray[np.float64], *, are_classes: bool = False) -> Self:
        """Fine-tune on labels [n] or [n, T], of classes 0 and 1; NaN where a molecule has none."""
        molecules = list(_molecules(X))
        if len(molecules) != len(labels):
            raise MismatchError(f"there are {len(molecules)} molecules and {len(labels)} rows of labels")
        columns = labels.reshape(len(labels), -1)
        names = self._names(columns.shape[1])
        is_labelled = ~np.isnan(columns).all(axis=1)
        chosen = [molecules[row] for row in np.flatnonzero(is_labelled)]
        columns = columns[is_labelled]
        with tempfile.TemporaryDirectory(prefix="molspectra-") as folder:
            store, run = Path(folder) / "molecules.arrow", Path(folder) / "run"
            config = self._config(store, names, len(chosen), are_classes)
            quantities = {name: Quantity("") for name in names}
            parts = _stratified(columns, config.data) if are_classes else None
            if parts is not None:
                columns, names = np.column_stack([columns, parts]), [*names, PART]
                quantities[PART] = SPLIT
                data = replace(config.data, split="column", split_column=PART, sizes=())
                config = replace(config, data=data)
            rows = [
                Row(
                    molecule,
                    properties={
                        name: value for name, value in zip(names, row, strict=True) if value == value
                    },
                )
                for molecule, row in zip(chosen, columns.tolist(), strict=True)
            ]
            try:
                write_store(store, rows, Metadata("molecules in memory", "", properties=quantities))
                result = finetune(config, run, show=False)
            except InputError as error:  # the store is no file that a user knows
                raise type(error)(str(error).replace(str(store), "molecules")) from error
            self.model_ = load(run)
        self.validation_ = result.metrics
        self._shape = labels.shape[1:]
        return self

    def _predicted(self, X: Molecules) -> npt.NDArray[np.float64]:
        """Properties of the shape of y, of classes the probabilities of 1."""
        check_is_fitted(self)
        device = next(self.model_.model.parameters()).device if self.device == "auto" else self.device
        found = predict(X, self.model_, batch_size=self.batch_size, device=str(device))
        return found.values.reshape(len(found), *self._shape)

    def _names(self, count: int) -> list[str]:
        """Names of the columns of y."""
        if self.target is None:
            return ["y"] if count == 1 else [f"y{number}" for number in range(count)]
        names = [name.strip() for name in self.target.split(",")]
        if len(names) != count:
            raise MismatchError(f"target: {len(names)} names ({self.target}) for {count} columns of y")
        return names

    def _config(self, store: Path, names: list[str], rows: int, are_classes: bool) -> FinetuneConfig:
        """Settings of the run on that many labelled rows."""
        if not 0 < self.validation < 1:
            raise ValueRangeError(f"validation must lie between 0 and 1, not {self.validation}")
        held_out = max(1, round(self.validation * rows))
        if held_out >= rows:
            raise ValueRangeError(f"{rows} molecules with labels are too few; at least 2 are needed")
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        values = read_recipe(RECIPE)
        del values["model"]  # its encoder is that of `init`
        chosen = {
            "init": None if self.init is None else os.fspath(self.init),
            "target": ",".join(names),
            "classes": names if are_classes else [],
            "data.store": str(store),
            "data.split": "reference",
            "data.sizes": (rows - held_out, held_out, 0),
            "data.split_seed": int(seed),
            "loop.seed": int(seed),
            "loop.steps": self.steps,
            "loop.batch_size": self.batch_size,
            "loop.accelerator": self.device,
            "loop.save_every": 0,
            "optimizer.learning_rate": self.learning_rate,
        }
        put(values, {**chosen, **(self.settings or {})}, "settings")
        config = from_dict(FinetuneConfig, values, "settings")
        if are_classes and set(config.classes) != set(names):
            raise SettingError("settings: leave classes out; a classifier takes every column of y as classes")
        return config


class MolSpectraRegressor(RegressorMixin, _FineTuned):
    """Fine-tunes an encoder on one property of molecules or several, and predicts them in the units of y.

    The run is that of the command `finetune` with the recipe `base-gap`, on a temporary store; no file is
    left behind.

    Args:
        init: model to start from, a name or path as for `load`; None for an encoder from scratch.
        steps: optimizer steps.
        batch_size: molecules per step, and per pass of a prediction.
        learning_rate: its peak.
        validation: share of the molecules, at least one, on which the best checkpoint is chosen.
        target: names of the properties, separated by commas; they choose the heads as on the command line
            ("gap" is pooled over the atoms, "mu" a dipole). None calls them "y", or "y0", "y1" and so on,
            which are sums over the atoms unless `settings` has `model.readout`.
        random_state: seed of weights, order and split; None or a generator draws one at every fit.
        device: "cpu", "cuda", "mps" or "auto".
        settings: further settings of `FinetuneConfig` by dotted name, which win over all above.

    Attributes:
        model_: the fine-tuned model, after `fit`; `molspectra.predict` takes it too.
        validation_: losses and errors of the last validation, after `fit`.
    """

    def fit(self, X: Molecules, y: npt.ArrayLike) -> Self:
        """Fine-tune on labels [n] or [n, T]; NaN where a molecule has none.

        Raises:
            InputError: a bad molecule, labels that do not fit, or settings that `finetune` refuses.
        """
        return self._fit(X, _labels(y))

    def predict(self, X: Molecules) -> npt.NDArray[np.float64]:
        """Properties of the shape of y, in its units.

        Raises:
            InputError: as in `molspectra.predict`, for the first bad molecule.
        """
        return self._predicted(X)

    def score(
        self,
        X: Molecules,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """R² of the known labels, the mean over the properties.

        Raises:
            InputError: as in `predict`, or labels that do not fit.
        """
        labels, predicted = _labels(y), self.predict(X)
        columns = [
            values.reshape(len(labels), -1).T for values in (_known(labels, predicted), labels, predicted)
        ]
        scores = []
        for known, true, value in zip(*columns, strict=True):
            weight = None if sample_weight is None else np.asarray(sample_weight)[known]
            if known.any():
                scores.append(r2_score(true[known], value[known], sample_weight=weight))
        return float(np.mean(scores))


class MolSpectraClassifier(ClassifierMixin, _FineTuned):
    """Fine-tunes an encoder on two classes of molecules, or on several labels of 0 and 1, by cross-entropy.

    The run and all arguments are those of `MolSpectraRegressor`; every column of y is one of the `classes`
    of `FinetuneConfig`, and pooled over the atoms unless `settings` has `model.readout`. Of one column the
    molecules of `validation` are drawn with both classes in the shares that y has (stratified), where each
    class has two molecules; of several columns they are drawn from all alike.

    Attributes:
        model_: the fine-tuned model, after `fit`; `molspectra.predict` gives the probability of the second
            class.
        classes_: the two labels of y in their order, after `fit`; of several columns a list of them.
        validation_: losses and AUROC of the last validation, after `fit`.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Molecules, y: npt.ArrayLike) -> Self:
        """Fine-tune on two labels of any kind, [n] or [n, 1], or on 0 and 1, [n, T]; NaN where there is none.

        Raises:
            InputError: a bad molecule, labels that are not of two classes, or settings that `finetune`
                refuses.
        """
        labels = _class_labels(y)
        classes: Any
        if labels.ndim == 1:
            classes, labels = _two_classes(labels)
        else:
            classes = [np.array([0, 1]) for _ in range(labels.shape[1])]
            bad = np.argwhere(~np.isin(labels, (0, 1)) & ~np.isnan(labels))
            if len(bad):
                row, column = bad[0]
                raise ValueRangeError(
                    f"y: row {row}, column {column} is {labels[row, column]:g}, but several columns hold "
                    "0 and 1 (NaN where there is no label)"
                )
        self._fit(X, labels, are_classes=True)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Molecules) -> npt.NDArray[np.float64]:
        """Probabilities [n, 2] in the order of `classes_`; of several columns those of 1, [n, T].

        Raises:
            InputError: as in `molspectra.predict`, for the first bad molecule.
        """
        found = self._predicted(X)
        return found if found.ndim == 2 else np.stack([1 - found, found], axis=1)

    def predict(self, X: Molecules) -> npt.NDArray[Any]:
        """Labels of the kind of y: the second class, or 1, from a probability of 0.5 on.

        Raises:
            InputError: as in `molspectra.predict`, for the first bad molecule.
        """
        found = (self._predicted(X) >= 0.5).astype(int)
        return found if found.ndim == 2 else self.classes_[found]

    def score(
        self,
        X: Molecules,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Accuracy; of several columns the share of molecules all of whose known labels are right.

        Raises:
            InputError: as in `predict`, or labels that do not fit.
        """
        labels, predicted = _class_labels(y), self.predict(X)
        known = _known(labels, predicted).reshape(len(labels), -1)
        right = np.equal(labels, predicted).reshape(known.shape) | ~known
        rows = known.any(axis=1)
        weight = None if sample_weight is None else np.asarray(sample_weight)[rows]
        return float(np.average(right.all(axis=1)[rows], weights=weight))


def _stratified(labels: npt.NDArray[np.float64], data: DataConfig) -> npt.NDArray[np.float64] | None:
    """Return the part, 0 training and 1 validation, of labels [n, 1] of 0 and 1, both classes alike in both.

    Args:
        labels: [n, T], without rows that have none.
        data: sizes and seed of the split.

    Returns:
        None of several columns, of a class with one molecule or a part of one, and where `data` has a split
        of the user's own.
    """
    train, val, *test = data.sizes if data.split == "reference" else (0, 0)
    if labels.shape[1] != 1 or test != [0] or train + val != len(labels):
        return None
    ones = int(labels.sum())
    if min(ones, len(labels) - ones, train, val) < 2:
        return None
    rows = np.arange(len(labels))
    chosen = train_test_split(rows, test_size=val, stratify=labels, random_state=data.split_seed)[1]
    return np.isin(rows, chosen).astype(np.float64)


def _molecules(molecules: Molecules) -> Iterator[Molecule]:
    """Read molecules one by one; the first bad one ends it, by its place."""
    path, items, _ = candidates_of(molecules)
    for where, read in items:
        try:
            found = read()
        except InputError as error:
            ErrorPolicy("raise").reject(path, where, error)
        else:
            yield found if isinstance(found, Molecule) else found.molecule


def _labels(y: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Labels as numbers, [n] or [n, T].

    Raises:
        FormatError: they are no numbers, or have another number of axes.
        ValueRangeError: one is infinite.
    """
    try:
        labels = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FormatError(f"y: labels must be numbers (NaN where there is none): {error}") from error
    if labels.ndim not in (1, 2) or 0 in labels.shape:
        raise FormatError(f"y: labels are [n] or [n, properties], not of shape {labels.shape}")
    if np.isinf(labels).any():
        raise ValueRangeError("y: a label is infinite; give NaN where there is none")
    return labels


def _class_labels(y: npt.ArrayLike) -> npt.NDArray[Any]:
    """Labels of classes: as they are, [n], also of y [n, 1]; numbers [n, T] of several columns.

    NaN stands where there is none.

    Raises:
        FormatError: they are of several types, or have another number of axes.
        ValueRangeError: one of several columns is infinite.
    """
    try:
        labels = np.array(y, dtype=object)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim == 1:
            missing = pa.array(labels, from_pandas=True).is_null()  # None and pandas' NA too
            labels[missing.to_numpy(zero_copy_only=False)] = np.nan
            return labels
    except (TypeError, ValueError) as error:
        raise FormatError(f"y: labels must be all text or all numbers: {error}") from error
    return _labels(y)


def _two_classes(y: npt.NDArray[np.object_]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """The two labels of y [n] in their order, and y as 0 and 1, NaN where there is none.

    Raises:
        FormatError: they are no labels of classes.
        ValueRangeError: they are not two.
    """
    known = np.equal(y, y).astype(bool)  # NaN alone differs from itself
    try:
        classes = np.array(np.unique(y[known]).tolist())
        check_classification_targets(classes)
    except (TypeError, ValueError) as error:
        raise FormatError(f"y: {error}") from error
    if len(classes) != 2:
        raise ValueRangeError(
            f"y: two classes are learnt, and there are {len(classes)}; give one column of 0 and 1 for each "
            "of several classes, and numbers to MolSpectraRegressor"
        )
    labels = np.full(len(y), np.nan)
    labels[known] = y[known] == classes[1]
    return classes, labels


def _known(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which labels are known, of labels to compare with predictions.

    Raises:
        MismatchError: they have another shape.
        ValueRangeError: none is known.
    """
    if labels.shape != predicted.shape:
        raise MismatchError(f"labels {labels.shape} do not fit predictions {predicted.shape}")
    known = np.equal(labels, labels).astype(bool)  # NaN alone differs from itself
    if not known.any():
        raise ValueRangeError("no label is known, so there is nothing to score")
    return known
