"""scikit-learn estimators: its own checks as far as molecules allow, and the same properties on molecules."""

import pickle
import sys
import tempfile
from functools import partial
from importlib.util import find_spec, module_from_spec

import numpy as np
import pytest

pytest.importorskip("sklearn")

import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import molspectra as ms
from molspectra.errors import (
    ElementError,
    FormatError,
    InputError,
    MismatchError,
    MissingExtraError,
    SettingError,
    ValueRangeError,
)
from molspectra.training.data import Selection
from molspectra.training.run import finetune

SMILES = ["CC=O", "CCCO", "CO", "CCCC", "CCO", "CC", "COC", "CCC", "C=O", "C=C", "CC(C)=O", "CC=C"]
Y = np.array([100.0 + 10.0 * len(smiles) for smiles in SMILES])
KINDS = np.array(["oxygen" if "O" in smiles else "none" for smiles in SMILES])

Embedder = partial(ms.MolSpectraEmbedder, "small")
Regressor = partial(ms.MolSpectraRegressor, init="small", steps=2, validation=0.2)
Classifier = partial(ms.MolSpectraClassifier, init="small", steps=2, validation=0.2)

NUMBERS = "rows of numbers are no molecules, and are refused as such"
NO_FEATURES = "molecules have no features that could be counted"
ONE_AXIS = "molecules are a list, so X has one axis"
OTHER_ERROR = "refused by an InputError, which is no ValueError, and by the embedder only in transform"

NOT_FOR_MOLECULES = {
    "check_complex_data": OTHER_ERROR,
    "check_dict_unchanged": NUMBERS,
    "check_dont_overwrite_parameters": NUMBERS,
    "check_dtype_object": NUMBERS,
    "check_estimator_sparse_array": OTHER_ERROR,
    "check_estimator_sparse_tag": OTHER_ERROR,
    "check_estimators_dtypes": NUMBERS,
    "check_estimators_empty_data_messages": OTHER_ERROR,
    "check_estimators_nan_inf": OTHER_ERROR,
    "check_estimators_pickle": NUMBERS,
    "check_f_contiguous_array_estimator": NUMBERS,
    "check_fit1d": ONE_AXIS,
    "check_fit2d_1feature": NUMBERS,
    "check_fit2d_1sample": NUMBERS,
    "check_fit2d_predict1d": NUMBERS,
    "check_fit_idempotent": NUMBERS,
    "check_fit_score_takes_y": NUMBERS,
    "check_methods_sample_order_invariance": NUMBERS,
    "check_methods_subset_invariance": NUMBERS,
    "check_n_features_in": NO_FEATURES,
    "check_n_features_in_after_fitting": NO_FEATURES,
    "check_pipeline_consistency": NUMBERS,
}
OF_EMBEDDER = {
    "check_transformer_data_not_an_array": NUMBERS,
    "check_transformer_general": NUMBERS,
    "check_transformer_preserve_dtypes": NUMBERS,
}
OF_FINE_TUNED = {
    "check_estimator_sparse_matrix": OTHER_ERROR,
    "check_estimators_fit_returns_self": NUMBERS,
    "check_estimators_overwrite_params": NUMBERS,
    "check_fit_check_is_fitted": NUMBERS,
    "check_positive_only_tag_during_fit": NUMBERS,
    "check_readonly_memmap_input": NUMBERS,
    "check_requires_y_none": NUMBERS,
    "check_supervised_y_2d": NUMBERS,
    "check_supervised_y_no_nan": OTHER_ERROR,
}
OF_REGRESSOR = {
    "check_regressor_data_not_an_array": NUMBERS,
    "check_regressor_multioutput": NUMBERS,
    "check_regressors_int": NUMBERS,
    "check_regressors_no_decision_function": NUMBERS,
    "check_regressors_train": NUMBERS,
}
OF_CLASSIFIER = {
    "check_classifier_data_not_an_array": NUMBERS,
    "check_classifier_multioutput": NUMBERS,
    "check_classifier_not_supporting_multiclass": OTHER_ERROR,
    "check_classifiers_classes": NUMBERS,
    "check_classifiers_multilabel_output_format_decision_function": NUMBERS,
    "check_classifiers_multilabel_output_format_predict": NUMBERS,
    "check_classifiers_multilabel_output_format_predict_proba": NUMBERS,
    "check_classifiers_multilabel_representation_invariance": NUMBERS,
    "check_classifiers_one_label": OTHER_ERROR,
    "check_classifiers_regression_target": OTHER_ERROR,
    "check_classifiers_train": NUMBERS,
}


class _AsIfNumeric:
    """scikit-learn leaves out all checks but one of estimators whose X is no table of numbers."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class NumericEmbedder(_AsIfNumeric, ms.MolSpectraEmbedder):
    pass


class NumericRegressor(_AsIfNumeric, ms.MolSpectraRegressor):
    pass


class NumericClassifier(_AsIfNumeric, ms.MolSpectraClassifier):
    pass


def _expected(estimator):
    if isinstance(estimator, ms.MolSpectraEmbedder):
        return NOT_FOR_MOLECULES | OF_EMBEDDER
    is_regressor = isinstance(estimator, ms.MolSpectraRegressor)
    return NOT_FOR_MOLECULES | OF_FINE_TUNED | (OF_REGRESSOR if is_regressor else OF_CLASSIFIER)


@parametrize_with_checks(
    [NumericEmbedder("small"), NumericRegressor("small", steps=1), NumericClassifier("small", steps=1)],
    expected_failed_checks=_expected,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_embeddings_are_those_of_embed():
    for pooled, width in ((False, 64), (True, 256)):
        embedder = Embedder(pooled=pooled)
        found = embedder.fit_transform(SMILES[:3])
        assert found.shape == (3, width) == (3, len(embedder.get_feature_names_out()))
        np.testing.assert_array_equal(found, ms.embed(SMILES[:3], "small", pooled=pooled).vectors)
    loaded = ms.load("small")
    assert clone(ms.MolSpectraEmbedder(loaded)).fit(SMILES).model_.width == 64


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda x: np.array(x)[:, None], "molecules"])
def test_molecules_in_any_form(form):
    molecules = list(map(ms.from_smiles, SMILES[:3])) if form == "molecules" else form(SMILES[:3])
    found = Embedder().fit_transform(molecules)
    np.testing.assert_allclose(found, Embedder().fit_transform(SMILES[:3]), rtol=1e-5, atol=1e-6)


def test_in_pipelines_and_column_transformers():
    model = make_pipeline(Embedder(pooled=True), StandardScaler(), Ridge())
    assert np.isfinite(cross_val_score(model, SMILES, Y, cv=2)).all()
    frame = pd.DataFrame({"smiles": SMILES[:3], "x": 1.0}, index=[5, 6, 7])
    both = make_column_transformer((Embedder(), "smiles"), ("passthrough", ["x"]))
    table = both.set_output(transform="pandas").fit_transform(frame)
    assert table.shape == (3, 65)
    assert list(table.index) == [5, 6, 7]


def test_regressor_learns_in_the_unit_of_y_and_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = Regressor(steps=25, learning_rate=3e-3)
    before = model.get_params()
    assert model.fit(SMILES, Y) is model
    assert model.get_params() == before
    assert list(tmp_path.iterdir()) == []
    predicted = model.predict(SMILES)
    assert predicted.shape == Y.shape
    assert np.abs(predicted - Y).mean() < np.abs(Y - np.median(Y)).mean()
    assert model.score(SMILES, Y) == pytest.approx(r2_score(Y, predicted))
    assert set(model.validation_) >= {"y_mae"}
    # order, subsets, pickling and a second fit change nothing
    np.testing.assert_allclose(model.predict(SMILES[::-1])[::-1], predicted, rtol=1e-5)
    np.testing.assert_allclose(model.predict(SMILES[2:4]), predicted[2:4], rtol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(SMILES), predicted)
    np.testing.assert_array_equal(clone(model).fit(SMILES, Y).predict(SMILES), predicted)
    np.testing.assert_array_equal(ms.predict(SMILES, model.model_, batch_size=32).values, predicted)


def test_regressor_of_several_properties_with_holes():
    y = np.stack([Y, -Y], axis=1)
    y[::3, 1] = np.nan
    y[4] = np.nan
    model = Regressor(target="gap,energy").fit(pd.Series(SMILES), pd.DataFrame(y))
    assert model.predict(SMILES).shape == (12, 2)
    assert model.model_.model.config.heads[0].readout == "pooled"
    assert np.isfinite(model.score(SMILES, y))
    assert Regressor().fit(SMILES, Y[:, None]).predict(SMILES[:2]).shape == (2, 1)


def test_regressor_in_searches():
    search = GridSearchCV(Regressor(), {"learning_rate": [1e-4, 1e-3]}, cv=2).fit(np.array(SMILES), Y)
    assert np.isfinite(search.best_score_)
    molecules = [ms.from_smiles(smiles) for smiles in SMILES]
    assert np.isfinite(cross_val_score(Regressor(random_state=None), molecules, Y, cv=2)).all()


def test_classifier_learns_two_labels():
    model = Classifier(steps=25, learning_rate=3e-3).fit(SMILES, KINDS)
    assert list(model.classes_) == ["none", "oxygen"]
    predicted, probabilities = model.predict(SMILES), model.predict_proba(SMILES)
    assert probabilities.shape == (12, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(predicted, model.classes_[(probabilities[:, 1] >= 0.5).astype(int)])
    assert roc_auc_score(KINDS == "oxygen", probabilities[:, 1]) > 0.9
    assert model.score(SMILES, KINDS) == accuracy_score(KINDS, predicted) > 0.7
    weight = np.arange(12.0)
    assert model.score(SMILES, KINDS, weight) == pytest.approx(
        accuracy_score(KINDS, predicted, sample_weight=weight)
    )
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(SMILES), probabilities)
    (quantity,) = ms.predict(SMILES[:1], model.model_).quantities
    assert quantity.unit == "probability"
    # the labels' order alone makes the classes: other labels of the same order change nothing
    other = clone(model).fit(SMILES, [[kind == "oxygen"] for kind in KINDS])
    np.testing.assert_array_equal(other.predict_proba(SMILES), probabilities)
    assert other.predict(SMILES).dtype == bool


@pytest.mark.parametrize("seed", range(3))
def test_classifier_validates_on_both_classes(seed, monkeypatch):
    found = []

    def kept(config, *args, **options):
        found.append(Selection.of(config.data, (config.target,)))
        return finetune(config, *args, **options)

    monkeypatch.setattr("molspectra.apps.estimators.finetune", kept)
    rare = np.arange(12) < 4
    Classifier(steps=1, validation=0.25, random_state=seed).fit(SMILES, rare)
    (selection,) = found
    labels = selection.store.column("y")
    assert labels[selection.val].tolist().count(1) == 1
    assert (len(selection.val), len(selection.train), labels[selection.train].sum()) == (3, 9, 3)
    # one's own split stays, and a class of one molecule cannot be in both parts
    for settings, y in (({"data.sizes": (8, 2, 2), "data.allow_leak": "all"}, rare), ({}, np.arange(12) < 1)):
        Classifier(steps=1, validation=0.25, settings=settings).fit(SMILES, y)
        assert found[-1].store.metadata.properties.keys() == {"y"}


def test_classifier_of_several_labels_with_holes():
    y = np.array([[kind == "oxygen", len(one) > 3] for kind, one in zip(KINDS, SMILES, strict=True)], float)
    model = Classifier(target="oxygen,long").fit(SMILES, y)
    found = model.predict(SMILES)
    np.testing.assert_array_equal(found, model.predict_proba(SMILES) >= 0.5)
    assert model.score(SMILES, y) == accuracy_score(y, found)
    # an unknown label counts neither for nor against its molecule, an unlabelled molecule not at all
    holed = np.where(found == y, y, np.nan)
    assert model.score(SMILES, holed) == 1.0
    y[4:8, 1] = np.nan
    y[4] = np.nan
    assert np.isfinite(cross_val_score(model, pd.Series(SMILES), pd.DataFrame(y), cv=KFold(3))).all()


def test_classifier_leaves_out_molecules_without_a_label():
    kinds = pd.Series(KINDS, dtype=object)
    kinds[[0, 1]] = [None, np.nan]
    model = Classifier().fit(SMILES, kinds)
    whole = Classifier().fit(SMILES[2:], KINDS[2:])
    np.testing.assert_array_equal(model.predict_proba(SMILES), whole.predict_proba(SMILES))
    assert model.score(SMILES, kinds) == model.score(SMILES[2:], KINDS[2:])


def test_classifier_in_cross_validation():
    molecules = [ms.from_smiles(smiles) for smiles in SMILES]
    model = make_pipeline(Classifier())
    assert np.isfinite(cross_val_score(model, molecules, KINDS, cv=2, scoring="roc_auc")).all()
    both = np.stack([KINDS == "oxygen", Y > 130], axis=1)
    assert np.isfinite(cross_val_score(model, molecules, both, cv=2, scoring="roc_auc")).all()


@pytest.mark.parametrize(
    ("parameters", "y", "kind", "fact"),
    [
        ({}, ["a", "b", "c"] * 4, ValueRangeError, "there are 3"),
        ({}, ["a"] * 12, ValueRangeError, "there are 1"),
        ({}, Y / 7, FormatError, "continuous"),
        ({}, ["a", 1] * 6, FormatError, "all text or all numbers"),
        ({}, [[0, 1], [1, 0], [0, 2]] * 4, ValueRangeError, "row 2, column 1 is 2"),
        ({}, [[0], [0, 1]] * 6, FormatError, "y:"),
        ({}, None, FormatError, "()"),
        ({}, KINDS[:4], MismatchError, "4 rows"),
        ({"settings": {"classes": []}}, KINDS, SettingError, "classes"),
    ],
)
def test_bad_classes(parameters, y, kind, fact):
    with pytest.raises(kind) as caught:
        Classifier(**parameters).fit(SMILES, y)
    assert fact in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_by_dotted_name():
    settings = {
        "model.readout": "pooled",
        "loop.steps": 1,
        "loop.kernels": "plain",
        "model.encoder.channels": 8,
        "model.encoder.layers": 1,
    }
    model = Regressor(init=None, settings=settings).fit(SMILES, Y)
    assert model.model_.width == 8
    assert model.model_.model.config.readout == "pooled"


@pytest.mark.parametrize(
    ("parameters", "molecules", "y", "kind", "fact"),
    [
        ({}, SMILES[:3], Y, MismatchError, "3 molecules"),
        ({}, ["C", "xx"], [1, 2], FormatError, "item 2"),
        ({}, np.zeros((12, 5)), Y, FormatError, "item 1"),
        ({}, SMILES[:1], [1.0], ValueRangeError, "at least 2"),
        ({}, SMILES, ["a"] * 12, FormatError, "numbers"),
        ({}, SMILES, np.full(12, np.inf), ValueRangeError, "infinite"),
        ({}, SMILES, np.ones(12), ValueRangeError, "molecules: y is 1"),
        ({}, SMILES, np.ones((12, 1, 1)), FormatError, "(12, 1, 1)"),
        ({"target": "a,b"}, SMILES, Y, MismatchError, "1 columns"),
        ({"validation": 2}, SMILES, Y, ValueRangeError, "validation"),
        ({"settings": {"loop.stepps": 3}}, SMILES, Y, InputError, "loop.steps"),
        ({"init": "nowhere"}, SMILES, Y, InputError, "nowhere"),
    ],
)
def test_bad_input(parameters, molecules, y, kind, fact):
    with pytest.raises(kind) as caught:
        Regressor(**parameters).fit(molecules, y)
    assert fact in str(caught.value)


def test_bad_input_of_predictions():
    model = Regressor().fit(SMILES, Y)
    with pytest.raises(ElementError, match="N"):
        model.predict(["CN"])
    with pytest.raises(MismatchError, match=r"\(12, 1\)"):
        model.score(SMILES, Y[:, None])
    with pytest.raises(ValueRangeError, match="no label"):
        model.score(SMILES, np.full(12, np.nan))


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    spec = find_spec("molspectra.apps.estimators")
    with pytest.raises(MissingExtraError, match=r"molspectra\[sklearn\]"):
        spec.loader.exec_module(module_from_spec(spec))
