import numpy as np
import pytest

from molspectra.errors import FormatError, NotFoundError, ValueRangeError
from molspectra.spectra.modality import IR
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum


def test_lines_are_copied_and_read_only():
    position = np.array([-30.0, 1000.0, 1000.0])
    lines = LineSpectrum("ir", position, [0, 1, 2], level="GFN2-xTB")
    position[0] = 5.0
    assert lines.position.tolist() == [-30.0, 1000.0, 1000.0]
    assert lines.intensity.dtype == np.float64
    assert len(lines) == 3
    with pytest.raises(ValueError, match="read-only"):
        lines.intensity[0] = 1.0


@pytest.mark.parametrize(
    ("name", "position", "intensity", "message", "error"),
    [
        ("nmr", [], [], "unknown modality", NotFoundError),
        ("ir", [1.0, 2.0], [1.0], "2 positions but 1 intensities", ValueRangeError),
        ("ir", [2.0, 1.0], [1.0, 1.0], "must ascend", ValueRangeError),
        ("ir", [1.0, 2.0], [1.0, -1e-9], "ir line 2 has a negative intensity", ValueRangeError),
        (
            "ir",
            [1.0, np.nan],
            [1.0, 1.0],
            "ir line positions contain a value that is not a finite",
            ValueRangeError,
        ),
        (
            "raman",
            [1.0],
            [np.inf],
            "raman line intensities contain a value that is not a finite",
            ValueRangeError,
        ),
        ("ir", [[1.0]], [[1.0]], "one list of numbers", ValueRangeError),
        ("ir", ["a"], [1.0], "must be a list of numbers", FormatError),
    ],
)
def test_bad_lines_are_refused(name, position, intensity, message, error):
    with pytest.raises(error, match=message):
        LineSpectrum(name, position, intensity)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3500), "has 3501 points, not 3500"),
        (np.full(3501, np.nan), "not a finite number"),
        (np.full(3501, -1e-3), "is negative"),
        (np.zeros((1, 3501)), "one list of numbers"),
    ],
)
def test_bad_samples_are_refused(values, message):
    with pytest.raises(ValueRangeError, match=message):
        SampledSpectrum("ir", values)


def test_samples_know_their_axis():
    spectrum = SampledSpectrum("ir", np.arange(3501.0), source="instrument")
    assert np.array_equal(spectrum.axis, IR.axis())
    assert spectrum.values[spectrum.axis == 1600.0] == 1100.0


def test_one_lorentzian_by_hand():
    # width 12: height 2/(12π) = 0.0530516 at the centre, half of it 6 away, 1/(1+4) of it 12 away
    spectrum = LineSpectrum("ir", [1000.0], [100.0], level="made up").broadened()
    assert spectrum.source == "made up"
    assert spectrum.modality == "ir"
    at = {x: float(spectrum.values[spectrum.axis == x][0]) for x in (1000.0, 1006.0, 994.0, 1012.0)}
    assert at[1000.0] == pytest.approx(5.30516, rel=1e-5)
    assert at[1006.0] == pytest.approx(5.30516 / 2, rel=1e-5)
    assert at[994.0] == pytest.approx(5.30516 / 2, rel=1e-5)
    assert at[1012.0] == pytest.approx(5.30516 / 5, rel=1e-5)


def test_one_gaussian_by_hand():
    # width 0.4 eV: height √(4 ln 2/π)/0.4 = 2.348593 at the centre, half of it 0.2 away, 1/16 of it 0.4 away
    spectrum = LineSpectrum("uv_vis", [5.0], [1.0]).broadened(shape="gaussian", fwhm=0.4)
    index = int(np.argmax(spectrum.values))
    assert spectrum.axis[index] == pytest.approx(5.0)
    assert spectrum.values[[index, index + 10, index - 20]] == pytest.approx(
        [2.348593, 2.348593 / 2, 2.348593 / 16], rel=1e-5
    )


def test_the_scale_moves_positions_only():
    lines = LineSpectrum("ir", [1000.0, 3000.0], [1.0, 2.0])
    scaled = lines.broadened(scale=0.965).values
    moved = LineSpectrum("ir", [965.0, 2895.0], [1.0, 2.0]).broadened().values
    assert scaled == pytest.approx(moved, abs=1e-7)


@pytest.mark.parametrize("shape", ["lorentzian", "gaussian"])
def test_the_area_of_a_spectrum_is_the_sum_of_its_intensities(shape):
    lines = LineSpectrum("ir", [2000.3, 2250.8], [30.0, 12.0])
    area = float(np.trapezoid(lines.broadened(shape=shape).values, IR.axis()))
    # of a Lorentzian, w/2π · (1/a + 1/b) lies beyond a on one side and b on the other
    lost = 0.0 if shape == "gaussian" else 6 / np.pi * (30 / 1500.3 + 30 / 1999.7 + 12 / 1750.8 + 12 / 1749.2)
    assert area == pytest.approx(42.0 - lost, rel=1e-5)


def test_no_lines_give_a_spectrum_of_zeros():
    assert not LineSpectrum("raman", [], []).broadened().values.any()
