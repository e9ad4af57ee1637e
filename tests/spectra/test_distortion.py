import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molspectra.spectra.broadening import broaden
from molspectra.spectra.distortion import cut, drifted, moved, noised, widened
from molspectra.spectra.modality import IR, UV_VIS, Modality

TEN = Modality("ten", "u", "1/u", 0.0, 9.0, 1.0, 5, 5, 1.0)


def lines(position, fwhm, kind=IR):
    position = torch.tensor(position, dtype=torch.float64)
    return broaden(position, torch.ones(len(position)), torch.tensor([0, len(position)]), kind, fwhm=fwhm)


def test_bands_move_to_scale_times_position_plus_shift():
    spectrum = torch.zeros(1, 10)
    spectrum[0, 4] = 1.0
    assert moved(spectrum, TEN, shift=2.0)[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert moved(spectrum, TEN, shift=-0.25)[0].tolist() == [0, 0, 0, 0.25, 0.75, 0, 0, 0, 0, 0]
    assert moved(spectrum, TEN, scale=0.5)[0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert moved(spectrum, TEN, scale=2.0, shift=-1.0)[0].tolist() == [0, 0, 0, 0, 0, 0, 0.5, 1, 0.5, 0]


def test_what_comes_from_beyond_the_axis_is_zero():
    ones = torch.ones(2, 10)
    found = moved(ones, TEN, shift=torch.tensor([3.0, -3.0]))
    assert found.tolist() == [[0] * 3 + [1] * 7, [1] * 7 + [0] * 3]
    assert torch.equal(moved(ones, TEN), ones)


def test_each_spectrum_moves_by_its_own():
    spectra = torch.rand(3, IR.points, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.tensor([0.95, 1.0, 1.02]), torch.tensor([1.5, -7.0, 0.0])
    together = moved(spectra, IR, scale, shift)
    for row in range(3):
        alone = moved(spectra[row : row + 1], IR, float(scale[row]), float(shift[row]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fwhm", [4.0, 12.0])
def test_a_folded_lorentzian_is_the_broader_lorentzian(fwhm):
    """Widths of Lorentzians add; bands far from the ends, where the axis is cut."""
    position = [1500.0, 2200.0, 2213.0, 3000.0]
    found, expected = widened(lines(position, fwhm), IR, 40 - fwhm), lines(position, 40.0)
    middle = slice(500, 3000)
    assert float((found - expected)[0, middle].abs().max()) < 3e-3 * float(expected.max())


def test_folding_keeps_the_area_and_zero_width_the_spectrum():
    spectrum = torch.zeros(1, IR.points, dtype=torch.float64)
    spectrum[0, 1750] = 1.0
    # a Lorentzian of width 10 has 1 - 2/π·10/(2·1750) of its area within 1750 of its middle
    # (and the next Lorentzians, two axes away, add a little)
    assert float(widened(spectrum, IR, 10.0).sum()) == pytest.approx(1 - 10 / (math.pi * 1750), abs=5e-4)
    torch.testing.assert_close(widened(spectrum, IR, 0.0), spectrum, atol=1e-12, rtol=0)
    wide = widened(spectrum.expand(2, -1), IR, torch.tensor([5.0, 20.0]))
    assert wide.max(1).values.tolist() == pytest.approx([2 / (math.pi * 5), 2 / (math.pi * 20)], rel=5e-2)


def test_drift_noise_and_cut_by_hand():
    spectrum = torch.zeros(1, 5)
    spectrum[0, 2] = 4.0
    found = drifted(spectrum, 0.5, 1.0, 0.0)  # half of 4, (1 + cos 2πt)/2 at t = 0, ¼, ½, ¾, 1
    torch.testing.assert_close(found, torch.tensor([[2.0, 1.0, 4.0, 1.0, 2.0]]))
    noise = torch.tensor([[1.0, -1.0, 0.0, 2.0, 0.0]])
    assert noised(spectrum, noise, 0.25).tolist() == [[1.0, -1.0, 4.0, 2.0, 0.0]]
    ones = torch.ones(2, 10)
    assert cut(ones, torch.tensor([0.2, 0.0], dtype=torch.float64), 0.3).tolist() == [
        [0, 0] + [1] * 5 + [0] * 3,
        [1] * 7 + [0] * 3,
    ]


@given(st.floats(0.9, 1.1), st.floats(-30, 30), st.floats(0, 60))
def test_no_distortion_makes_a_spectrum_negative_or_adds_area(scale, shift, fwhm):
    spectra = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (2, UV_VIS.points)))
    found = widened(moved(spectra, UV_VIS, min(scale, 1.0), shift / 10), UV_VIS, fwhm / 10)
    assert float(found.min()) > -1e-9
    assert bool((found.sum(1) <= spectra.sum(1) * (1 + 1e-9)).all())
