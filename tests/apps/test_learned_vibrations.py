"""Infrared and Raman lines at GFN2-xTB modes with intensities by networks: derivatives, sum rules, files."""

from pathlib import Path

import numpy as np
import pytest
import torch

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.apps.learned_vibrations import LearnedVibrations, derivatives, open_vector
from molspectra.chem.readers import to_ase
from molspectra.errors import ElementError, InputError, MismatchError, NotFoundError, SettingError
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.simulation.units import BOHR, DEBYE

SMALL = EquivariantTransformerConfig(channels=16, layers=2, heads=2, radial=8)


def run(kind="vector", unit="D", elements=("H", "C", "O"), **about):
    """A network with random weights, and what is known of it."""
    torch.manual_seed(1)
    model = MolSpectra(ModelConfig(encoder=SMALL, property=kind))
    model.property_head.standardise(3.0, 1.5)
    return model, {"stage": "finetune", "target": "mu", "unit": unit, "elements": list(elements)} | about


RUNS = {"dipole": lambda: run(), "polarisability": lambda: run("tensor", "a0^3")}


def distorted(smiles: str = "CCO") -> ms.Molecule:
    start = ms.from_smiles(smiles)
    moves = np.random.default_rng(0).normal(0, 0.05, start.positions.shape)
    return start.with_positions(start.positions + moves)


def values(learned, molecule: ms.Molecule) -> np.ndarray:
    """The dipole [3] in e·Å or the polarisability [3, 3] in Å³ of the network at a structure."""
    calculator = ms.Calculator(run("scalar", "eV", target="u0"), **learned)
    replicas = [to_ase(molecule)]
    return (
        calculator.dipoles(replicas)[0] if "dipole" in learned else calculator.polarisabilities(replicas)[0]
    )


@pytest.mark.parametrize("quantity", RUNS)
def test_against_central_differences(quantity) -> None:
    molecule, step = distorted(), 1e-4
    found = derivatives(open_vector(RUNS[quantity](), quantity, "cpu", "best"), molecule)
    assert found.shape == ((27, 3) if quantity == "dipole" else (27, 3, 3))
    scale = 1.0 if quantity == "dipole" else BOHR**2  # Å² per bohr²
    for place in (0, 8, 13, 26):
        ends = []
        for sign in (1, -1):
            positions = molecule.positions.copy()
            positions.flat[place] += sign * step
            ends.append(values({quantity: RUNS[quantity]()}, molecule.with_positions(positions)))
        difference = (ends[0] - ends[1]) / (2 * step)
        assert np.abs(difference).max() > 1e-4
        np.testing.assert_allclose(found[place] * scale, difference, atol=1e-6)


@pytest.mark.parametrize("quantity", RUNS)
def test_moved_and_turned(quantity) -> None:
    """The sum rule of a neutral molecule, and derivatives that turn with it."""
    learned, molecule = open_vector(RUNS[quantity](), quantity, "cpu", "best"), distorted()
    found = derivatives(learned, molecule)
    atoms = found.reshape(len(molecule), 3, *found.shape[1:])
    np.testing.assert_allclose(atoms.sum(0), 0, atol=1e-10)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    turned = derivatives(learned, molecule.with_positions(molecule.positions @ turn.T + [50.0, -20.0, 3.0]))
    if quantity == "dipole":
        wanted = np.einsum("ab,ij,nbj->nai", turn, turn, atoms)
    else:
        wanted = np.einsum("ab,ij,kl,nbjl->naik", turn, turn, turn, atoms)
    np.testing.assert_allclose(turned, wanted.reshape(found.shape), atol=1e-8)
    # a rigid rotation changes the dipole as it turns a vector: ∂μ/∂θ = e × μ
    if quantity == "dipole":
        centred = molecule.positions - molecule.positions.mean(0)
        change = np.einsum("nk,nki->i", np.cross([0.0, 0.0, 1.0], centred), atoms)
        dipole = values({"dipole": run()}, molecule)
        np.testing.assert_allclose(change, np.cross([0.0, 0.0, 1.0], dipole), atol=1e-8)


def test_fixed_charges_by_hand() -> None:
    """A head of fixed charges: dipole derivatives are the charges, and CO has one line of known intensity."""
    model, about = run(unit="e·Å")

    class Charges(torch.nn.Module):
        def forward(self, encoded):
            sign = torch.tensor([0.5, -0.5], dtype=encoded.scalars.dtype)
            return sign, torch.zeros(2, 3, dtype=encoded.scalars.dtype) + 0 * encoded.vectors.sum()

    model.property_head.atoms = Charges()
    vibrations = LearnedVibrations({"ir": (model, about)}, "cpu", "best")
    molecule = ms.Molecule(np.array([6, 8]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.13]]))
    charge = 0.5 * 1.5  # std 1.5
    learned = open_vector((model, about), "dipole", "cpu", "best")
    wanted = np.concatenate([charge * np.eye(3), -charge * np.eye(3)])
    np.testing.assert_allclose(derivatives(learned, molecule), wanted, atol=1e-12)
    lines = vibrations.lines_of(molecule)[1]["ir"]
    reduced = 12 * 15.99491462 / (12 + 15.99491462)
    # ∂μ/∂Q = q/√(reduced mass); 42.2561 km/mol per (D/Å)²/amu
    intensity = 42.2561 * (charge * DEBYE / BOHR) ** 2 / reduced
    np.testing.assert_allclose(lines.intensity, [intensity], rtol=1e-6)
    simulated = ms.simulate(molecule, ["ir"])
    np.testing.assert_allclose(lines.position, simulated.lines["ir"].position, atol=0.1)


def test_spectra_with_lines(tmp_path: Path) -> None:
    runs = {quantity: make() for quantity, make in RUNS.items()}
    found = ms.predict_spectra(["O", "C=O", "CBr"], **runs, on_error="skip")
    assert "Br" in found.rejected[0].reason
    assert found.modalities == ("ir", "raman")
    assert "dipole derivatives by" in found.level
    assert "polarisability derivatives by" in found.level
    water = ms.simulate("O", ["ir", "raman"])
    for name, count in (("ir", 3), ("raman", 3)):
        lines = found.lines[name][0]
        assert len(lines) == count
        assert (lines.intensity >= 0).all()
        np.testing.assert_allclose(lines.position, water.lines[name].position, atol=0.5)
        np.testing.assert_allclose(found[0][name].values, lines.broadened().values, rtol=1e-6)
    np.testing.assert_allclose(found.molecules[0].positions, water.molecule.positions, atol=1e-4)
    assert len(found.figure().axes) == 4
    found.save(tmp_path / "x.arrow")
    store = ms.Store(tmp_path / "x.arrow")
    assert set(store.metadata.lines) == {"ir", "raman"}
    assert "dipole derivatives" in store.metadata.lines["ir"]
    assert store.metadata.notes["geometry"] == "minimum of GFN2-xTB"
    for name in ("ir", "raman"):
        stored = store.spectrum(1, name)
        np.testing.assert_allclose(stored.intensity, found.lines[name][1].intensity, rtol=1e-6)
    levels = [row["level"] for row in found.table().to_pylist()]
    assert ["dipole" in levels[0], "polarisability" in levels[1]] == [True, True]
    found.save(tmp_path / "x.csv")


def test_refused() -> None:
    for dipole, message in (
        (run("dipole"), "length of the dipole alone.*--vectors"),
        (run("scalar", "eV"), "no dipole"),
        (run(unit=""), "no dipole"),
        ("base", "base: has no property head; fine-tune it on a dipole"),
        (run("tensor", "a0^3"), "no dipole"),
    ):
        with pytest.raises(MismatchError, match=message):
            ms.predict_spectra(["O"], dipole=dipole)
    with pytest.raises(MismatchError, match=r"no polarisability.*--tensors"):
        ms.predict_spectra(["O"], polarisability=run())
    with pytest.raises(NotFoundError, match="raman: is predicted by a polarisability run"):
        ms.predict_spectra(["O"], dipole=run(), modalities=["raman"])
    with pytest.raises(SettingError, match="two ways"):
        ms.predict_spectra(["O"], "small", dipole=run())
    with pytest.raises(ElementError, match="item 1: atom 1 is N"):
        ms.predict_spectra(["N"], dipole=run())
    with pytest.raises(ElementError, match="item 1: atom 2 is O"):  # elements that one of the runs knows
        ms.predict_spectra(["CO"], dipole=run(), polarisability=run("tensor", "a0^3", elements="HC"))
    with pytest.raises(InputError, match="closed-shell"):
        ms.predict_spectra([ms.Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.97]]))], dipole=run())


def test_what_symmetry_forbids_is_no_spectrum() -> None:
    with pytest.raises(InputError, match="item 1: its predicted ir spectrum: all intensities are zero"):
        ms.predict_spectra(["N#N"], dipole=run(elements="N"))


def test_errors_of_the_command(tmp_path: Path, capsys) -> None:
    command = ["predict-spectrum", "--quiet", "--smiles", "O", "--dipole"]
    assert main([*command, str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert error.count("\n") == 1
    assert main([*command, str(tmp_path / "nowhere"), "--model", "small"]) == 2
    assert "two ways" in capsys.readouterr().err
