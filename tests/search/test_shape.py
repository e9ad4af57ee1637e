"""The similarity that bears the differences between measured and computed spectra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.errors import ValueRangeError
from molspectra.search.shape import shapes, similarities
from molspectra.search.vectors import coarse, unit
from molspectra.spectra.modality import IR, UV_VIS
from molspectra.spectra.spectrum import LineSpectrum

PLACES = ((1050, 1720, 2950), (900, 1600, 3050), (1220, 1740, 2980), (760, 1450, 3600))
EVERYWHERE = np.ones(IR.points, bool)


def spectrum(places, strengths=(80, 150, 60), kind=IR):
    return LineSpectrum(kind.name, np.array(places, float), np.array(strengths, float)).broadened().values


ENTRIES = unit(np.stack([coarse(spectrum(each), IR) for each in PLACES]))


def best(values, **options):
    scores = similarities(ENTRIES, shapes(values[None], EVERYWHERE, EVERYWHERE, IR, **options), IR)[:, 0]
    return int(scores.argmax()), scores


def test_an_entry_is_like_itself_and_like_no_other():
    for row, places in enumerate(PLACES):
        found, scores = best(spectrum(places))
        assert found == row
        assert scores[row] == pytest.approx(1, abs=1e-3)
        assert np.sort(scores)[-2] < 0.95


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 3),
    st.floats(0.955, 1.02),
    st.lists(st.floats(-15, 15), min_size=3, max_size=3),
    st.lists(st.floats(0.4, 2.5), min_size=3, max_size=3),
    st.floats(0.01, 100),
)
def test_scale_shifts_intensities_and_noise_of_a_measurement(row, scale, shifts, factors, unit_of_values):
    places = scale * np.array(PLACES[row]) + shifts
    values = spectrum(places, np.array([80, 150, 60]) * factors)
    values = values + np.random.default_rng(0).normal(0, 0.01 * values.max(), IR.points)
    assert best(values)[0] == row
    np.testing.assert_allclose(best(values)[1], best(values * unit_of_values)[1], atol=1e-4)


def test_the_scale_that_is_given_is_the_only_one():
    moved = spectrum(0.96 * np.array(PLACES[0]))
    assert best(moved)[1][0] > 0.99
    assert best(moved, scales=(0.96,))[1][0] > 0.99
    assert best(moved, scales=(1.0,))[1][0] < 0.97


def test_only_what_was_measured_and_asked_for_counts():
    axis = IR.axis()
    values, below = spectrum(PLACES[0]), axis < 2000
    other = values + spectrum((2400,), (500,))
    window = axis < 2000
    pair = [
        similarities(ENTRIES, shapes(each[None], EVERYWHERE, window, IR), IR)[:, 0]
        for each in (values, other)
    ]
    assert pair[0][0] > 0.99
    assert pair[1].argmax() == 0
    cut = similarities(ENTRIES, shapes(np.where(below, values, 0)[None], below, below, IR), IR)[:, 0]
    assert cut[0] > 0.99
    narrow = (axis > 1700) & (axis < 1760)
    with pytest.raises(ValueRangeError, match="120 cm"):
        shapes(values[None], EVERYWHERE, narrow, IR)


def test_entries_without_a_spectrum_have_no_similarity():
    entries = np.concatenate([ENTRIES, np.zeros_like(ENTRIES[:1])])
    scores = similarities(entries, shapes(spectrum(PLACES[1])[None], EVERYWHERE, EVERYWHERE, IR), IR)
    assert np.isnan(scores[-1]).all()
    assert not np.isnan(scores[:-1]).any()


def test_electronic_spectra():
    values = spectrum((4.5, 6.2), (0.1, 0.5), UV_VIS)
    entries = unit(
        np.stack([coarse(spectrum(each, (0.1, 0.5), UV_VIS), UV_VIS) for each in ((4.5, 6.2), (7, 9))])
    )
    everywhere = np.ones(UV_VIS.points, bool)
    scores = similarities(entries, shapes(values[None], everywhere, everywhere, UV_VIS), UV_VIS)[:, 0]
    assert scores[0] > 0.99 > scores[1]
