import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from molspectra.errors import MismatchError
from molspectra.spectra.plots import plot_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

LINES = LineSpectrum("ir", [100.0, 1000.0, 1700.0], [900.0, 10.0, 40.0])


def sticks(ax):
    (collection,) = (c for c in ax.collections if isinstance(c, LineCollection))
    return [segment.tolist() for segment in collection.get_segments()]


def test_curve_sticks_labels_and_units():
    ax = Figure().subplots()
    sampled = LINES.broadened()
    plot_spectrum(ax, sampled, LINES, label="acetone")
    (curve,) = ax.lines
    assert np.array_equal(curve.get_xdata(), sampled.axis)
    assert np.array_equal(curve.get_ydata(), sampled.values)
    assert curve.get_label() == "acetone"
    assert ax.get_xlabel() == "Wavenumber / cm⁻¹"
    assert ax.get_ylabel() == "IR intensity / (km/mol·cm)"
    assert ax.get_xlim() == (500.0, 4000.0)
    assert ax.get_ylim()[0] == 0.0
    # the line at 100 is outside; the highest inside is as high as the curve, the other a quarter of it
    top = sampled.values.max()
    (low, high) = sticks(ax)
    assert low == [[1000.0, 0.0], [1000.0, pytest.approx(top / 4)]]
    assert high == [[1700.0, 0.0], [1700.0, pytest.approx(top)]]


def test_infrared_may_run_from_high_to_low():
    ax = Figure().subplots()
    plot_spectrum(ax, LINES.broadened(), descending=True)
    assert ax.get_xlim() == (4000.0, 500.0)
    assert not ax.collections


@pytest.mark.parametrize(
    ("name", "xlabel", "ylabel"),
    [
        ("uv_vis", "Energy / eV", "Absorption / (1/eV)"),
        ("raman", "Raman shift / cm⁻¹", "Raman activity / (Å⁴/amu·cm)"),
    ],
)
@pytest.mark.parametrize("intensity", [0.0, 1.0])
def test_every_modality_can_be_drawn_even_when_dark(name, xlabel, ylabel, intensity):
    figure = Figure()
    ax = figure.subplots()
    lines = LineSpectrum(name, [10.0], [intensity])
    plot_spectrum(ax, lines.broadened(), lines)
    figure.canvas.draw()
    assert (ax.get_xlabel(), ax.get_ylabel()) == (xlabel, ylabel)


def test_spectra_of_two_modalities_do_not_mix():
    with pytest.raises(MismatchError, match="lines of ir cannot go with a raman spectrum"):
        plot_spectrum(Figure().subplots(), SampledSpectrum("raman", np.zeros(3501)), LINES)
