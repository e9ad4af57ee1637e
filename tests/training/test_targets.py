"""Targets: their heads, the energies of free atoms, and standardisation from the training rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import ElementError, InputError, SettingError
from molspectra.evaluation.predict import predict_rows
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.training.checkpoint import load_model
from molspectra.training.config import DataConfig, FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.run import finetune
from molspectra.training.standardise import standardise
from molspectra.training.targets import HEADS, published_references, resolved

Make = Callable[..., Any]
HARTREE = 27.211386245988
ATOMS = {1: -0.5 * HARTREE, 6: -37.8 * HARTREE, 8: -75.1 * HARTREE}


@pytest.fixture(scope="module")
def energies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Total energies of QM9's size: those of free atoms, and of bonds some eV, which differ by some meV."""
    path = tmp_path_factory.mktemp("energies") / "qm9.arrow"
    level = "B3LYP/6-31G(2df,p)"
    properties = {name: Quantity("eV" if name != "mu" else "D", level) for name in ("u0", "gap", "mu", "r2")}

    def row(i: int) -> Row:
        rng = np.random.default_rng(i)
        numbers = np.array([6, 6, 8, *[1] * (2 + i % 4), *([8] * (i % 3))])
        grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)[: len(numbers)] * 1.4
        total = sum(ATOMS[int(number)] for number in numbers) - 0.01 * rng.normal()
        values = {
            "u0": total,
            "gap": 5.0 + rng.normal(),
            "mu": rng.uniform(0, 4),
            "r2": rng.uniform(100, 900),
        }
        return Row(Molecule(numbers, grid + rng.normal(0, 0.05, grid.shape)), {}, values, identity=f"ID{i}")

    write_store(path, map(row, range(60)), Metadata("made up", "CC0", level, properties=properties))
    return path


def settings(gap: Make, energies: Path, target: str, **model: Any) -> FinetuneConfig:
    config: FinetuneConfig = gap(target=target, data=DataConfig(str(energies), fractions=(0.7, 0.2, 0.1)))
    return replace(config, model=replace(config.model, property=None, **model))


def test_every_target_has_the_published_head(gap: Make, energies: Path) -> None:
    assert len(HEADS) == 12
    heads = {name: resolved(settings(gap, energies, name)).model.property for name in (*HEADS, "other")}
    assert {name: head for name, head in heads.items() if head != "scalar"} == {
        "mu": "dipole",
        "r2": "spatial_extent",
    }


def test_orbital_energies_are_pooled(gap: Make, energies: Path) -> None:
    """All else is a sum over atoms, and so is what has references or forces, or was asked to be one."""
    readouts = {name: resolved(settings(gap, energies, name)).model.readout for name in (*HEADS, "other")}
    assert {name for name, readout in readouts.items() if readout == "pooled"} == {"gap", "homo", "lumo"}
    assert resolved(settings(gap, energies, "gap", readout="sum")).model.readout == "sum"
    assert resolved(settings(gap, energies, "gap", atom_references="fit")).model.readout == "sum"
    assert resolved(settings(gap, energies, "u0", readout="pooled")).model.readout == "pooled"


@pytest.mark.parametrize(("target", "head"), [("mu", "scalar"), ("gap", "dipole"), ("r2", "dipole")])
def test_a_head_of_another_target_is_refused(gap: Make, energies: Path, target: str, head: Any) -> None:
    config = settings(gap, energies, target)
    wrong = replace(config, model=replace(config.model, property=head))
    with pytest.raises(SettingError, match=f"{target!r} .* {HEADS[target]} head"):
        resolved(wrong)


def test_references_that_were_published_are_those_of_four_targets(gap: Make, energies: Path) -> None:
    auto = {
        name: resolved(settings(gap, energies, name, atom_references="auto")).model.atom_references
        for name in HEADS
    }
    assert [name for name, kind in auto.items() if kind == "published"] == ["u0", "u298", "h298", "g298"]
    assert published_references("u0", "Hartree")[6] == -37.846772
    assert published_references("u0", "eV")[1] == pytest.approx(-13.61312, abs=2e-5)
    for name, unit, said in (("gap", "eV", "only for u0, u298, h298, g298"), ("u0", "J", "is in 'J'")):
        with pytest.raises(InputError, match=said):
            published_references(name, unit)


@pytest.mark.parametrize("kind", ["none", "fit", "published"])
def test_standardisation_after_references(energies: Path, kind: Any) -> None:
    selection = Selection.of(DataConfig(str(energies), fractions=(0.7, 0.2, 0.1)), ("u0",))
    model = MolSpectra(ModelConfig(property="scalar", atom_references=kind))
    standardise(model, selection, ["u0"])
    head, values = model.property_head, selection.store.column("u0")[selection.train]
    assert head is not None
    if kind == "none":
        assert head.references is None
        assert float(head.std) == pytest.approx(values.std(), rel=1e-6)
        return
    assert head.references is not None
    assert head.references.dtype == torch.float64
    if kind == "fit":  # of bonds only noise remains
        assert float(head.std) < 0.02
        assert abs(float(head.mean)) < 1e-6
        found = {number: float(head.references[number]) for number in ATOMS}
        # two carbons and an oxygen come in every molecule: only sums are determined
        expected = 2 * ATOMS[6] + ATOMS[8]
        assert 2 * found[6] + found[8] == pytest.approx(expected, abs=0.05)
        assert found[1] == pytest.approx(ATOMS[1], abs=0.05)
    else:
        assert float(head.references[6]) == pytest.approx(-37.846772 * HARTREE)
    assert not head.references[7 if kind == "fit" else 3]


def test_fitted_frames_of_one_molecule_keep_their_differences(tmp_path: Path) -> None:
    """Of an energy of -4·10⁵ kcal/mol float32 knows 0.03."""
    path = tmp_path / "frames.arrow"
    positions = np.array([[0.0, 0, 0], [0, 0, 1.0], [0, 0.9, -0.3]])
    energies = -406757.0 + np.linspace(0, 0.02, 30)
    metadata = Metadata("made up", "CC0", properties={"energy": Quantity("kcal/mol")})
    rows = (
        Row(Molecule(np.array([8, 1, 1]), positions * (1 + 1e-3 * i)), {}, {"energy": each}, identity="water")
        for i, each in enumerate(energies)
    )
    write_store(path, rows, metadata)
    data = DataConfig(str(path), split="reference", sizes=(20, 5))
    selection = Selection.of(data, ("energy",))
    torch.manual_seed(0)
    model = MolSpectra(ModelConfig(property="scalar", atom_references="fit"))
    standardise(model, selection, ["energy"])
    assert model.property_head is not None
    train = energies[selection.train]
    assert float(model.property_head.std) == pytest.approx(train.std(), rel=1e-4)
    found = predict_rows(model, selection.store, np.arange(30), ["energy"])
    assert found.prediction.dtype == np.float64
    residual = found.prediction - train.mean()
    assert len(np.unique(residual)) == 30
    assert np.abs(residual).max() < 0.2


def test_elements_without_a_published_energy_are_refused(energies: Path, tmp_path: Path) -> None:
    path = tmp_path / "chlorine.arrow"
    row = Row(
        Molecule(np.array([17, 1]), np.array([[0, 0, 0], [0, 0, 1.27]])), {}, {"u0": -1.0}, identity="A"
    )
    other = Row(
        Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 0.74]])), {}, {"u0": -1.0}, identity="B"
    )
    write_store(path, [row, other] * 3, Metadata("made up", "CC0", properties={"u0": Quantity("eV")}))
    selection = Selection(Store(path), *[np.arange(2)] * 3)
    model = MolSpectra(ModelConfig(property="scalar", atom_references="published"))
    with pytest.raises(ElementError, match=r"Cl; .*model\.atom_references: fit"):
        standardise(model, selection, ["u0"])


@pytest.mark.parametrize("target", ["u0", "mu", "r2"])
def test_targets_are_learnt_with_their_heads(gap: Make, energies: Path, tmp_path: Path, target: str) -> None:
    config = settings(gap, energies, target, atom_references="auto")
    result = finetune(replace(config, loop=replace(config.loop, steps=6)), tmp_path / "run", show=False)
    assert result.metrics[target] < 50  # standardised
    model, _ = load_model(tmp_path / "run")
    assert model.config.property == HEADS[target]
    assert model.config.atom_references == ("published" if target == "u0" else "none")
    assert (model.property_head.references is None) == (target != "u0")  # type: ignore[union-attr]
    again = finetune(replace(config, loop=replace(config.loop, steps=6)), tmp_path / "run", resume=True)
    assert again.metrics == result.metrics


def test_references_belong_to_scalars() -> None:
    with pytest.raises(InputError, match=r"model\.atom_references: a dipole has none"):
        MolSpectra(ModelConfig(property="dipole", atom_references="fit"))
