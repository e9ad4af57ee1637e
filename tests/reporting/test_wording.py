import math

import numpy as np
import pytest

from molspectra.evaluation.paired import molecule_interval, seed_test
from molspectra.evaluation.ranking import RankFigures
from molspectra.reporting.content import Arm, LossLine, ResultTable, RetrievalResult, Score
from molspectra.reporting.wording import (
    comparisons,
    conclusion,
    duration,
    few_seeds,
    loss_sentences,
    mean_sd,
    number,
    paired_sentence,
    retrieval_sentences,
    signed,
    table_sentences,
)


def arm(key, *maes, pretraining=""):
    scores = tuple(Score(seed, mae, 2 * mae, 0.5) for seed, mae in enumerate(maes))
    return Arm(key, f"from {key}", scores, pretraining)


def result_table(*arms, constant=None):
    return ResultTable("gap", "eV", "test", 100, 800, arms, constant)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (0.1, "0.100"),
        (12.3456, "12.3"),
        (1234.6, "1235"),
        (0.0, "0"),
        (-0.5, "−0.500"),
        (1e-7, "1.00e−07"),
        (None, "–"),
        (math.nan, "–"),
        (0.9999, "1.00"),
        (999.7, "1000"),
        (99.96, "100"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_differences_carry_their_sign():
    assert [signed(value) for value in (0.01, -0.01, 0.0)] == ["+0.0100", "−0.0100", "0"]


def test_durations_for_people():
    assert [duration(value) for value in (1.24, 42, 125, 7384, None)] == [
        "1.2 s",
        "42 s",
        "2 min 5 s",
        "2 h 3 min",
        "–",
    ]


def test_the_deviation_is_left_out_for_one_value():
    assert mean_sd([0.2]) == "0.200"
    assert mean_sd([0.1, 0.3]) == "0.200 ± 0.14"


def test_the_sentence_follows_the_sign_of_the_numbers():
    base = arm("scratch", 0.30, 0.40)
    better = paired_sentence(arm("stage2", 0.20, 0.35), base, "eV")
    assert "seed 0 −0.100, seed 1 −0.0500; mean −0.0750 (−21.4\u00a0%)" in better
    assert "lower in all 2 seeds" in better
    assert "by chance in 50\u00a0% of cases" in better
    worse = paired_sentence(arm("stage2", 0.35, 0.45), base, "eV")
    assert "higher in all 2 seeds" in worse
    assert "lower" not in worse
    mixed = paired_sentence(arm("stage2", 0.20, 0.45), base, "eV")
    assert "lower in 1 and higher in 1 of 2 seeds" in mixed
    assert "no difference is shown" in mixed
    assert "no difference in any seed" in paired_sentence(base, base, "eV")
    assert "one seed says nothing" in paired_sentence(arm("stage2", 0.1), base, "eV")
    assert "chance" not in paired_sentence(arm("stage2", *[0.1] * 6), arm("scratch", *[0.2] * 6), "eV")


def test_without_a_common_seed_nothing_is_compared():
    other = Arm("stage2", "from stage2", (Score(7, 0.1, 0.2, None),))
    assert "no seed in common" in paired_sentence(other, arm("scratch", 0.2), "eV")


def test_every_start_is_compared_with_scratch_and_spectra_with_none():
    arms = [arm("scratch", 1.0), arm("stage1", 1.0), arm("stage2", 1.0)]
    pairs = [(first.key, second.key) for first, second in comparisons(result_table(*arms))]
    assert pairs == [("stage1", "scratch"), ("stage2", "scratch"), ("stage2", "stage1")]
    assert comparisons(result_table(arm("stage1", 1.0))) == []


def test_runs_without_skill_are_named():
    sentences = table_sentences(result_table(arm("scratch", 0.3, 0.6), arm("stage1", 0.2), constant=0.5))
    assert any("no better than that: scratch seed 1." in sentence for sentence in sentences)
    sentences = table_sentences(result_table(arm("scratch", 0.3), constant=0.5))
    assert any("every run is below" in sentence for sentence in sentences)
    sentences = table_sentences(result_table(arm("stage1", 0.3, pretraining="one run.")))
    assert sentences == ["stage1: one run."]


def test_the_search_is_told_beside_chance():
    figures = RankFigures(50, 120.0, {1: 0.4}, 0.5, 2.0, {1: 1 / 120}, 0.04)
    isomers = RankFigures(30, 4.0, {1: 0.5}, 0.6, 1.0, {1: 0.25}, 0.5)
    result = RetrievalResult(
        "s2", "test", 120, ("test", "val"), np.arange(1, 51), {"ir + raman": (figures, isomers)}
    )
    first, second = retrieval_sentences(result)
    assert "50 molecules of the test part were searched by their spectra (ir, raman) among" in first
    assert "120 different molecules of the test and validation parts" in first
    assert "40.0\u00a0% of them, where a random order gives 0.8\u00a0%" in first
    assert "50.0\u00a0%; a random order gives 25.0\u00a0%" in second


def test_losses_without_skill_are_named():
    lines = [LossLine("a", "denoising", 1.2, 0.9), LossLine("a", "alignment", 0.2, 3.0)]
    assert loss_sentences(lines) == ["No better than a model that has learnt nothing: a: denoising."]
    assert loss_sentences(lines[1:]) == []


def test_conclusions_follow_the_numbers():
    clear = seed_test(dict(enumerate([1.0, 1.1, 0.9])), dict(enumerate([2.0, 2.1, 2.0])))
    assert "is lower than" in conclusion("a", "b", clear, None)
    unclear = seed_test(dict(enumerate([1.0, 3.0])), dict(enumerate([2.0, 2.1])))
    assert "no difference" in conclusion("a", "b", unclear, None)
    assert "no proof" in conclusion("a", "b", unclear, None)
    errors = np.linspace(0, 1, 50)
    apart = molecule_interval([errors], [errors + 1])
    assert "expected to have the lower error" in conclusion("a", "b", clear, apart)
    noise = np.where(np.arange(50) % 2, 0.5, -0.5)
    mixed = molecule_interval([errors + noise], [errors])
    assert "come out the other way" in conclusion("a", "b", clear, mixed, "frames")
    assert "nothing can be said" in conclusion("a", "b", seed_test({3: 1.0}, {3: 2.0}), None)


def test_few_seeds_are_told():
    assert "0.25" in few_seeds(3)
    assert "One seed" in few_seeds(1)
    assert few_seeds(6) == ""
