"""Tiny trained runs, shared by tests of commands, and a quickly trained potential of ethanol."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, write_store
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.config import DataConfig, FinetuneConfig, LoopConfig, OptimizerConfig, PretrainConfig
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, read_recipe

SMILES = [
    "C", "CC", "CCC", "CCCC", "C=C", "CC=C", "C#C", "CO", "CCO", "CCCO", "COC", "CC=O", "CC(C)=O", "O", "N",
    "CN", "CCN", "C#N", "CC#N", "C1CC1", "C1CO1", "OC=O",
]  # fmt: skip
ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(
    width=8, heads=2, layers=1, feed_forward=8, patch=(100, 250, 250), stride=(50, 125, 125)
)


def _row(number: int, smiles: str) -> Row:
    """Molecule `number`; water has no Raman spectrum and methane none at all."""
    generator = np.random.default_rng(number)
    spectra = {
        name: LineSpectrum(
            name, np.sort(generator.uniform(low, high, 6)), generator.uniform(0.1, 50.0, 6), "made up"
        )
        for name, low, high in (("uv_vis", 3, 14), ("ir", 600, 3800), ("raman", 600, 3800))
    }
    if smiles == "O":
        del spectra["raman"]
    if smiles == "C":
        spectra = {}
    molecule = from_smiles(smiles, name=f"molecule {number}")
    forces = generator.normal(size=(len(molecule), 3))
    return Row(molecule, spectra, {"gap": 5.0 + 0.3 * float(molecule.numbers.mean())}, forces)


@pytest.fixture(scope="session")
def use_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 molecules with made-up spectra, gaps and forces."""
    metadata = Metadata(
        source="made up",
        licence="CC0",
        lines=dict.fromkeys(("uv_vis", "ir", "raman"), "made up"),
        properties={"gap": Quantity("eV", "made-up level")},
        forces=Quantity("eV/Å", "made-up level"),
    )
    path = tmp_path_factory.mktemp("use") / "store.arrow"
    write_store(path, (_row(number, smiles) for number, smiles in enumerate(SMILES)), metadata)
    return path


@pytest.fixture(scope="session")
def use_runs(use_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories: stage1, stage2, inner (aligned by inner product), gap and forces."""
    root = tmp_path_factory.mktemp("runs")
    parts = {
        "data": DataConfig(store=str(use_store), fractions=(0.6, 0.2, 0.2)),
        "loop": LoopConfig(steps=3, batch_size=4, validate_every=0, save_every=0),
        "optimizer": OptimizerConfig(learning_rate=1e-3),
    }
    aligned = ModelConfig(ENCODER, SPECFORMER)
    stage2 = PretrainConfig(model=aligned, **parts)
    tuned = ModelConfig(ENCODER, property="scalar")
    configs = {
        "stage1": PretrainConfig(model=ModelConfig(ENCODER), **parts),
        "stage2": stage2,
        "inner": replace(stage2, alignment=replace(stage2.alignment, similarity="inner")),
        "gap": FinetuneConfig(model=tuned, **parts),
        "forces": FinetuneConfig(model=tuned, forces=True, **parts),
    }
    for name, config in configs.items():
        run = finetune if isinstance(config, FinetuneConfig) else pretrain
        run(config, root / name, show=False)
    return {name: root / name for name in configs}


@pytest.fixture(scope="session")
def ethanol_run(tmp_path_factory):
    """Recipe small-md17, smaller and shorter: holds ethanol together, no more."""
    values = read_recipe("small-md17")
    values["model"]["encoder"] |= {"channels": 32, "layers": 2, "radial": 16}
    values["loop"] |= {"steps": 150, "validate_every": 150, "save_every": 0, "log_every": 100}
    values["optimizer"]["learning_rate"] = 3e-3
    out = tmp_path_factory.mktemp("ethanol") / "run"
    return finetune(from_dict(FinetuneConfig, values, "small-md17"), out, show=False).directory
