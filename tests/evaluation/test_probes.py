"""Probes of tiny embedding matrices."""

import math

import numpy as np
import pytest

from molspectra.errors import ValueRangeError
from molspectra.evaluation.probes import constant, is_labels, probe, probe_column

POINTS = np.arange(20.0)[:, None]
NAMES = [str(number) for number in range(20)]


def test_a_line_is_read_by_ridge_regression_and_not_beyond_its_end_by_neighbours():
    found = probe(POINTS, 3 * POINTS[:, 0] + 1, NAMES, np.array([[5.5], [30.0]]), np.array([17.5, 91.0]))
    assert found["linear"]["mae"] == pytest.approx(0.0, abs=1e-3)
    assert found["linear"]["r2"] == pytest.approx(1.0, abs=1e-6)
    # the mean of the nearest two of 5.5 is exact; of 30, the last molecules are the nearest
    count = found["neighbours"]["n_neighbors"]
    nearest = np.mean(3 * np.arange(20 - count, 20) + 1)
    assert found["neighbours"]["largest"] == pytest.approx(91 - nearest)


def test_a_parity_is_read_by_neighbours_alone():
    """Three clusters with values 0, 1 and 0 are no linear function of the place."""
    place = np.repeat([[0.0], [1.0], [2.0]], 6, axis=0)
    values = np.repeat([0.0, 1.0, 0.0], 6)
    found = probe(place, values, NAMES[:18], np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 0.0]))
    assert found["neighbours"]["mae"] == 0.0
    assert found["linear"]["mae"] == pytest.approx((1 / 3 + 2 / 3 + 1 / 3) / 3, abs=0.02)


def test_structures_of_one_molecule_are_in_one_fold():
    """Neighbours with copies of themselves in training would seem perfect; they are chosen without."""
    generator = np.random.default_rng(0)
    place, values = np.repeat(generator.random((30, 2)), 2, axis=0), np.repeat(generator.random(30), 2)
    names = [str(number // 2) for number in range(60)]
    found = probe(place, values, names, place[:2] + 9, values[:2])
    assert found["neighbours"]["n_neighbors"] > 2
    apart = probe(place, values, [str(number) for number in range(60)], place[:2] + 9, values[:2])
    assert apart["neighbours"]["n_neighbors"] <= 2


def test_classes_are_told_by_probabilities():
    labels = (POINTS[:, 0] > 9).astype(float)
    found = probe(POINTS, labels, NAMES, np.array([[2.5], [16.5]]), np.array([0.0, 1.0]), is_class=True)
    assert all(each["auroc"] == each["f1"] == 1.0 for each in found.values())
    assert is_labels(np.array([0, 1, np.nan]))
    assert not is_labels(np.array([0.0, 0.5, 1.0]))
    assert not is_labels(np.ones(3))


def test_the_constant_is_the_median_and_its_error_by_hand():
    found = constant(np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0]))
    assert (found["value"], found["mae"]) == (2.0, 1.5)
    assert found["r2"] == pytest.approx(1 - 5 / 4.5)


def test_a_column_is_probed_where_it_has_values():
    column = 2 * POINTS[:, 0]
    column[[3, 15]] = math.nan
    fit = np.arange(20) < 14
    found = probe_column({"sum": POINTS}, column, NAMES, fit, ~fit)
    assert (found["fitted"], found["tested"], found["class"]) == (13, 5, False)
    assert found["probes"]["sum"]["linear"]["count"] == 5


def test_too_few_molecules_are_refused():
    with pytest.raises(ValueRangeError, match="9 labelled molecules"):
        probe(POINTS[:9], POINTS[:9, 0], NAMES[:9], POINTS, POINTS[:, 0])
    with pytest.raises(ValueRangeError, match="one class"):
        probe(POINTS, np.eye(20)[3], NAMES, POINTS, np.eye(20)[3], is_class=True)
