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
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
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
    ValueRangeError,
)

SMILES = ["CC=O", "CCCO", "CO", "CCCC", "CCO", "CC", "COC", "CCC", "C=O", "C=C", "CC(C)=O", "CC=C"]
Y = np.array([100.0 + 10.0 * len(smiles) for smiles in SMILES])

Embedder = partial(ms.MolSpectraEmbedder, "small")
Regressor = partial(ms.MolSpectraRegressor, init="small", steps=2, validation=0.2)

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
OF_REGRESSOR = {
    "check_estimator_sparse_matrix": OTHER_ERROR,
    "check_estimators_fit_returns_self": NUMBERS,
    "check_estimators_overwrite_params": NUMBERS,
    "check_fit_check_is_fitted": NUMBERS,
    "check_positive_only_tag_during_fit": NUMBERS,
    "check_readonly_memmap_input": NUMBERS,
    "check_regressor_data_not_an_array": NUMBERS,
    "check_regressor_multioutput": NUMBERS,
    "check_regressors_int": NUMBERS,
    "check_regressors_no_decision_function": NUMBERS,
    "check_regressors_train": NUMBERS,
    "check_requires_y_none": NUMBERS,
    "check_supervised_y_2d": NUMBERS,
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


def _expected(estimator):
    own = OF_EMBEDDER if isinstance(estimator, ms.MolSpectraEmbedder) else OF_REGRESSOR
    return NOT_FOR_MOLECULES | own


@parametrize_with_checks(
    [NumericEmbedder("small"), NumericRegressor("small", steps=1)],
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
