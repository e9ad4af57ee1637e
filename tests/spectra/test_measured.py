import numpy as np
import pytest

from molspectra.errors import NotFoundError, SettingError, UnitError, ValueRangeError
from molspectra.spectra.files.measured import MeasuredSpectrum, onto_axis, to_absorbance
from molspectra.spectra.files.units import asked_quantity, axis_unit, quantity
from molspectra.spectra.measured import Preparation, prepare_measured
from molspectra.spectra.modality import UV_VIS
from molspectra.spectra.plausible import check_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum
from molspectra.spectra.units import EV_NM


def measured(axis, values, unit="cm⁻¹", kind="absorbance", **more):
    return MeasuredSpectrum(
        np.asarray(axis, float), np.asarray(values, float), unit, kind, source="a.jdx", **more
    )


WAVENUMBERS = np.linspace(400.0, 4100.0, 1234)


def test_it_is_ascending_and_read_only():
    spectrum = measured([3, 2, 1], [30, 20, 10])
    assert spectrum.axis.tolist() == [1, 2, 3]
    assert spectrum.values.tolist() == [10, 20, 30]
    with pytest.raises(ValueError, match="read-only"):
        spectrum.values[0] = 1


@pytest.mark.parametrize(
    ("axis", "values", "unit", "message", "error"),
    [
        ([1, 2, 2], [1, 1, 2], "nm", "does not run one way: near 2 nm", ValueRangeError),
        ([1, np.nan], [1, 1], "nm", "the position of point 2 is not a finite number", ValueRangeError),
        ([1, 2], [np.inf, 1], "nm", "the value of point 1 is not a finite number", ValueRangeError),
        ([1, 2], [1], "nm", "two lists of equal length", ValueRangeError),
        ([1, 2], [1, 1], "Hz", "unknown unit 'Hz'", UnitError),
    ],
)
def test_what_is_no_spectrum_is_refused(axis, values, unit, message, error):
    with pytest.raises(error, match=message):
        measured(axis, values, unit)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("transmittance", [1, 0.1, 0.5], [0, 1, 0.30103]),
        ("percent transmittance", [100, 10, 50], [0, 1, 0.30103]),
        ("absorbance", [0, 1, 2], [0, 1, 2]),
        ("intensity", [5, 6, 7], [5, 6, 7]),
        ("log absorptivity", [3, 0, 4], [1000, 1, 10000]),
    ],
)
def test_absorbance(kind, values, expected):
    assert to_absorbance(measured([1, 2, 3], values, kind=kind)).values == pytest.approx(expected, abs=1e-5)


def test_a_transmittance_above_one_is_in_per_cent_and_one_below_the_floor_is_raised():
    spectrum = to_absorbance(measured([1, 2, 3], [99, 10, -0.5], kind="transmittance"))
    assert spectrum.values == pytest.approx([-np.log10(0.99), 1, 4])
    assert spectrum.remarks == ("values up to 99 taken as per cent", "1 points below 0.0001 set to it")
    assert spectrum.quantity == "absorbance"


@pytest.mark.parametrize(
    ("kind", "values", "expected", "remark"),
    [
        # spikes do not make per cent of a fraction
        ("transmittance", [1.51, *[0.1] * 20], 1, "values up to 1.51 taken as fractions, not per cent"),
        ("transmittance", [*[1.3] * 9, 0.1], 1, "values up to 1.3 taken as fractions, not per cent"),
        ("transmittance", [*[90.0] * 9, 10.0], 1, "values up to 90 taken as per cent"),
        ("percent transmittance", [1.2, 1.1, 1.0], 2, "values up to 1.2 are in per cent, says the file"),
        (
            "percent absorption",
            [5.0, 90.0],
            1,
            "per cent absorption taken as 100 less the per cent transmittance",
        ),
    ],
)
def test_whether_a_transmittance_is_in_per_cent(kind, values, expected, remark):
    spectrum = to_absorbance(measured(np.arange(len(values)), values, kind=kind))
    assert spectrum.values[-1] == pytest.approx(expected)
    assert spectrum.remarks == (remark,)


def test_points_that_come_twice_are_left_out():
    spectrum = measured([3, 2, 2, 2, 1], [30, 20, 20, 20, 10])
    assert spectrum.axis.tolist() == [1, 2, 3]
    assert spectrum.remarks == ("2 points equal to the one before left out",)


def test_a_reflectance_is_converted_only_on_demand():
    spectrum = measured([1, 2], [0.5, 0.25], kind="reflectance")
    with pytest.raises(UnitError, match=r"a.jdx: a reflectance is no absorbance; .*log, kubelka-munk"):
        to_absorbance(spectrum)
    assert to_absorbance(spectrum, reflectance="log").values == pytest.approx([0.30103, 0.60206], abs=1e-5)
    # (1 - 1/2)^2 / (2/2) = 1/4; (3/4)^2 / (2/4) = 9/8
    assert to_absorbance(spectrum, reflectance="kubelka-munk").values == pytest.approx([0.25, 1.125])
    with pytest.raises(SettingError, match="unknown way 'x' with a reflectance"):
        to_absorbance(spectrum, reflectance="x")


def test_interpolation_is_linear_and_says_what_is_missing():
    converted = onto_axis(measured(WAVENUMBERS, 2 + WAVENUMBERS / 1000), "ir")
    assert converted.coverage == 1
    assert converted.remarks == ()
    assert converted.spectrum.values == pytest.approx(2 + converted.spectrum.axis / 1000)
    half = measured(np.linspace(500, 2250, 500), np.ones(500), modality="raman")
    with pytest.raises(
        ValueRangeError, match=r"a.jdx: it covers 500 to 2250 cm⁻¹, 50.0% of the raman axis \(500 to 4000"
    ):
        onto_axis(half)
    converted = onto_axis(half, outside="zero")
    assert converted.coverage == pytest.approx(1751 / 3501)
    assert converted.spectrum.values.sum() == 1751
    assert converted.spectrum.source == (
        "measured, absorbance; covers 500 to 2250 cm⁻¹, 50.0% of the axis; the rest is 0"
    )


def test_a_file_with_more_points_than_the_axis_keeps_the_area_of_narrow_lines():
    fine = np.arange(480, 4020, 0.07)
    lines = [700.5, 1234.37, 2000.81]  # between two points of the axis
    values = sum(np.exp(-(((fine - line) / 0.1) ** 2)) for line in lines)
    spectrum = onto_axis(measured(fine, values, modality="ir")).spectrum
    assert spectrum.values.sum() == pytest.approx(values.sum() * 0.07, rel=1e-6)
    for line in lines:
        assert spectrum.values[round(line) - 503 : round(line) - 496].sum() == pytest.approx(
            0.1 * np.sqrt(np.pi), rel=1e-3
        )
    straight = onto_axis(measured(fine, 3 + fine / 1000, modality="ir")).spectrum
    assert straight.values == pytest.approx(3 + straight.axis / 1000, rel=1e-11)


def test_absorbance_keeps_its_value_when_the_axis_goes_from_nm_to_ev():
    wavelength = np.linspace(80, 1300, 40000)
    peak = np.exp(-(((wavelength - 250) / 15) ** 2))
    spectrum = onto_axis(measured(wavelength, peak, "nm"), "uv_vis").spectrum
    energy = UV_VIS.axis()
    assert (
        np.abs(spectrum.values - np.exp(-(((EV_NM / energy - 250) / 15) ** 2))).max() < 4e-4
    )  # averages over 0.02 eV
    assert spectrum.values.max() == pytest.approx(1, abs=1e-3)  # a Jacobian would move and scale it
    micrometres = onto_axis(measured(wavelength / 1000, peak, "µm"), "uv_vis").spectrum
    assert micrometres.values == pytest.approx(spectrum.values, abs=1e-12)


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("µm", 1e-3)])
def test_a_density_keeps_its_area(unit, factor):
    wavelength = np.linspace(80, 1300, 40000)
    density = np.exp(-(((wavelength - 250) / 15) ** 2))  # per nm
    area = density.sum() * (wavelength[1] - wavelength[0])
    given = measured(wavelength * factor, density / factor, unit, "density")
    spectrum = onto_axis(given, "uv_vis").spectrum
    assert spectrum.values.sum() * UV_VIS.step == pytest.approx(area, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(len(WAVENUMBERS)), "all intensities are zero"),
        (np.where(WAVENUMBERS < 3000, 0.0, 1e30), r"1e\+30 cannot be right"),
        (-np.ones(len(WAVENUMBERS)), "negative intensities have 100%"),
        (np.gradient(np.exp(-(((WAVENUMBERS - 1700) / 20) ** 2))), "derivative"),
    ],
)
def test_what_cannot_be_a_spectrum_is_refused(values, said):
    with pytest.raises(ValueRangeError, match=rf"ir: .*{said}"):
        onto_axis(measured(WAVENUMBERS, values), "ir")


def test_noise_and_a_low_baseline_are_no_reason_to_refuse():
    bands = sum(np.exp(-(((WAVENUMBERS - at) / 10) ** 2)) for at in range(600, 3600, 300))
    noise = np.random.default_rng(0).normal(0, 0.03, len(WAVENUMBERS))
    for values in (bands + noise, bands - 0.03, np.where(np.abs(WAVENUMBERS - 2350) < 5, -0.8, bands)):
        converted = onto_axis(measured(WAVENUMBERS, values), "ir")
        assert "below zero" in converted.changes[-1]
    # before a baseline is subtracted, its sign says nothing
    level = Preparation(baseline="als", normalisation="none")
    assert prepare_measured(measured(WAVENUMBERS, bands - 2.0), level, "ir").spectrum.values.max() > 0.8
    with pytest.raises(ValueRangeError, match="all intensities are zero"):
        prepare_measured(measured(WAVENUMBERS, bands - 2.0), Preparation(), "ir")


@pytest.mark.parametrize(
    ("spectrum", "said"),
    [
        (LineSpectrum("ir", [], []), "zero"),
        (LineSpectrum("ir", [1000.0], [0.0]), "zero"),
        (LineSpectrum("ir", [9000.0], [5.0]), "no line lies in 500 to 4000"),
        (LineSpectrum("ir", [1000.0], [1e30]), "cannot be right"),
        (SampledSpectrum("ir", np.zeros(3501)), "zero"),
    ],
)
def test_spectra_from_memory_are_checked_alike(spectrum, said):
    with pytest.raises(ValueRangeError, match=said):
        check_spectrum(spectrum)
    check_spectrum(LineSpectrum("ir", [1000.0, 9000.0], [1e-9, 0.0]))


def test_negative_samples_are_clipped_and_counted():
    converted = onto_axis(measured(WAVENUMBERS, np.where(WAVENUMBERS < 600, -0.5, 1)), "ir")
    assert converted.spectrum.values.min() == 0
    assert "samples below zero set to 0 (lowest -0.5)" in converted.remarks[0]


@pytest.mark.parametrize(
    ("spectrum", "options", "message", "error"),
    [
        (measured([1, 2], [1, 1], "nm"), {}, "name the modality", UnitError),
        (measured([1, 2], [1, 1], "nm"), {"name": "nmr"}, "unknown modality 'nmr'", NotFoundError),
        (
            measured([-1, 2], [1, 1], "nm"),
            {"name": "uv_vis"},
            "only for a positive position",
            ValueRangeError,
        ),
        (measured([500, 4000], [1, 1]), {"name": "ir"}, "only 2 of its points", ValueRangeError),
        (
            measured([1, 2], [1, 1]),
            {"name": "ir", "outside": "zero"},
            "only 0 of its points",
            ValueRangeError,
        ),
        (
            measured([1, 2], [1, 1], kind="phase"),
            {"name": "ir"},
            "the ordinate is 'phase'; known: absorbance",
            UnitError,
        ),
        (measured([1, 2], [1, 20], kind="log absorptivity"), {"name": "ir"}, "cannot be 20", ValueRangeError),
        (measured([1, 2], [1, 1]), {"name": "ir", "outside": "guess"}, "unknown way 'guess'", SettingError),
    ],
)
def test_what_cannot_be_put_on_the_axis(spectrum, options, message, error):
    with pytest.raises(error, match=message):
        onto_axis(spectrum, **options)


def test_words_of_files():
    assert axis_unit(" 1/cm ") == "cm⁻¹"
    assert axis_unit("µm") == axis_unit("MICRONS") == "µm"
    assert axis_unit("SECONDS") is None
    assert quantity("T%") == quantity("Transmittance (%)".replace("(%)", "%")) == "percent transmittance"
    assert quantity("VARIANCE") is None
    assert asked_quantity("Transmission") == "transmittance"
