import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molspectra.chem.elements import SYMBOLS, atomic_number, hill_formula
from molspectra.chem.molecule import Molecule
from molspectra.errors import ElementError, ValueRangeError

WATER = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]


def water(**changes):
    return Molecule(**{"numbers": [8, 1, 1], "positions": WATER, **changes})


def test_a_molecule_knows_its_symbols_formula_and_electrons():
    molecule = water(name="water")
    assert molecule.symbols == ["O", "H", "H"]
    assert molecule.formula == "H2O"
    assert molecule.n_electrons == 10
    assert len(molecule) == 3
    assert repr(molecule) == "Molecule(H2O, 3 atoms, name='water')"
    assert Molecule([8, 1], WATER[:2], charge=-1).n_electrons == 10


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([1, 6, 8, 6, 1, 1, 1, 1, 1], "C2H6O"),
        ([17, 6, 35, 1, 9], "CHBrClF"),
        ([6, 8], "CO"),
        ([1, 8, 16, 1, 8, 8, 8], "H2O4S"),
        ([11, 17], "ClNa"),
        ([1], "H"),
    ],
)
def test_hill_order(numbers, formula):
    assert hill_formula(numbers) == formula


@pytest.mark.parametrize(
    ("number", "symbol"), [(1, "H"), (26, "Fe"), (57, "La"), (72, "Hf"), (86, "Rn"), (92, "U"), (118, "Og")]
)
def test_symbols_stand_at_their_atomic_numbers(number, symbol):
    assert SYMBOLS[number] == symbol
    assert atomic_number(symbol) == number


def test_symbols_are_those_of_rdkit():
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    assert [table.GetElementSymbol(z) for z in range(1, 119)] == list(SYMBOLS[1:])


@pytest.mark.parametrize("symbol", ["X", "*", "", "Du", "D", "Zz"])
def test_what_is_no_element_is_refused(symbol):
    with pytest.raises(ElementError, match=re.escape(repr(symbol))):
        atomic_number(symbol)


@pytest.mark.parametrize(
    ("symbol", "advice"),
    [("CA", "'Ca'"), ("Dd", "Dy, Db, Ds"), ("Du", "dummy"), ("*", "dummy"), ("D", "deuterium.* isotopes")],
)
def test_symbols_that_may_have_been_meant(symbol, advice):
    with pytest.raises(ElementError, match=advice):
        atomic_number(symbol)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"numbers": []}, ValueRangeError, "list of atomic numbers"),
        ({"numbers": [[8, 1, 1]]}, ValueRangeError, "list of atomic numbers"),
        ({"numbers": [8.0, 1.0, 1.0]}, ValueRangeError, "must be integers"),
        ({"numbers": [8, 0, 1]}, ElementError, "atom 2 has atomic number 0"),
        ({"numbers": [8, 1, 119]}, ElementError, "atom 3 has atomic number 119"),
        ({"positions": WATER[:2]}, ValueRangeError, r"shape \(3, 3\), not \(2, 3\)"),
        ({"positions": [["a", "b", "c"]] * 3}, ValueRangeError, "must be numbers"),
        (
            {"positions": [[0, 0, 0], [1, 0, float("nan")], [0, 1, 0]]},
            ValueRangeError,
            "atom 2 has a coordinate",
        ),
        (
            {"positions": [[0, 0, 0], [1, 0, 0], [0, float("inf"), 0]]},
            ValueRangeError,
            "atom 3 has a coordinate",
        ),
        (
            {"positions": [[0, 0, 0], [1, 0, 0], [1, 0, 0.29]]},
            ValueRangeError,
            "atoms 2 and 3 are closer than 0.3 Å",
        ),
        ({"charge": 0.5}, ValueRangeError, "whole number"),
        ({"charge": float("nan")}, ValueRangeError, "whole number"),
        ({"charge": 11}, ValueRangeError, "fewer than zero electrons"),
        ({"charge": -11}, ValueRangeError, "charge -11 is more than .*10"),
        ({"charge": -(10**18)}, ValueRangeError, "charge -1e.18 is more than"),
        ({"positions": [[0, 0, 0], [0, 0, 1], [1e5, 0, 0]]}, ValueRangeError, "atom 3 is at 100000 0 0"),
    ],
)
def test_bad_molecules_are_refused_in_one_line(changes, kind, message):
    with pytest.raises(kind, match=message) as caught:
        water(**changes)
    assert "\n" not in str(caught.value)


def test_coincident_atoms_are_found_in_a_large_structure():
    grid = np.stack(np.meshgrid(*[np.arange(9.0)] * 3), -1).reshape(-1, 3)
    Molecule(np.ones(len(grid), int), grid)
    grid[700] = grid[300] + 0.01
    with pytest.raises(ValueRangeError, match="atoms 301 and 701"):
        Molecule(np.ones(len(grid), int), grid)


def test_arrays_are_copied_and_read_only():
    numbers, positions = np.array([8, 1, 1], dtype=np.uint8), np.array(WATER)
    molecule = Molecule(numbers, positions)
    numbers[0], positions[0, 0] = 7, 5.0
    assert molecule.numbers.dtype == np.int64
    assert molecule.formula == "H2O"
    assert molecule.positions[0, 0] == 0.0
    for array in (molecule.numbers, molecule.positions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_with_positions_keeps_everything_else():
    moved = water(smiles="O", name="w").with_positions(np.array(WATER) + 1.0)
    assert (moved.smiles, moved.name, moved.formula) == ("O", "w", "H2O")
    assert np.allclose(moved.positions, np.array(WATER) + 1.0)


def test_geometry_id_is_a_fixed_function_of_rounded_coordinates():
    assert water().geometry_id == -7314392897931653120
    assert water(name="x", smiles="O").geometry_id == water().geometry_id
    assert water(positions=np.array(WATER) + 4e-5).geometry_id == water().geometry_id
    assert water(positions=np.array(WATER) * [-1.0, 1.0, 1.0]).geometry_id != water().geometry_id
    # minus zero is zero
    assert water(positions=np.array(WATER) * [1, 1, -1.0]).geometry_id == water().geometry_id


@given(st.integers(0, 2), st.integers(0, 2), st.sampled_from([-1.0, 1.0]))
def test_geometry_id_sees_a_move_of_one_ten_thousandth(atom, axis, sign):
    moved = np.array(WATER)
    moved[atom, axis] += sign * 1e-4
    identifier = water(positions=moved).geometry_id
    assert identifier != water().geometry_id
    assert -(2**63) <= identifier < 2**63
