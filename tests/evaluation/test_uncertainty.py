"""Calibration of an ensemble's spread, against tables by hand and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.errors import InputError
from molspectra.evaluation.uncertainty import Calibration, calibration_report, error_confidence_area


def test_a_calibration_by_hand() -> None:
    calibration = Calibration.of([1.0, -2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 2.0])
    assert calibration.ratios == (1.0, 2.0, 2.0, 3.0)
    assert calibration.scale == pytest.approx(math.sqrt((1 + 4 + 4 + 9) / 4))
    assert calibration.uncertainty([2.0]) == pytest.approx([2 * calibration.scale])
    assert calibration.half_width([1.0, 3.0], 0.5).tolist() == [2.0, 6.0]  # third smallest of four
    assert calibration.half_width([1.0], 0.75).tolist() == [3.0]
    assert calibration.half_width([1.0], 0.9).tolist() == [math.inf]  # four molecules cannot tell
    assert Calibration.from_plain(vars(calibration)) == calibration


@pytest.mark.parametrize("stated", [0.5, 0.9])
def test_intervals_hold_what_they_state_whatever_the_distribution(stated: float) -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        spread = random.uniform(0.5, 2.0, 400)
        error = spread * random.standard_t(3, 400)  # heavy tails
        calibration = Calibration.of(error[:200], spread[:200])
        shares.append((np.abs(error[200:]) <= calibration.half_width(spread[200:], stated)).mean())
    assert np.mean(shares) == pytest.approx(stated, abs=0.01)


def test_the_report_compares_stated_with_observed_coverage() -> None:
    random = np.random.default_rng(1)
    spread = random.uniform(0.5, 2.0, 4000)
    error = 3.0 * spread * random.standard_normal(4000)
    report = calibration_report(Calibration.of(error[:2000], spread[:2000]), error[2000:], spread[2000:])
    assert report["scale"] == pytest.approx(3.0, rel=0.05)
    for stated, found in report["coverage"].items():
        assert found["observed"] == pytest.approx(float(stated), abs=0.03)
    assert 0 < report["error_confidence_area"] < 1


def test_the_area_of_the_error_confidence_curve() -> None:
    error = [1.0, 2.0, 3.0]
    assert error_confidence_area(error, [1.0, 2.0, 3.0]) == 0.0
    # reversed: means 3, 2.5, 2 against 1, 1.5, 2 of the best order and 2, 2, 2 of chance
    assert error_confidence_area(error, [3.0, 2.0, 1.0]) == pytest.approx(3.0 / 1.5)
    assert error_confidence_area([1.0, 1.0], [5.0, 1.0]) == 0.0


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=30), st.floats(0.1, 10))
def test_uncertainties_have_the_unit_of_the_property(errors: list[float], unit: float) -> None:
    spreads = np.linspace(1.0, 2.0, len(errors))
    one = Calibration.of(errors, spreads)
    other = Calibration.of(np.multiply(errors, unit), spreads * unit)
    assert other.uncertainty([1.5 * unit]) == pytest.approx(one.uncertainty([1.5]) * unit)


@pytest.mark.parametrize(
    ("errors", "spreads"), [([1.0], [1.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, 2.0], [1.0, 1.0, 1.0])]
)
def test_what_cannot_be_calibrated_is_refused(errors: list[float], spreads: list[float]) -> None:
    with pytest.raises(InputError):
        Calibration.of(errors, spreads)


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0, math.nan])
def test_a_coverage_is_a_probability(coverage: float) -> None:
    with pytest.raises(InputError, match="coverage"):
        Calibration.of([1.0, 2.0], [1.0, 1.0]).half_width([1.0], coverage)


def test_what_should_not_be_trusted_is_said() -> None:
    few = Calibration.of([1.0, 2.0], [1.0, 1.0])
    assert any("2 molecules" in remark for remark in few.remarks())
    alike = Calibration.of(np.ones(20), np.full(20, 1e-3))
    assert any("hardly differ" in remark for remark in alike.remarks())
    assert not Calibration.of(np.ones(20), np.ones(20)).remarks()
