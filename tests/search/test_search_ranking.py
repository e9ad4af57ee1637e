"""Answers, ranks, confidences and temperatures against plain loops."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.search import score
from molspectra.search.calibrate import FALSE_ALARMS, _fit, _missing, confidences, measured_like
from molspectra.search.library import Library
from molspectra.search.ranking import Answers, groups, leading

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
    fit = _fit((temperature * logits).astype(np.float32), np.zeros(count))
    assert fit.temperature == pytest.approx(temperature, rel=0.1)
    assert fit.confidence == pytest.approx(fit.accuracy, abs=0.05)  # calibrated


def test_a_mixture_is_right_where_some_queries_are_more_disturbed():
    """Right answers drawn at two temperatures: in every part of the confidences the stated share is right."""
    generator = np.random.default_rng(4)
    count = 900
    logits = generator.normal(0, 4, (count, count))
    shares = np.exp(logits / np.where(np.arange(count) % 3, 1.0, 4.0))
    shares /= shares.sum(0)
    for query in range(count):
        true = generator.choice(count, p=shares[:, query])
        logits[[query, true], query] = logits[[true, query], query]
    fit = _fit(logits.astype(np.float32), np.zeros(count))
    right = logits.argmax(0) == np.arange(count)

    def worst(mixture):
        stated = np.array([confidences(each / fit.temperature, mixture).max() for each in logits.T])
        parts = np.array_split(np.argsort(stated), 5)
        return max(abs(stated[part].mean() - right[part].mean()) for part in parts)

    assert worst(fit.mixture) < 0.1
    assert worst(fit.mixture) < worst(None)
    assert confidences(np.array([1.0, 3.0, -np.inf]), (0.5, 0.5, 2.0, 0.1)).sum() == pytest.approx(1)
    assert confidences(np.array([1.0, 90.0]), (0.5, 0.5, 2.0, 0.1)).max() == pytest.approx(0.95)
    assert confidences(np.array([1.0, 90.0] + 98 * [-np.inf]), (0.5, 0.5, 2.0, 0.1)).max() > 0.99


def test_a_larger_library_makes_less_sure():
    generator = np.random.default_rng(5)
    scores = generator.normal(0, 1, (60, 20)).astype(np.float32)
    scores[np.arange(20), np.arange(20)] += 3
    alone = _fit(scores, np.zeros(60))
    weights = np.concatenate([np.zeros(20), np.full(40, np.log(100))])
    assert _fit(scores, weights).confidence < alone.confidence


def test_calibration_of_an_index(made):
    calibration = Library(made).manifest.calibration
    held_out = "validation molecules of the model's training (embedding, learned)"
    assert calibration.source == f"the library's own molecules, {held_out}"
    assert calibration.queries >= 8
    subsets = ["uv_vis", "ir", "raman", "uv_vis+ir", "uv_vis+raman", "ir+raman", "uv_vis+ir+raman"]
    assert set(calibration.temperature) == {f"{way}:{each}" for way in score.WAYS for each in subsets}
    assert all(0 < each <= 1 for each in calibration.confidence.values())
    assert calibration.mixture.keys() == calibration.temperature.keys()


def test_measured_like_spectra_differ_in_positions_and_intensities_but_are_the_same_each_time():
    spectra = np.zeros((40, 3501), np.float32)
    spectra[:, 1700] = 10
    spectra[:, 700] = 5
    moved = measured_like(spectra, "ir")
    np.testing.assert_array_equal(moved, measured_like(spectra, "ir"))
    assert not np.array_equal(moved, measured_like(spectra, "ir", seed=1))
    positions = np.argmax(np.abs(moved[:, 1300:2100]), axis=1) + 1300
    assert np.mean(positions) == pytest.approx(1700 - 0.02 * 2200, abs=25)  # 2200 cm⁻¹ times a scale of 0.98
    assert 20 < np.std(positions) < 60
    assert moved.min() < 0


def test_the_score_of_a_missing_molecule():
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 1, (500, 200))
    formulas = np.arange(500) % 50
    same = formulas[:, None] == formulas[:200]
    scores[np.arange(200), np.arange(200)] += 4
    threshold, found = _missing(scores, same)
    top = np.sort(scores, axis=0)[-5]  # one in a hundred reaches it
    best = [max(scores[formulas == formulas[query], query]) for query in range(200)]
    assert np.mean(best - top < threshold) == pytest.approx(FALSE_ALARMS, abs=0.006)
    assert found > 0.6
    assert _missing(scores, np.eye(500, 200, dtype=bool)) is None  # no other of a formula
    scores[np.arange(200), np.arange(200)] -= 4
    assert _missing(scores, same) is None  # nothing tells them apart


def test_groups_of_near_ties():
    assert groups(np.array([0.4, 0.3, 0.2, 0.19, 0.1, 0.0, 0.0])).tolist() == [1, 1, 1, 2, 2, 3, 3]
    assert groups(np.array([])).tolist() == []


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
