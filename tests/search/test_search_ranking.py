"""Answers, ranks, confidences and temperatures against plain loops."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.search import score
from molspectra.search.calibrate import _absent, _fit, measured_like
from molspectra.search.library import Library
from molspectra.search.ranking import Answers, leading

values = st.floats(-5, 5, width=32) | st.just(-np.inf) | st.sampled_from([0.0, 1.0])


@given(st.lists(st.tuples(st.sampled_from("abcdef"), values), min_size=1, max_size=30), st.integers(1, 9))
def test_answers_are_the_best_of_their_entries(entries, top):
    names = pa.chunked_array(
        [[name for name, _ in entries[:4]], [name for name, _ in entries[4:]]], pa.string()
    )
    totals = np.array([value for _, value in entries])
    answers = Answers(names)
    best, rows = answers.best(totals)
    distinct = list(dict.fromkeys(name for name, _ in entries))
    assert len(answers) == len(distinct)
    for number, name in enumerate(distinct):
        mine = [row for row, (each, _) in enumerate(entries) if each == name]
        assert best[number] == max(totals[mine])
        assert rows[number] == next(row for row in mine if totals[row] == best[number])
    expected = sorted((-value, number) for number, value in enumerate(best) if value > -np.inf)[:top]
    assert leading(best, top).tolist() == [number for _, number in expected]


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_the_fitted_temperature_is_that_of_the_data(temperature):
    """Scores of which the true answer was drawn by their softmax at a known temperature."""
    generator = np.random.default_rng(3)
    count = 600
    logits = generator.normal(0, 4, (count, count))
    shares = np.exp(logits) / np.exp(logits).sum(0)
    for query in range(count):
        true = generator.choice(count, p=shares[:, query])
        logits[[query, true], query] = logits[[true, query], query]
    found, accuracy, confidence = _fit((temperature * logits).astype(np.float32), np.zeros(count))
    assert found == pytest.approx(temperature, rel=0.1)
    assert confidence == pytest.approx(accuracy, abs=0.05)  # calibrated


def test_a_larger_library_makes_less_sure():
    generator = np.random.default_rng(5)
    scores = generator.normal(0, 1, (60, 20)).astype(np.float32)
    scores[np.arange(20), np.arange(20)] += 3
    alone = _fit(scores, np.zeros(60))
    weights = np.concatenate([np.zeros(20), np.full(40, np.log(100))])
    assert _fit(scores, weights)[2] < alone[2]


def test_calibration_of_an_index(made):
    calibration = Library(made).manifest.calibration
    held_out = "validation molecules of the model's training (embedding, learned)"
    assert calibration.source == f"the library's own molecules, {held_out}"
    assert calibration.queries >= 8
    subsets = ["uv_vis", "ir", "raman", "uv_vis+ir", "uv_vis+raman", "ir+raman", "uv_vis+ir+raman"]
    assert set(calibration.temperature) == {f"{way}:{each}" for way in score.WAYS for each in subsets}
    assert all(0 < each <= 1 for each in calibration.confidence.values())


def test_measured_like_spectra_differ_in_positions_and_intensities_but_are_the_same_each_time():
    spectra = np.zeros((40, 3501), np.float32)
    spectra[:, 1700] = 10
    spectra[:, 700] = 5
    moved = measured_like(spectra, "ir")
    np.testing.assert_array_equal(moved, measured_like(spectra, "ir"))
    positions = np.argmax(np.abs(moved[:, 1300:2100]), axis=1) + 1300
    assert np.mean(positions) == pytest.approx(1700 - 0.02 * 2200, abs=25)  # 2200 cm⁻¹ times a scale of 0.98
    assert 20 < np.std(positions) < 60
    assert moved.min() < 0


def test_the_score_of_a_missing_molecule():
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 1, (500, 200))
    scores[np.arange(200), np.arange(200)] += 6
    threshold, found = _absent(scores)
    assert np.mean(scores.max(0) < threshold) == pytest.approx(0.02, abs=0.006)
    assert found > 0.6
    scores[np.arange(200), np.arange(200)] -= 6
    assert _absent(scores)[1] < 0.05  # nothing tells them apart


def test_similarities_against_plain_formulas():
    generator = np.random.default_rng(0)
    entries, queries = (generator.random((each, 30)).astype(np.float32) for each in (5, 3))
    entries[2] = 0
    found = score.information(entries, queries)
    assert np.isnan(found[2]).all()
    for row in (0, 1, 3, 4):
        for column, query in enumerate(queries):
            p, q = (each + 1e-3 * each.mean() for each in (entries[row], query))
            p, q = p / p.sum(), q / q.sum()
            sid = (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
            np.testing.assert_allclose(found[row, column], 1 / (1 + sid), rtol=1e-4)
    cosines = score.cosines(entries, queries)
    expected = (entries[0] @ queries[1]) / np.linalg.norm(entries[0]) / np.linalg.norm(queries[1])
    assert cosines[0, 1] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(cosines[2]).all()
    assert np.isnan(score.dots(entries, queries)[2]).all()
    assert score.information(queries, queries).diagonal() == pytest.approx(1)
