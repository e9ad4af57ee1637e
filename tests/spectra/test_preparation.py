from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.errors import ValueRangeError
from molspectra.spectra.files.measured import MeasuredSpectrum, onto_axis
from molspectra.spectra.measured import Preparation, baseline, noise, prepare, prepare_measured
from molspectra.spectra.modality import IR, Modality
from molspectra.spectra.spectrum import LineSpectrum

TEN = Modality("ten", "u", "1/u", 0.0, 9.0, 1.0, 5, 5, 1.0)
ALL = Preparation(scale=0.97, shift=3.0, widen=5.0, baseline="als", smoothing=9.0, level=100.0)


def bands(*position, fwhm=12.0):
    lines = LineSpectrum("ir", np.array(sorted(position)), np.ones(len(position)))
    return torch.tensor(lines.broadened(fwhm=fwhm).values)[None]


def test_area_and_maximum_by_hand():
    spectrum = torch.tensor([[0.0, 1.0, 3.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0]])
    assert prepare(spectrum, TEN, Preparation(level=8.0))[0, :3].tolist() == [0.0, 2.0, 6.0]
    top = prepare(spectrum, TEN, Preparation(normalisation="maximum"))
    torch.testing.assert_close(top[0, :3], torch.tensor([0.0, 1 / 3, 1.0]))
    assert bool((top >= 0).all())
    nothing = prepare(spectrum, TEN, Preparation(normalisation="none"))
    assert nothing[0].tolist() == [0, 1, 3, 0, 0, 0, 0, 0, 0, 0]
    half = prepare(spectrum, TEN, Preparation(normalisation="none", window=(2.0, 9.0)))
    assert half[0].tolist() == [0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
    assert prepare(torch.zeros(1, 10), TEN, Preparation()).tolist() == [[0.0] * 10]


def test_a_straight_line_is_all_baseline():
    line = 3.0 + 0.01 * np.arange(500)
    np.testing.assert_allclose(baseline(line, 300.0), line, atol=1e-6)


def test_a_baseline_lies_under_a_band_and_on_what_is_slow():
    place = np.arange(3501.0)
    slow = 0.5 + 0.2 * np.cos(2 * np.pi * place / 5000)
    band = np.exp(-(((place - 1700) / 10) ** 2))
    found = baseline(slow + band, 480.0)
    np.testing.assert_allclose(found, slow, atol=0.03)
    assert abs((slow + band - found)[1700] - 1) < 0.03


def test_a_baseline_solves_its_equations():
    """Against the dense matrix of the weights that it ends with; nothing is noise in a smooth spectrum."""
    place = np.arange(40.0)
    values = 5 + 0.02 * place + 3 * np.exp(-(((place - 20) / 3) ** 2))
    width, share = 60.0, 0.05
    found = baseline(values, width, share)
    reach = 2 * 2.3 * noise(values)
    second = np.diff(np.eye(40), 2, axis=0)
    penalty = (width / (2 * np.pi)) ** 4 * second.T @ second
    first = np.zeros(40)
    for _ in range(50):
        weights = np.where(values > first, share, 1 - share)
        first = np.linalg.solve(np.diag(weights) + penalty, weights * values)
    weights = np.where(values > first + reach, share, 1 - share)
    expected = np.linalg.solve(np.diag(weights) + penalty, weights * values)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_baseline_runs_through_the_middle_of_noise():
    generator = np.random.default_rng(2)
    place = np.arange(3501.0)
    level = 0.2 + 1e-4 * place
    values = level + generator.normal(0, 0.01, 3501) + np.exp(-(((place - 900) / 15) ** 2))
    assert noise(values) == pytest.approx(0.01, rel=0.1)
    assert abs(np.mean((baseline(values, 480.0) - level)[1200:])) < 0.002  # it was 0.02 below


@settings(deadline=None, max_examples=25)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.01, 100))
def test_offset_slope_and_scale_of_an_instrument_do_not_matter(offset, slope, factor):
    spectrum = bands(900, 1700, 2950) * 30
    along = torch.linspace(-1, 1, IR.points, dtype=torch.float64)
    how = Preparation(baseline="als", smoothing=9.0, level=100.0)
    one, other = prepare(spectrum, IR, how), prepare(factor * (spectrum + offset + slope * along), IR, how)
    torch.testing.assert_close(one, other, atol=1e-4 * float(one.max()), rtol=0)
    assert float(other.sum()) * IR.step == pytest.approx(100.0)


def test_smoothing_leaves_cubics_and_takes_noise():
    along = torch.linspace(0, 1, IR.points, dtype=torch.float64)
    cubic = (1 + along - 2 * along**2 + along**3)[None]
    how = Preparation(smoothing=15.0, normalisation="none")
    torch.testing.assert_close(prepare(cubic, IR, how), cubic, atol=1e-9, rtol=0)
    noise = 0.01 * torch.randn(1, IR.points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = prepare(cubic + noise, IR, how) - cubic
    assert 0.2 < float(left.std() / noise.std()) < 0.6  # a cubic through 15 points: √0.167


def test_batches_dtypes_and_repeats_agree():
    spectra = torch.cat([bands(900, 1700), bands(2950), bands(600, 3300)])
    together = prepare(spectra, IR, ALL)
    assert torch.equal(together, prepare(spectra, IR, ALL))
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], prepare(spectra[row : row + 1], IR, ALL))
    single = prepare(spectra.float(), IR, ALL)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, atol=1e-4 * float(together.max()), rtol=0)


def transmittance(values, axis, offset=0.0):
    return MeasuredSpectrum(axis, 100 * 10 ** -(values + offset), "cm⁻¹", "percent transmittance", "ir")


def test_a_file_and_a_library_spectrum_of_one_sample_come_out_alike():
    """Other points, transmittance, another baseline and positions that the scale factor undoes."""
    spectrum = bands(900, 1700, 2950)[0].numpy() * 10
    axis = np.arange(480.0, 4180.0, 1.7)
    values = np.interp(axis * 0.96, IR.axis(), spectrum)
    how = Preparation(baseline="als", smoothing=9.0)
    measured = prepare_measured(transmittance(values, axis, 0.2), replace(how, scale=0.96), outside="zero")
    library = prepare(torch.tensor(spectrum)[None], IR, how)[0].numpy()
    ours = measured.spectrum.values
    cosine = ours @ library / np.linalg.norm(ours) / np.linalg.norm(library)
    assert cosine > 0.995
    assert measured.coverage == 1.0


def test_points_that_were_not_measured_stay_zero():
    axis = np.arange(700.0, 3000.0)
    values = 0.3 + np.interp(axis, IR.axis(), bands(900, 1700)[0].numpy())
    how = Preparation(baseline="als", smoothing=9.0)
    found = prepare_measured(MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir"), how, outside="zero")
    unknown = (IR.axis() < 700) | (IR.axis() > 2999)
    assert not found.spectrum.values[unknown].any()
    assert found.coverage == pytest.approx(2300 / 3501)
    assert "points that were not measured are 0" in found.changes
    with pytest.raises(ValueRangeError, match="outside=zero"):
        prepare_measured(MeasuredSpectrum(axis, values, "cm⁻¹", "absorbance", "ir"), how)


def test_without_steps_a_file_comes_out_as_from_onto_axis():
    axis = np.arange(400.0, 4100.0, 1.3)
    measured = transmittance(0.01 * np.sin(axis / 50) + 0.02, axis)
    plain = prepare_measured(measured, Preparation(normalisation="none")).spectrum.values
    np.testing.assert_allclose(plain, onto_axis(measured).spectrum.values, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"scale": 0.0}, "scale"),
        ({"level": -1.0}, "level"),
        ({"baseline_width": float("inf")}, "baseline_width"),
        ({"widen": -1.0}, "widen"),
        ({"smoothing": float("nan")}, "smoothing"),
        ({"shift": float("nan")}, "shift"),
        ({"asymmetry": 0.6}, "asymmetry"),
        ({"polynomial": -1}, "polynomial"),
        ({"window": (5.0, 5.0)}, "ascend"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, word):
    with pytest.raises(ValueRangeError, match=word):
        Preparation(**wrong)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (Preparation(smoothing=3.0), "3 points"),
        (Preparation(smoothing=11.0), "11 points"),
        (Preparation(baseline="als", baseline_width=41.0), "41 points"),
        (Preparation(window=(20.0, 30.0)), "nothing of the ten"),
    ],
)
def test_steps_that_do_not_fit_the_axis_are_refused(how, word):
    with pytest.raises(ValueRangeError, match=word):
        prepare(torch.ones(1, 10), TEN, how)
