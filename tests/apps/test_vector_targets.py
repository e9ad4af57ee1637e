"""Vectors and tensors as targets: learnt with their direction, tested, predicted, used by the calculator."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles, to_ase
from molspectra.data.store.store import Metadata, Quantity, Row, write_store
from molspectra.errors import InputError, MismatchError, SettingError
from molspectra.models.model import MolSpectra
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.settings import from_dict
from molspectra.training.standardise import standardise
from molspectra.training.targets import resolved

SMILES = ["C", "CC", "CCC", "C=C", "CC=C", "CO", "CCO", "CCCO", "COC", "CC=O", "CC(C)=O", "O", "C=O", "OCCO"]
CHARGES = {1: 0.1, 6: -0.1, 8: -0.4}
SIX = ("xx", "yy", "zz", "xy", "xz", "yz")
INDICES = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]


def labels(molecule: ms.Molecule) -> tuple[np.ndarray, np.ndarray]:
    """A dipole of point charges that add up to 0, and a polarisability by the second moments of the atoms."""
    charge = np.array([CHARGES[int(number)] for number in molecule.numbers])
    charge -= charge.mean()
    centred = molecule.positions - molecule.positions.mean(0)
    return charge @ molecule.positions, 0.3 * len(charge) * np.eye(3) + centred.T @ centred


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each molecule in four orientations."""
    generator, rows = np.random.default_rng(0), []
    for smiles in SMILES:
        start = from_smiles(smiles)
        for _ in range(4):
            turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
            molecule = ms.Molecule(start.numbers, start.positions @ turn.T, smiles=smiles)
            dipole, tensor = labels(molecule)
            values = {f"dipole_{axis}": float(value) for axis, value in zip("xyz", dipole, strict=True)}
            values |= {f"alpha_{name}": float(tensor[at]) for name, at in zip(SIX, INDICES, strict=True)}
            rows.append(Row(molecule, {}, values | {"energy": -float(len(start))}))
    units = {f"dipole_{axis}": "e·Å" for axis in "xyz"} | {f"alpha_{name}": "Å^3" for name in SIX}
    quantities = {name: Quantity(unit) for name, unit in (units | {"energy": "eV"}).items()}
    path = tmp_path_factory.mktemp("vectors") / "some.arrow"
    write_store(path, rows, Metadata("made up", "CC0", properties=quantities))
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "both"
    command = [
        "finetune",
        "--target",
        "energy",
        "dipole",
        "alpha",
        "--vectors",
        "dipole",
        "--tensors",
        "alpha",
    ]
    command += ["--data.store", str(store), "--data.fractions", "0.6,0.2,0.2", "--loop.batch_size", "8"]
    command += ["--model.encoder.channels", "32", "--model.encoder.layers", "2", "--model.encoder.heads", "4"]
    command += ["--model.readout", "sum", "--denoising_weight", "0", "--loop.steps", "150"]
    command += [
        "--optimizer.learning_rate",
        "3e-3",
        "--loop.validate_every",
        "50",
        "--out",
        str(out),
        "--quiet",
    ]
    assert main(command) == 0
    return out


def test_columns_and_weights() -> None:
    config = resolved(FinetuneConfig(target="energy,dipole,alpha", vectors=("dipole",), tensors=("alpha",)))
    assert config.targets == (
        *("energy", "dipole_x", "dipole_y", "dipole_z"),
        *(f"alpha_{name}" for name in SIX),
    )
    assert [head.property for head in config.model.heads] == ["scalar", "vector", "tensor"]


def test_the_scale_has_no_direction(store: Path) -> None:
    config = resolved(FinetuneConfig(target="dipole,alpha", vectors=("dipole",), tensors=("alpha",)))
    model = MolSpectra(config.model)
    selection = Selection.of(ms.FinetuneConfig().data.__class__(store=str(store)), config.targets)
    standardise(model, selection, config.targets)
    dipole, tensor = (
        np.stack([selection.store.column(name)[selection.train] for name in names], axis=1)
        for names in (config.targets[:3], config.targets[3:])
    )
    vector_head, tensor_head = model.property_heads
    assert (float(vector_head.mean), float(vector_head.std)) == pytest.approx(
        (0.0, np.sqrt((dipole**2).mean()))
    )
    trace = tensor[:, :3].mean()
    assert float(tensor_head.mean) == pytest.approx(trace)
    rest = tensor - np.array([trace] * 3 + [0.0] * 3)
    assert float(tensor_head.std) == pytest.approx(np.sqrt((rest**2).mean()))


def test_directions_are_learnt(run: Path, store: Path) -> None:
    result = ms.evaluate(run)
    for names, share in (("dipole_x dipole_y dipole_z", 0.7), ("alpha_xy alpha_xz alpha_yz", 0.7)):
        those = [result["targets"][name] for name in names.split()]
        assert sum(one["mae"] for one in those) < share * sum(one["median_predictor_mae"] for one in those)
    ethanol = from_smiles("CCO")
    found = ms.predict([ethanol], run)
    expected = labels(ethanol)[0]
    vector = found.values[0, 1:4]
    assert vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected) > 0.8
    assert found.quantities[1].unit == "e·Å"


def test_the_calculator_gives_dipoles_with_their_direction(run: Path) -> None:
    ethanol = from_smiles("CCO")
    atoms = to_ase(ethanol)
    atoms.calc = ms.Calculator(run, dipole=run, polarisability=run)
    values = ms.predict([ethanol], run).values[0]
    assert atoms.get_dipole_moment() == pytest.approx(values[1:4], abs=1e-5)
    tensor = atoms.calc.get_property("polarisability", atoms)
    assert tensor == pytest.approx(tensor.T)
    assert [tensor[at] for at in INDICES] == pytest.approx(values[4:], rel=1e-4, abs=1e-4)


def test_dynamics_write_dipoles_and_polarisabilities(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "some.extxyz"
    command = ["md", str(run), "--dipole", str(run), "--polarisability", str(run), "--smiles", "CCO"]
    command += [
        "--interval-fs",
        "1",
        "--time-ps",
        "0.003",
        "--equilibration-fs",
        "0",
        "--no-relax",
        "--quiet",
    ]
    assert main([*command, "--out", str(out)]) == 0
    frames = read(out, ":")
    calculator = ms.Calculator(run, dipole=run, polarisability=run)
    written = np.array([frame.info["polarisability"] for frame in frames])
    assert written.shape == (4, 3, 3)
    assert written == pytest.approx(calculator.polarisabilities(frames), rel=1e-4, abs=1e-4)
    dipoles = np.array([frame.get_dipole_moment() for frame in frames])
    assert dipoles == pytest.approx(calculator.dipoles(frames), rel=1e-4, abs=1e-4)
    assert not np.array_equal(written[0], written[-1])


def test_what_is_no_polarisability_is_refused(run: Path, ethanol_run: Path) -> None:
    with pytest.raises(MismatchError, match="--tensors"):
        ms.Calculator(run, polarisability=ethanol_run)
    with pytest.raises(SettingError, match="polarisability="):
        ms.Calculator(run).polarisabilities([to_ase(from_smiles("CCO"))])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"target": "gap", "vectors": ["dipole"]}, "not a target"),
        ({"target": "mu", "vectors": ["mu"], "tensors": ["mu"]}, "one kind only"),
        ({"target": "mu,energy", "vectors": ["mu"], "forces": True}, "energy first"),
        ({"target": "mu,mu_x", "vectors": ["mu"]}, "given twice"),
    ],
)
def test_what_cannot_be(values: dict, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        from_dict(FinetuneConfig, values, "x")


def test_a_head_is_declared_by_name(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vectors"):
        resolved(from_dict(FinetuneConfig, {"model": {"property": "vector"}}, "x"))
    config = from_dict(
        FinetuneConfig, {"target": "mu", "vectors": ["mu"], "data": {"store": str(store)}}, "x"
    )
    with pytest.raises(InputError, match="mu_x"):
        ms.finetune(config, tmp_path / "run", show=False)


def test_its_record_names_the_columns(run: Path) -> None:
    about = json.loads((run / "record.json").read_text())["about"]
    assert list(about["targets"])[:3] == ["energy", "dipole_x", "dipole_y"]
