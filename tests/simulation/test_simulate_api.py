import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.errors import (
    ElementError,
    InputError,
    MissingExtraError,
    NotFoundError,
    SettingError,
    SimulationError,
    UnitError,
    ValueRangeError,
)
from molspectra.simulation import api, xtb
from molspectra.simulation.api import check_supported, levels_of_theory, simulate


def diatomic(first, second, distance, charge=0):
    return Molecule(np.array([first, second]), np.array([[0, 0, 0], [0, 0, distance]]), charge=charge)


@pytest.fixture(scope="module")
def water():
    return simulate(from_smiles("O", name="water"))


def test_everything_is_there_with_its_level(water):
    assert list(water.lines) == ["ir", "raman", "uv_vis"]
    assert set(water.properties) == {"zpve", "cv", "homo", "lumo", "gap", "dipole"}
    for name, line in water.lines.items():
        assert line.modality == name
        assert line.level == water.levels[name]
    assert water.levels["geometry"] == water.levels["ir"]
    assert "GFN2-xTB (tblite " in water.properties["zpve"].level
    assert "B3LYP/def2-SVP//GFN2-xTB (PySCF " in water.properties["gap"].level
    assert water.molecule.smiles == "O"
    assert water.molecule.name == "water"


def test_values_of_water_are_those_of_water(water):
    values = {name: each.value for name, each in water.properties.items()}
    assert values["gap"] == pytest.approx(values["lumo"] - values["homo"])
    assert values["dipole"] == pytest.approx(1.85, abs=0.3)
    assert values["zpve"] == pytest.approx(0.558, abs=0.03)
    bonds = np.linalg.norm(water.molecule.positions[1:] - water.molecule.positions[0], axis=1)
    assert bonds == pytest.approx([0.958, 0.958], abs=0.01)


def test_only_what_is_asked_for(water):
    only = simulate(from_smiles("O"), ("uv_vis",))
    assert list(only.lines) == ["uv_vis"]
    assert set(only.properties) == {"homo", "lumo", "gap", "dipole"}
    assert only.lines["uv_vis"].position == pytest.approx(water.lines["uv_vis"].position, abs=2e-3)
    assert list(simulate(from_smiles("O"), ("raman",)).lines) == ["raman"]
    assert list(simulate(from_smiles("O"), ("uv_vis", "ir")).lines) == ["uv_vis", "ir"]


def test_single_atom_and_helium():
    found = simulate(Molecule(np.array([2]), np.zeros((1, 3))))
    assert [len(line) for line in found.lines.values()] == [0, 0, 0]


def test_ions_of_closed_shells():
    hydroxide = simulate(diatomic(8, 1, 0.96, charge=-1))
    assert hydroxide.molecule.charge == -1
    assert hydroxide.lines["ir"].position[0] == pytest.approx(3700, abs=400)
    assert (
        hydroxide.properties["homo"].value > simulate(from_smiles("O"), ("uv_vis",)).properties["homo"].value
    )


@pytest.mark.parametrize(
    ("molecule", "message", "error"),
    [
        (diatomic(7, 8, 1.15), "15 electrons", ValueRangeError),
        (diatomic(8, 1, 0.96), "9 electrons", ValueRangeError),
        (diatomic(1, 1, 0.74, charge=1), "1 electrons", ValueRangeError),
        (Molecule(np.array([1]), np.zeros((1, 3)), charge=1), "no electrons", ValueRangeError),
        (Molecule(np.array([8, 1, 1]), [[0, 0, 0], [1.81, 0, 0], [-0.45, 1.76, 0]]), "in bohr", UnitError),
        (diatomic(92, 8, 1.8), "element U", ElementError),
        (Molecule(np.array([88]), np.zeros((1, 3))), "element Ra", ElementError),
    ],
)
def test_unsupported_molecules_are_refused_before_any_computation(molecule, message, monkeypatch, error):
    monkeypatch.setattr(xtb, "Xtb", None)
    with pytest.raises(error, match=message) as caught:
        simulate(molecule)
    assert "\n" not in str(caught.value)


def test_heaviest_supported_element():
    check_supported(Molecule(np.array([86]), np.zeros((1, 3))))


def test_coincident_atoms_never_reach_the_simulation():
    with pytest.raises(InputError, match="closer"):
        diatomic(1, 1, 0.01)


@pytest.mark.parametrize(
    ("modalities", "error"),
    [
        ((), SettingError),
        (("ir", "ir"), SettingError),
        (("ri",), NotFoundError),
        (("ir", "uv-vis"), NotFoundError),
    ],
)
def test_bad_modalities(modalities, error):
    with pytest.raises(error, match="modalit"):
        simulate(diatomic(1, 1, 0.74), modalities)


def test_levels_name_only_what_is_asked_for():
    assert set(levels_of_theory(("ir",))) == {"geometry", "ir"}


def test_missing_extra_is_named(monkeypatch):
    import importlib.metadata

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(MissingExtraError, match=r"tblite.*pip install 'molspectra\[simulate\]'"):
        levels_of_theory()


def test_scf_failure_is_one_line():
    calculator = xtb.Xtb(np.array([8, 1, 1]), np.array([[0, 0, 0], [0, 0, 1.8], [0, 1.8, 0.0]]))
    calculator._calculator.set("max-iter", 1)
    with pytest.raises(SimulationError, match="GFN2-xTB failed") as caught:
        calculator.run(np.array([[0, 0, 0], [0, 0, 1.8], [0, 1.8, 0.0]]))
    assert "\n" not in str(caught.value)


def test_no_minimum_is_a_simulation_error(monkeypatch):
    # a molecule held at its saddle stays imaginary
    monkeypatch.setattr(api, "relax", lambda molecule, positions, *_: molecule.positions / 0.529177210903)
    angles = 2 * np.pi * np.arange(3) / 3
    hydrogens = np.stack([np.cos(angles), np.sin(angles), np.zeros(3)], axis=1)
    planar = Molecule(np.array([7, 1, 1, 1]), np.vstack([np.zeros(3), hydrogens]))
    with pytest.raises(SimulationError, match=r"H3N: no minimum in 4 optimisations \(lowest mode -"):
        simulate(planar, ("ir",))


def test_dft_failure_is_a_simulation_error(monkeypatch):
    from molspectra.simulation import dft

    monkeypatch.setattr(dft, "MAX_CYCLES", 2)
    with pytest.raises(SimulationError, match="B3LYP did not converge in 2 cycles"):
        simulate(diatomic(1, 9, 0.92), ("uv_vis",))


METHANE = Molecule(
    np.array([6, 1, 1, 1, 1]),
    np.array(
        [
            [-0.0126981359, 1.0858041580, 0.0080009958],
            [0.0021504160, -0.0060313176, 0.0019761204],
            [1.0117308433, 1.4637511618, 0.0002765748],
            [-0.5408150690, 1.4475266138, -0.8766437152],
            [-0.5238136345, 1.4379326443, 0.9063972942],
        ]
    ),
)  # the geometry of QM9
OCCUPIED = [-15.78658, -12.70057, -12.70053, -12.70045]
VIRTUAL = [4.16298, 5.81817, 5.81878, 5.81887]
"""Orbital energies of tblite 0.8.0 itself, eV."""


def test_density_of_states_at_the_given_geometry():
    result = simulate(METHANE, ("dos",), geometry="given")
    assert list(result.lines) == ["dos_occupied", "dos_virtual"]
    for name, energies in (("dos_occupied", OCCUPIED), ("dos_virtual", VIRTUAL)):
        assert result.lines[name].position == pytest.approx(energies, abs=1e-3)
        assert result.lines[name].intensity.tolist() == [1.0] * 4
        assert "GFN2-xTB" in result.levels[name]
    assert result.molecule.positions == pytest.approx(METHANE.positions, abs=1e-12)
    assert result.levels["geometry"] == "as given"
    assert result.properties == {}


def test_density_of_states_counts_orbitals():
    spectrum = simulate(METHANE, ("dos_virtual",)).lines["dos_virtual"].broadened()
    inside = spectrum.axis < 8
    assert np.trapezoid(spectrum.values[inside], spectrum.axis[inside]) == pytest.approx(4, abs=1e-3)


def test_excitations_at_the_given_geometry_name_no_optimisation():
    levels = levels_of_theory(("uv_vis",), "given")
    assert levels["geometry"] == "as given"
    assert "//" not in levels["uv_vis"]


@pytest.mark.parametrize("modalities", [("ir",), ("dos", "raman")])
def test_frequencies_need_a_minimum(modalities):
    with pytest.raises(SettingError, match=f"{modalities[-1]}.*minimum"):
        simulate(METHANE, modalities, geometry="given")
