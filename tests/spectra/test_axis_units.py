import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.errors import UnitError, ValueRangeError
from molspectra.spectra.units import EV_NM, convert_position


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (1.0, "eV", "cm⁻¹", 8065.543937),
        (1.0, "eV", "nm", 1239.841984),
        (400.0, "nm", "eV", 3.09960496),
        (400.0, "nm", "cm⁻¹", 25000.0),
        (4000.0, "cm⁻¹", "nm", 2500.0),
        (500.0, "cm⁻¹", "eV", 0.0619920992),
        (532.0, "nm", "cm⁻¹", 18796.99248),
        (-20.0, "cm⁻¹", "cm⁻¹", -20.0),
        (-8065.543937, "cm⁻¹", "eV", -1.0),
    ],
)
def test_conversions_by_hand(value, source, target, result):
    assert convert_position(value, source, target) == pytest.approx(result, rel=1e-9)


def test_the_constant_is_that_of_the_si():
    assert pytest.approx(6.62607015e-34 * 299792458 / 1.602176634e-19 * 1e9, rel=1e-15) == EV_NM


@settings(max_examples=30)
@given(st.floats(1e-2, 1e5), *[st.sampled_from(["eV", "nm", "cm⁻¹"])] * 2)
def test_there_and_back(value, source, target):
    assert convert_position(convert_position(value, source, target), target, source) == pytest.approx(value)


def test_arrays_keep_their_shape_and_the_input_is_left_alone():
    values = np.array([[200.0, 400.0]])
    result = convert_position(values, "nm", "nm")
    result[0, 0] = 0.0
    assert values[0, 0] == 200.0
    assert convert_position(values, "nm", "eV").shape == (1, 2)


@pytest.mark.parametrize(
    ("value", "source", "target", "message", "error"),
    [
        (1.0, "THz", "eV", "unknown unit 'THz'", UnitError),
        (1.0, "eV", "cm-1", "unknown unit 'cm-1'", UnitError),
        (0.0, "eV", "nm", "positive position", ValueRangeError),
        ([300.0, -1.0], "nm", "eV", "positive position", ValueRangeError),
        (float("nan"), "nm", "eV", "positive position", ValueRangeError),
    ],
)
def test_bad_units_and_wavelengths_are_refused(value, source, target, message, error):
    with pytest.raises(error, match=message):
        convert_position(value, source, target)
