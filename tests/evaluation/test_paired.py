"""Paired statistics against values computed by hand and by definition, and the published values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.errors import MismatchError
from molspectra.evaluation.paired import molecule_interval, seed_test
from molspectra.evaluation.published import QM9_UNITS, ablation, factor, md17, pilot, qm9

VALUES = st.lists(
    st.tuples(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32)), min_size=1, max_size=8
)


def test_three_seeds_by_hand():
    # differences -1, -2, -3: mean -2, sd 1, t = -2/(1/sqrt 3) = -3.4641 with 2 degrees of freedom
    result = seed_test({0: 1.0, 1: 2.0, 2: 3.0, 9: 5.0}, {0: 2.0, 1: 4.0, 2: 6.0, 7: 5.0})
    assert result.seeds == (0, 1, 2)
    assert result.differences == (-1.0, -2.0, -3.0)
    assert (result.mean, result.sd) == (-2.0, 1.0)
    # P(|t| > x) with 2 degrees of freedom is 1 - x / sqrt(x^2 + 2)
    t = 2 * math.sqrt(3)
    assert result.t_p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert result.low == pytest.approx(-2 - 4.302652729911275 / math.sqrt(3))
    assert result.high == pytest.approx(-2 + 4.302652729911275 / math.sqrt(3))
    assert result.sign_p == result.permutation_p == result.smallest_p == 0.25


def test_mixed_signs_by_hand():
    result = seed_test(dict(enumerate([3.0, 1.0, -1.0, 1.0])), dict.fromkeys(range(4), 0.0))
    # one of four negative: 2 (C(4,0) + C(4,1)) / 16; sums of at least 4 in size: +-6, +-4 (3 ways each sign)
    assert result.sign_p == pytest.approx(10 / 16)
    assert result.permutation_p == pytest.approx(8 / 16)


def test_pairs_are_made_by_seed():
    result = seed_test({0: 1.0, 1: 2.0, 2: 4.0, 7: 9.0}, {2: 3.0, 1: 2.0, 0: 3.0, 8: 0.0})
    assert result.differences == (-2.0, 0.0, 1.0)
    assert result.mean == pytest.approx(-1 / 3)
    assert (result.lower, result.higher) == (1, 1)


def test_one_seed_has_no_spread():
    result = seed_test({3: 1.0}, {3: 2.0})
    assert math.isnan(result.sd)
    assert math.isnan(result.t_p)
    assert math.isnan(result.low)
    assert result.permutation_p == result.smallest_p == 1.0
    assert seed_test({0: 1.0}, {1: 1.0}) is None


def test_equal_differences_and_none_at_all():
    assert seed_test({0: 1.0, 1: 1.0}, {0: 0.0, 1: 0.0}).t_p == 0.0
    same = seed_test({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0})
    assert (same.t_p, same.sign_p, same.permutation_p) == (1.0, 1.0, 1.0)


@given(VALUES)
def test_tests_do_not_care_which_arm_is_first(pairs):
    first, second = (dict(enumerate(values)) for values in zip(*pairs, strict=True))
    one, other = seed_test(first, second), seed_test(second, first)
    assert one.mean == -other.mean
    assert one.permutation_p == pytest.approx(other.permutation_p)
    assert one.sign_p == other.sign_p
    assert one.smallest_p <= one.permutation_p <= 1


@given(VALUES)
def test_permutation_by_its_definition(pairs):
    result = seed_test(*(dict(enumerate(values)) for values in zip(*pairs, strict=True)))
    differences = result.differences
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    whole = abs(sum(differences))
    assert result.permutation_p == pytest.approx(np.mean([value >= whole - 1e-9 for value in sums]))


def test_molecule_interval_holds_the_difference_and_shrinks():
    generator = np.random.default_rng(5)
    base = generator.uniform(0, 2, 4000)
    better = base - 0.1 + 0.2 * generator.standard_normal(4000)
    few = molecule_interval([better[:100]], [base[:100]])
    many = molecule_interval([better], [base])
    assert many.low < many.difference < many.high < 0
    assert many.difference == pytest.approx((better - base).mean())
    # the normal approximation of the same interval
    half = 1.96 * (better - base).std() / math.sqrt(4000)
    assert many.high - many.low == pytest.approx(2 * half, rel=0.1)
    assert few.high - few.low > 3 * (many.high - many.low)
    assert many.better == pytest.approx((better < base).mean())


def test_molecule_interval_averages_runs_and_is_repeatable():
    runs = [np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])]
    zeros = [np.zeros(3), np.zeros(3)]
    result = molecule_interval(runs, zeros)
    assert (result.low, result.difference, result.high, result.runs) == (2.0, 2.0, 2.0, 2)
    again = molecule_interval([runs[0]], [np.zeros(3)])
    assert again == molecule_interval([runs[0]], [np.zeros(3)])


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([[1.0]], [[1.0], [2.0]]), ([[1.0, 2.0]], [[1.0]]), ([[]], [[]]), ([[1.0], [1.0, 2.0]],) * 2],
)
def test_unequal_molecules_are_refused(first, second):
    with pytest.raises(MismatchError):
        molecule_interval(first, second)


def test_published_values():
    rows = {row.method: row for row in qm9("gap")}
    assert (rows["MolSpectra"].value, rows["MolSpectra"].unit) == (26.8, "meV")
    assert rows["Coord"].value == 31.8
    assert "no weights were released" in rows["MolSpectra"].note
    assert "CT-SCD-PCQ" not in {row.method for row in qm9("mu")}
    assert all(len(qm9(target)) >= 4 for target in QM9_UNITS)
    assert {row.method: row.value for row in md17("uracil")}["AniDS"] == 0.062
    assert ablation("without IR", "lumo").value == 14.1
    assert ablation("without IR", "alpha") is None
    assert {row.value for row in pilot("alpha")} == {0.071, 0.049}
    assert qm9("no such") == md17("water") == pilot("mu") == ()


def test_units():
    assert factor("eV", "meV") == 1000
    assert factor("Hartree", "meV") == pytest.approx(27211.386)
    assert factor("bohr^3", "a0^3") == factor("D", "Debye") == 1
    assert factor("eV/Å", "kcal/mol/Å") == pytest.approx(23.0605, abs=1e-4)
    assert factor("D", "meV") is None
