"""A tiny store of synthetic spectra and tiny runs on it, shared by tests of several packages."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.config import DataConfig, FinetuneConfig, LoopConfig, OptimizerConfig, PretrainConfig
from molspectra.training.run import finetune, pretrain

# name, SMILES; several isomers, and one molecule (ethanol) with two structures
MOLECULES = [
    ("methane", "C"), ("ethane", "CC"), ("propane", "CCC"), ("butane", "CCCC"), ("isobutane", "CC(C)C"),
    ("ethene", "C=C"), ("propene", "CC=C"), ("1-butene", "CCC=C"), ("isobutene", "CC(C)=C"),
    ("ethyne", "C#C"), ("propyne", "CC#C"), ("methanol", "CO"), ("ethanol", "CCO"), ("ethanol b", "OCC"),
    ("dimethyl ether", "COC"), ("1-propanol", "CCCO"), ("2-propanol", "CC(C)O"), ("methoxyethane", "CCOC"),
    ("acetone", "CC(C)=O"), ("propanal", "CCC=O"), ("acetaldehyde", "CC=O"), ("formaldehyde", "C=O"),
    ("formic acid", "OC=O"), ("acetic acid", "CC(=O)O"), ("methyl formate", "COC=O"), ("water", "O"),
    ("ammonia", "N"), ("methylamine", "CN"), ("ethylamine", "CCN"), ("dimethylamine", "CNC"),
    ("acetonitrile", "CC#N"), ("hydrogen cyanide", "C#N"), ("formamide", "NC=O"), ("acetamide", "CC(N)=O"),
    ("fluoromethane", "CF"), ("difluoromethane", "FCF"), ("cyclopropane", "C1CC1"), ("oxirane", "C1CO1"),
    ("furan", "c1ccoc1"), ("benzene", "c1ccccc1"),
]  # fmt: skip

FRACTIONS = (0.5, 0.2, 0.3)


def _lines(modality, low, high, seed, count=6):
    generator = np.random.default_rng(seed)
    position = np.sort(generator.uniform(low, high, count))
    return LineSpectrum(modality, position, generator.uniform(0.1, 50.0, count), "synthetic")


@dataclass(frozen=True)
class Tiny:
    """The tiny store, its split, the configuration of a tiny stage-2 model, and that of a stage-1 run."""

    path: Path
    store: Store
    data: DataConfig
    pretrain_model: ModelConfig
    stage1: PretrainConfig

    def row(self, name):
        """Row of a molecule by its name."""
        return [known for known, _ in MOLECULES].index(name)


@pytest.fixture(scope="session")
def tiny(store_path):
    """See `Tiny`."""
    stage1 = PretrainConfig(model=ModelConfig(ENCODER), **settings(store_path, 0))
    return Tiny(store_path, Store(store_path), stage1.data, ModelConfig(ENCODER, SPECFORMER), stage1)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory):
    """40 molecules; water has no Raman spectrum and ammonia no gap."""
    rows = []
    for number, (name, smiles) in enumerate(MOLECULES):
        molecule = from_smiles(smiles, name=name)
        spectra = {
            "uv_vis": _lines("uv_vis", 3, 14, number),
            "ir": _lines("ir", 600, 3800, number),
            "raman": _lines("raman", 600, 3800, number + 100),
        }
        if name == "water":
            del spectra["raman"]
        properties = {} if name == "ammonia" else {"gap": 5.0 + 0.3 * molecule.numbers.mean()}
        rows.append(Row(molecule, spectra, properties))
    metadata = Metadata(
        source="made up",
        licence="CC0",
        lines=dict.fromkeys(("uv_vis", "ir", "raman"), "synthetic"),
        properties={"gap": Quantity("eV", "synthetic")},
    )
    path = tmp_path_factory.mktemp("store") / "tiny.arrow"
    write_store(path, rows, metadata)
    return path


ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(
    width=8, heads=2, layers=1, feed_forward=8, patch=(100, 250, 250), stride=(50, 125, 125)
)


def settings(store_path, seed, steps=4):
    """Parts that all tiny runs share."""
    return {
        "data": DataConfig(store=str(store_path), fractions=FRACTIONS),
        "loop": LoopConfig(steps=steps, batch_size=8, seed=seed, validate_every=2, save_every=0, log_every=1),
        "optimizer": OptimizerConfig(learning_rate=1e-3),
    }


@pytest.fixture(scope="session")
def runs(tiny, tmp_path_factory):
    """Run directories: stage1, stage2 (from stage1), and gap runs from each start for seeds 0 and 1."""
    root = tmp_path_factory.mktemp("runs")
    directories = {}

    def keep(name, start, config):
        directories[name] = start(config, root / name, show=False).directory

    keep("stage1", pretrain, tiny.stage1)
    both = PretrainConfig(
        model=tiny.pretrain_model, init=str(directories["stage1"]), **settings(tiny.path, 0, 6)
    )
    keep("stage2", pretrain, both)
    for seed in (0, 1):
        for start in ("scratch", "stage1", "stage2"):
            config = FinetuneConfig(
                model=ModelConfig(ENCODER, property="scalar"),
                init=None if start == "scratch" else str(directories[start]),
                **settings(tiny.path, seed),
            )
            keep(f"gap-{start}-{seed}", finetune, config)
    return directories
