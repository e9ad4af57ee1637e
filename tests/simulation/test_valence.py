"""Valence coordinates against finite differences, and what the corrections keep and improve."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tblite")

from molspectra.chem.readers import from_smiles
from molspectra.errors import SettingError
from molspectra.simulation import valence, xtb
from molspectra.simulation.api import levels_of_theory, relax, simulate
from molspectra.simulation.factors import parameters
from molspectra.simulation.units import BOHR
from molspectra.simulation.vibrations import masses_of, normal_modes

FUNDAMENTALS = json.loads(
    (Path(__file__).parents[2] / "scripts/fundamentals.json").read_text(encoding="utf-8")
)["molecules"]


def hessian_of(molecule):
    start = relax(molecule, molecule.positions / BOHR)
    calculator = xtb.Xtb(molecule.numbers, start, molecule.charge)
    result = calculator.run(start)
    derivatives = xtb.field_derivatives(molecule.numbers, start, molecule.charge, result)
    return start, xtb.hessian(calculator, start, result), derivatives


def angle(a, b, c):
    u, v = a - b, c - b
    return np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def test_the_coordinates_of_propenal_are_derivatives():
    molecule = from_smiles("C=CC=O")
    positions = molecule.positions / BOHR
    found = valence.valence(molecule.numbers, positions)
    words = [kind.split()[0] for kind in found.kinds]
    assert {word: words.count(word) for word in set(words)} == {
        "stretch": 7,
        "bend": 9,
        "wag": 3,
        "torsion": 8,
    }
    assert {"stretch C2-H", "stretch C=C", "stretch C=O", "bend HH C3", "torsion single"} <= set(found.kinds)
    generator = np.random.default_rng(0)
    step = 1e-5 * generator.normal(size=positions.shape)
    for kind, row in zip(found.kinds, found.derivatives, strict=True):
        if kind.startswith(("stretch", "bend")):
            atoms = np.flatnonzero(np.linalg.norm(row.reshape(-1, 3), axis=1) > 1e-9)
            values = []
            for x in (positions - step, positions + step):
                if len(atoms) == 2:
                    values.append(np.linalg.norm(x[atoms[0]] - x[atoms[1]]))
                else:
                    distances = np.linalg.norm(x[atoms][:, None] - x[atoms], axis=-1)
                    centre = int(distances.sum(0).argmin())
                    values.append(angle(*x[np.roll(atoms, 1 - centre)]))
            assert abs(row @ step.ravel() * 2) == pytest.approx(
                abs(values[1] - values[0]), rel=1e-3, abs=1e-9
            )


@pytest.mark.parametrize(
    "smiles", ["O", "C#CC", "C=C=C", "C=C=C(C)C#N", "O=C=O", "c1ccoc1", "CC(C)=O", "ClO"]
)
def test_factors_of_one_keep_the_frequencies(smiles):
    molecule = from_smiles(smiles)
    positions, hessian, _ = hessian_of(molecule)
    coordinates = valence.valence(molecule.numbers, positions)
    constants = valence.force_constants(hessian, coordinates)
    same = valence.scaled(constants, coordinates, lambda kind: 1.0)
    masses = masses_of(molecule.numbers)
    before, after = (normal_modes(masses, positions, each).wavenumbers for each in (hessian, same))
    np.testing.assert_allclose(after, before, atol=0.2)
    half = valence.scaled(constants, coordinates, lambda kind: 0.25)
    np.testing.assert_allclose(normal_modes(masses, positions, half).wavenumbers, 0.5 * before, atol=0.2)


def test_a_turned_molecule_has_the_same_corrected_frequencies_and_charge():
    molecule = from_smiles("CC=O")
    positions, hessian, derivatives = hessian_of(molecule)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turns = np.kron(np.eye(len(molecule.numbers)), turn)
    turned = xtb.FieldDerivatives(turns.T @ derivatives.dipole @ turn, derivatives.polarisability)
    masses, results = masses_of(molecule.numbers), []
    for x, each, field in (
        (positions, hessian, derivatives),
        (positions @ turn, turns.T @ hessian @ turns, turned),
    ):
        corrected, dipole = valence.corrected("GFN2-xTB", molecule.numbers, x, each, field)
        np.testing.assert_allclose(dipole.dipole.reshape(-1, 3, 3).sum(0), 0, atol=2e-3)  # neutral
        modes = normal_modes(masses, x, corrected)
        results.append((modes.wavenumbers, ((modes.displacements @ dipole.dipole) ** 2).sum(1)))
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)


def test_scaled_frequencies_are_nearer_to_observed_ones():
    errors = {"gfn2": [], "scaled": []}
    for smiles in ("O", "C=O", "CO", "C#N", "C=C", "CC#N", "OC=O"):
        observed = FUNDAMENTALS.get(smiles, FUNDAMENTALS["O=CO"])
        for level, each in errors.items():
            result = simulate(smiles, ["ir"], level=level)
            each += np.abs(result.lines["ir"].position - observed).tolist()
            assert ("scaled" in result.levels["ir"]) == (level == "scaled")
            assert "scaled" not in result.properties["zpve"].level
    assert np.mean(errors["scaled"]) < 0.7 * np.mean(errors["gfn2"])


def test_a_correction_is_told_by_the_level_and_refused_where_there_is_none():
    assert levels_of_theory(["ir"])["ir"] != levels_of_theory(["ir"], level="scaled")["ir"]
    with pytest.raises(SettingError, match="dft"):
        levels_of_theory(["ir"], level="dtf")
    with pytest.raises(SettingError, match="ir alone"):
        levels_of_theory(["ir", "raman"], level="dft")
    with pytest.raises(SettingError, match="uv_vis"):
        levels_of_theory(["uv_vis"], level="scaled")


def test_kinds_that_were_never_fitted_have_the_factor_of_their_word():
    fitted = parameters("GFN2-xTB")
    assert fitted.factor("stretch Si-H") == fitted.factors["stretch"]
    assert fitted.factor("unknown") == 1.0


def test_b3lyp_frequencies_of_formaldehyde():
    result = simulate("C=O", ["ir"], level="dft")
    np.testing.assert_allclose(result.lines["ir"].position, FUNDAMENTALS["C=O"], atol=45)
    assert result.levels["geometry"].startswith("B3LYP/def2-SVP")
    strongest = result.lines["ir"].position[result.lines["ir"].intensity.argsort()[::-1][:2]]
    assert 1700 < strongest.min() < 1800  # C=O
