"""The ASE calculator: units, exact forces, symmetries, replicas, skins, precisions, and what is refused."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule as build
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet

import molspectra
from molspectra import Calculator
from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import (
    ElementError,
    InputError,
    MismatchError,
    MolspectraError,
    NotFoundError,
    SettingError,
)
from molspectra.models.egnn import EGNNConfig
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig, MolSpectra, energy_and_forces
from molspectra.models.specformer import SpecFormerConfig

ET = EquivariantTransformerConfig(channels=16, layers=2, heads=4, radial=8, cutoff=3.0, layer_norms=False)
ENCODERS = {
    "et": ET,
    "et-published": replace(ET, vector_cutoff=False),
    "egnn": EGNNConfig(channels=16, layers=2, radial=4, cutoff=3.0, switch=1.0),
}
ABOUT = {"target": "energy", "unit": "eV", "elements": ["H", "C", "O"]}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def potential(encoder="et", unit="eV", kind="scalar", **about):
    """A smooth model with random weights, and what is known of it."""
    torch.manual_seed(1)
    model = MolSpectra(ModelConfig(encoder=ENCODERS[encoder], property=kind))
    model.property_head.standardise(-5.0, 2.0)
    return model, ABOUT | {"unit": unit} | about


def ethanol(seed=0, spread=0.05):
    atoms = build("CH3CH2OH")
    atoms.positions += np.random.default_rng(seed).normal(0, spread, atoms.positions.shape)
    return atoms


def results(run, atoms=None, **options):
    atoms = ethanol() if atoms is None else atoms
    atoms.calc = Calculator(run, **options)
    return atoms.get_potential_energy(), atoms.get_forces()


@every_encoder
def test_forces_against_finite_differences(encoder):
    atoms = ethanol()
    atoms.calc = Calculator(potential(encoder))
    forces, step = atoms.get_forces(), 2e-5
    assert np.abs(forces).max() > 0.01
    for place in itertools.product(range(0, 9, 4), range(3)):
        energies = []
        for sign in (1, -1):
            atoms.positions[place] += sign * step
            energies.append(atoms.get_potential_energy())
            atoms.positions[place] -= sign * step
        assert forces[place] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=5e-7)


def test_equal_to_the_model_itself():
    model, about = potential()
    atoms = ethanol()
    own = energy_and_forces(
        model.double(), batch_of([Molecule(atoms.numbers, atoms.positions)], torch.float64)
    )
    energy, forces = results((model, about), atoms)
    assert energy == pytest.approx(own.energy.item(), abs=1e-10)
    np.testing.assert_allclose(forces, own.forces.numpy(), atol=1e-10)


@pytest.mark.parametrize(
    ("unit", "in_ev"),
    [
        ("eV", 1.0),
        ("meV", 1e-3),
        ("Hartree", units.Hartree),
        ("kcal/mol", units.kcal / units.mol),
        ("kJ/mol", units.kJ / units.mol),
    ],
)
def test_units(unit, in_ev):
    energy, forces = results(potential(unit="eV"))
    other, other_forces = results(potential(unit=unit))
    assert other == pytest.approx(energy * in_ev, rel=1e-6)
    np.testing.assert_allclose(other_forces, forces * in_ev, rtol=1e-5)


def test_a_trained_run_gives_the_labels_in_ev(ethanol_run):
    store = molspectra.bundled("bundled-ethanol")
    frame = store.row(7)
    atoms = Atoms(frame.molecule.numbers, frame.molecule.positions)
    energy, forces = results(ethanol_run, atoms)
    kcal = units.kcal / units.mol
    assert energy == pytest.approx(frame.properties["energy"] * kcal, abs=0.5)
    error = np.abs(forces - frame.forces * kcal).mean()
    assert error < 0.6 * np.abs(frame.forces * kcal).mean()
    about = json.loads((ethanol_run / "record.json").read_text())["about"]
    assert about["elements"] == ["H", "C", "O"]


@every_encoder
def test_moved_and_turned(encoder):
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    here, there = ethanol(), ethanol()
    there.positions = there.positions @ turn.T + np.array([1e3, -2e3, 5.0])
    energy, forces = results(potential(encoder), here)
    moved, turned = results(potential(encoder), there)
    assert moved == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(turned, forces @ turn.T, atol=1e-8)


def test_float32_is_as_precise_far_away():
    energy, forces = results(potential())
    far = ethanol()
    far.positions += 9e3
    for atoms in (ethanol(), far):
        rounded, rounded_forces = results(potential(), atoms, dtype="float32")
        assert rounded == pytest.approx(energy, abs=1e-4)
        assert rounded != energy
        np.testing.assert_allclose(rounded_forces, forces, atol=1e-4)


def test_total_energies_keep_their_chemistry_in_float32():
    torch.manual_seed(1)
    model = MolSpectra(ModelConfig(encoder=ET, property="scalar", atom_references="fit"))
    model.property_head.references[[1, 6, 8]] = torch.tensor([-13.6, -1030.1, -2042.6]).double()
    run = model, ABOUT
    energy, _ = results(run)
    rounded, _ = results(run, dtype="float32")
    assert energy < -4000
    assert rounded == pytest.approx(energy, abs=1e-5)


def test_the_model_that_was_given_stays_as_it_is():
    model, about = potential()
    model.train()
    results((model, about))
    assert model.training
    assert all(each.dtype == torch.float32 and each.requires_grad for each in model.parameters())


@every_encoder
def test_replicas_equal_singles(encoder):
    replicas = [ethanol(seed) for seed in range(4)] + [build("H2O"), Atoms("O")]
    calculator = Calculator(potential(encoder))
    energies, forces = calculator.energies_and_forces(replicas)
    assert energies.shape == (6,)
    for atoms, energy, force in zip(replicas, energies, forces, strict=True):
        alone, alone_force = results(potential(encoder), atoms)
        assert energy == pytest.approx(alone, abs=1e-10)
        np.testing.assert_allclose(force, alone_force, atol=1e-10)


@every_encoder
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_skins_change_nothing(encoder, dtype):
    """A walk in which pairs cross the cutoff: equal in every bit."""
    plain, skinned = (Calculator(potential(encoder), skin=skin, dtype=dtype) for skin in (0.0, 0.8))
    rng = np.random.default_rng(0)
    walkers = [ethanol(1), ethanol(2)]
    for _ in range(15):
        one, other = plain.energies_and_forces(walkers), skinned.energies_and_forces(walkers)
        np.testing.assert_array_equal(one.energies, other.energies)
        for expected, found in zip(one.forces, other.forces, strict=True):
            np.testing.assert_array_equal(found, expected)
        for atoms in walkers:
            atoms.positions += rng.normal(0, 0.06, atoms.positions.shape)
    assert 1 < skinned._neighbours.searches < plain._neighbours.searches == 15


def fluctuation(run, timestep, time=20.0):
    """Largest change of the total energy along a trajectory of constant energy, eV."""
    atoms = ethanol(spread=0.0)
    atoms.calc = Calculator(run)
    atoms.set_momenta(
        np.random.default_rng(5).normal(0, 1, (9, 3)) * np.sqrt(0.025 * atoms.get_masses())[:, None]
    )
    energies = []
    mover = VelocityVerlet(atoms, timestep * units.fs)
    mover.attach(lambda: energies.append(atoms.get_total_energy()))
    mover.run(round(time / timestep))
    return np.ptp(energies)


def test_energy_is_conserved(ethanol_run):
    """The error of velocity Verlet falls with the square of the time step, so forces belong to the energy."""
    coarse, fine = (fluctuation(ethanol_run, step) for step in (0.5, 0.25))
    assert coarse < 0.05
    assert 3 < coarse / fine < 5.5


def test_the_dipole_is_a_second_run():
    dipole = potential(kind="dipole", unit="D", target="mu")
    here, there = ethanol(), ethanol()
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    there.positions = there.positions @ turn.T + 7.0
    calculator = Calculator(potential(), dipole)
    here.calc = calculator
    vector = here.get_dipole_moment()
    model = dipole[0].double()
    length = model(batch_of([Molecule(here.numbers, here.positions)], torch.float64)).item()
    assert np.linalg.norm(vector) == pytest.approx(length * units.Debye, rel=1e-6)
    assert length > 0.01
    np.testing.assert_allclose(calculator.dipoles([here, there])[1], turn @ vector, atol=1e-8)
    assert here.get_potential_energy() == pytest.approx(results(potential())[0], abs=1e-10)


def test_without_a_dipole_run_there_is_none():
    atoms = ethanol()
    atoms.calc = Calculator(potential())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()
    with pytest.raises(SettingError, match="second run"):
        atoms.calc.dipoles([atoms])
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_results_are_computed_once():
    atoms = ethanol()
    atoms.calc = Calculator(potential(), skin=0.0)
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_potential_energy(force_consistent=True)
    assert atoms.calc._neighbours.searches == 1


def pilot():
    spectra = SpecFormerConfig(width=16, heads=2, layers=1, feed_forward=16)
    config = ModelConfig(encoder=ET, property="scalar", spectrum_encoder=spectra, spectrum_input=True)
    return MolSpectra(config), ABOUT


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: potential(unit="a0^3", target="alpha"), "'alpha' in 'a0.3'"),
        (lambda: potential(target="gap"), "'gap' in 'eV'"),
        (lambda: potential(kind="dipole", unit="D", target="mu"), "no potential energy"),
        (lambda: potential(kind="spatial_extent"), "no potential energy"),
        (lambda: (MolSpectra(ModelConfig(encoder=ET)), {"stage": "stage1"}), "no property head"),
        (pilot, "takes spectra as input"),
        (lambda: "nowhere", "^nowhere: "),
    ],
)
def test_what_is_no_energy_is_refused(run, message):
    with pytest.raises(InputError, match=message) as error:
        Calculator(run())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dipole", "message"),
    [
        (lambda: potential(unit="D", target="mu"), "by the scalar head, which is no dipole"),
        (lambda: potential(kind="dipole", unit="eV"), "which is no dipole"),
    ],
)
def test_what_is_no_dipole_is_refused(dipole, message):
    with pytest.raises(MismatchError, match=message):
        Calculator(potential(), dipole())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skin": -1.0}, "skin"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Calculator(potential(), **options)


def periodic():
    return Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[9, 9, 9], pbc=True)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (periodic, "periodic"),
        (
            lambda: Atoms("CN", [[0, 0, 0], [0, 0, 1.1]]),
            "atom 2 is N, .* only H, C, O",
        ),
        (lambda: Atoms("CO", [[0, 0, 0], [0, 0, np.nan]]), "atom 2 has a coordinate that is not a finite"),
        (lambda: Atoms("CO", [[0, 0, 0], [0, 0, 1e-3]]), "atoms 1 and 2 are closer than"),
        (lambda: Atoms(), "needs a list of atomic numbers"),
        (lambda: Atoms("XO", [[0, 0, 0], [0, 0, 1.1]]), "atomic number 0"),
    ],
)
def test_what_no_model_knows_is_refused(atoms, message):
    atoms = atoms()
    atoms.calc = Calculator(potential())
    for _ in range(2):
        with pytest.raises(InputError, match=message) as error:
            atoms.get_potential_energy()
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=message):
        atoms.calc.energies_and_forces([ethanol(), atoms])


def test_elements_without_an_embedding_are_refused():
    model, about = potential()
    with pytest.raises(ElementError, match="atom 1 is Og"):
        results((model, {**about, "elements": None}), Atoms("Og"))


def test_no_atoms_are_refused():
    with pytest.raises(NotFoundError, match="no atoms"):
        Calculator(potential()).energies_and_forces([])


def test_a_broken_model_is_told():
    model, about = potential()
    model.property_head.standardise(0.0, float("inf"))
    with pytest.raises(MolspectraError, match="energy is not finite"):
        results((model, about))
