import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.errors import MismatchError, ValueRangeError
from molspectra.evaluation.metrics import class_figures, errors, mean_and_sd


def test_errors_of_a_table_computed_by_hand():
    result = errors([1.0, 2.0, 5.0, 4.0], [1.0, 3.0, 3.0, 5.0])
    # differences 0, -1, 2, -1; targets have mean 3 and squared deviations 4 + 0 + 0 + 4
    assert result.count == 4
    assert result.mae == pytest.approx(1.0)
    assert result.rmse == pytest.approx(math.sqrt(6 / 4))
    assert result.bias == pytest.approx(0.0)
    assert result.largest == pytest.approx(2.0)
    assert result.r2 == pytest.approx(1 - 6 / 8)


def test_the_mean_of_the_targets_has_no_skill_and_a_shift_is_a_bias():
    target = np.array([1.0, 2.0, 6.0])
    assert errors(np.full(3, 3.0), target).r2 == pytest.approx(0.0)
    assert errors(target - 0.5, target).bias == pytest.approx(-0.5)
    assert math.isnan(errors([1.0, 2.0], [3.0, 3.0]).r2)


@pytest.mark.parametrize(
    ("prediction", "target", "fault", "message"),
    [
        ([1.0], [1.0, 2.0], MismatchError, r"\(1,\) .*\(2,\)"),
        ([], [], ValueRangeError, "no predictions"),
        ([1.0, math.nan], [1.0, 2.0], ValueRangeError, "prediction 1 of 2"),
        ([1.0, 2.0], [math.inf, 2.0], ValueRangeError, "target 0 of 2"),
    ],
)
def test_what_cannot_be_compared_is_refused(prediction, target, fault, message):
    with pytest.raises(fault, match=message):
        errors(prediction, target)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(0.1, 10), st.floats(-10, 10))
def test_errors_scale_and_do_not_shift_with_the_values(values, scale, shift):
    target = np.array(values)
    prediction = np.cos(target) * 3
    plain, moved = errors(prediction, target), errors(prediction * scale + shift, target * scale + shift)
    assert plain.mae <= plain.rmse * (1 + 1e-12) <= plain.largest * (1 + 1e-9)
    assert moved.mae == pytest.approx(scale * plain.mae, rel=1e-9, abs=1e-9)
    assert moved.rmse == pytest.approx(scale * plain.rmse, rel=1e-9, abs=1e-9)


def test_mean_and_sample_deviation():
    assert mean_and_sd([1.0, 2.0, 3.0]) == (pytest.approx(2.0), pytest.approx(1.0))
    assert mean_and_sd([2.0, 4.0])[1] == pytest.approx(math.sqrt(2))
    mean, sd = mean_and_sd([5.0])
    assert mean == 5.0
    assert math.isnan(sd)
    with pytest.raises(ValueRangeError, match="no values"):
        mean_and_sd([])


def test_figures_of_classes_by_hand():
    """Ranked 1, 0 and 1 tied, 0, 0; from 0.5 on two ones and a zero are called class 1."""
    found = class_figures([0.9, 0.6, 0.6, 0.4, 0.1], [1, 0, 1, 0, 0])
    assert (found.count, found.positive) == (5, 2)
    assert found.auroc == pytest.approx((3 + 2.5) / 6)
    assert found.auprc == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)  # steps of recall times precision
    assert found.balanced_accuracy == pytest.approx((1 + 2 / 3) / 2)
    assert found.f1 == pytest.approx(4 / 5)


def test_what_a_base_rate_gives():
    labels = [1, 0, 0, 0]
    low, high = class_figures([0.25] * 4, labels), class_figures([0.5] * 4, labels)
    for found in (low, high):
        assert (found.auroc, found.auprc, found.balanced_accuracy) == (0.5, 0.25, 0.5)
    assert low.f1 == 0
    assert high.f1 == pytest.approx(2 * 0.25 / 1.25)


@pytest.mark.parametrize("digits", [1, 12], ids=["ties", "no ties"])
def test_figures_of_classes_are_those_of_scikit_learn(digits):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    labels = (rng.random(300) < 0.2).astype(float)
    scores = np.round(np.clip(0.3 * labels + rng.random(300) * 0.7, 0, 1), digits)
    found, told = class_figures(scores, labels), scores >= 0.5
    assert found.auroc == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found.auprc == pytest.approx(metrics.average_precision_score(labels, scores), abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, told), abs=1e-12)
    assert found.f1 == pytest.approx(metrics.f1_score(labels, told), abs=1e-12)


def test_one_class_has_no_figures_and_other_labels_are_refused():
    found = class_figures([0.2, 0.7], [1, 1])
    assert (found.count, found.positive) == (2, 2)
    assert all(map(math.isnan, (found.auroc, found.auprc, found.balanced_accuracy, found.f1)))
    with pytest.raises(ValueRangeError, match="0 and 1, not 2"):
        class_figures([0.2, 0.7], [1, 2])
    with pytest.raises(ValueRangeError, match="no predictions"):
        class_figures([], [])
