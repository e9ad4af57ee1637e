"""Filters against a plain loop over molecules."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.chem.elements import SYMBOLS, hill_formula
from molspectra.errors import InputError
from molspectra.search.filters import Filters, element_bits, hill, tolerance
from molspectra.simulation.vibrations import exact_mass

ELEMENTS = (1, 6, 7, 8, 9, 17, 53, 78, 118)
compositions = st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=8)
symbols = st.lists(st.sampled_from([SYMBOLS[each] for each in ELEMENTS]), min_size=1, max_size=5)


def table(molecules):
    bits = [element_bits(each) for each in molecules]
    return pa.table(
        {
            "formula": [hill_formula(each) for each in molecules],
            "mass": [exact_mass(np.array(each), 0) for each in molecules],
            "elements_low": pa.array([low for low, _ in bits], pa.uint64()),
            "elements_high": pa.array([high for _, high in bits], pa.uint64()),
        }
    )


@given(st.lists(compositions, min_size=1, max_size=20), symbols, symbols)
def test_elements(molecules, only, some):
    sets = [{SYMBOLS[number] for number in each} for each in molecules]
    chosen = Filters(elements=only).select(table(molecules))
    assert chosen.tolist() == [each <= set(only) for each in sets]
    chosen = Filters(contains=some).select(table(molecules))
    assert chosen.tolist() == [each >= set(some) for each in sets]
    both = Filters(elements=only, contains=some).select(table(molecules))
    assert both.tolist() == [set(some) <= each <= set(only) for each in sets]


@given(st.lists(compositions, min_size=1, max_size=20), st.data())
def test_formula_and_mass_find_the_molecule(molecules, data):
    one = data.draw(st.sampled_from(molecules))
    order = data.draw(st.permutations(sorted(set(one))))
    formula = "".join(f"{SYMBOLS[number]}{one.count(number)}" for number in order)
    chosen = Filters(formula=formula).select(table(molecules))
    assert chosen.tolist() == [sorted(each) == sorted(one) for each in molecules]
    mass = exact_mass(np.array(one), 0)
    slack = data.draw(st.floats(0.001, 50))
    chosen = Filters(mass=mass, within=f"{slack:.6f} Da").select(table(molecules))
    masses = np.array([exact_mass(np.array(each), 0) for each in molecules])
    assert chosen.tolist() == (np.abs(masses - mass) <= float(f"{slack:.6f}")).tolist()
    assert chosen[molecules.index(one)]


@given(compositions, st.integers(0, 3))
def test_a_part_of_a_million_is_that_of_the_mass(one, power):
    mass = exact_mass(np.array(one), 0)
    assert tolerance(f"{10**power}ppm", mass) == pytest.approx(mass * 10**power * 1e-6)
    near, far = mass * (1 + 0.9e-6 * 10**power), mass * (1 + 1.1e-6 * 10**power)
    assert Filters(mass=near, within=f"{10**power}ppm").select(table([one])).tolist() == [True]
    assert Filters(mass=far, within=f"{10**power}ppm").select(table([one])).tolist() == [False]


def test_exact_masses():
    assert exact_mass(np.array([8, 1, 1]), 0) == pytest.approx(18.010565, abs=1e-5)
    assert exact_mass(np.array([6] * 7 + [1] * 8), 0) == pytest.approx(92.0626, abs=1e-4)
    assert exact_mass(np.array([11]), 1) == pytest.approx(22.989769 - 0.000549, abs=1e-5)


def test_hill_order():
    assert hill("H8C7") == hill("C7H8") == "C7H8"
    assert hill("OH2") == "H2O"
    assert hill("HOH") == "H2O"
    assert hill("ClH") == "ClH"


@pytest.mark.parametrize(
    "options",
    [
        {"formula": ""}, {"formula": "C7h8"}, {"formula": "C7H8+"}, {"formula": "Xx2"}, {"formula": "C0H4"},
        {"formula": "C99999"}, {"formula": "7"}, {"formula": "C-1"}, {"mass": 0.0}, {"mass": float("nan")},
        {"mass": float("inf")}, {"within": "10"}, {"within": "ppm"}, {"within": "-1ppm"},
        {"within": "nan Da"},        {"elements": []}, {"elements": ["Q"]}, {"contains": ["c"]},
    ],
)  # fmt: skip
def test_what_cannot_be(options):
    with pytest.raises(InputError) as error:
        Filters(**options)
    assert "\n" not in str(error.value)


def test_no_filter_is_no_mask():
    assert Filters().select(table([[1]])) is None
    assert str(Filters()) == ""
    assert str(Filters("CH4", 16.0313, "5ppm", ["C", "H"])) == "CH4, 16.0313 Da ± 5ppm, only C H"
