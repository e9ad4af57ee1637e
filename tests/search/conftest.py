"""A run of a tiny stage-2 model on the bundled data, a small store, and an index of it."""

import shutil

import numpy as np
import pytest

from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store, write_store
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.search.build import build
from molspectra.training.config import DataConfig, LoopConfig, PretrainConfig
from molspectra.training.run import pretrain

ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(
    width=8, heads=2, layers=1, feed_forward=8, patch=(100, 250, 250), stride=(50, 125, 125)
)
ROWS = range(0, 1800, 30)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    config = PretrainConfig(
        model=ModelConfig(ENCODER, SPECFORMER),
        data=DataConfig(fractions=(0.97, 0.01, 0.02), train_rows=40),
        loop=LoopConfig(steps=4, batch_size=8, validate_every=4, save_every=0, log_every=1),
    )
    return pretrain(config, tmp_path_factory.mktemp("search") / "stage2", show=False).directory


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """60 of the bundled molecules with their spectra."""
    everything = bundled()
    path = tmp_path_factory.mktemp("search") / "small.arrow"
    write_store(path, [everything.row(row) for row in ROWS], everything.metadata)
    return Store(path)


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    """60 molecules that are not among those of `small`."""
    everything = bundled()
    path = tmp_path_factory.mktemp("search") / "others.arrow"
    write_store(path, [everything.row(row + 1) for row in ROWS], everything.metadata)
    return Store(path)


@pytest.fixture(scope="session")
def made(run, small, tmp_path_factory):
    """An index that no test changes."""
    out = tmp_path_factory.mktemp("search") / "index"
    build(out, small, run)
    return out


@pytest.fixture(scope="session")
def part_of_library(tmp_path_factory):
    """Make a store of the molecules of the bundled library with some SMILES, in their order."""

    def make(*smiles):
        everything = bundled("bundled-library")
        rows = {everything.molecule(row).smiles: row for row in range(len(everything))}
        path = tmp_path_factory.mktemp("part") / "part.arrow"
        write_store(path, [everything.row(rows[each]) for each in smiles], everything.metadata)
        return Store(path)

    return make


@pytest.fixture
def index(made, tmp_path):
    """A copy of the index, to be changed."""
    shutil.copytree(made, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def columns_of(tmp_path):
    """Write a sampled spectrum as an instrument would, in the folder of the test."""

    def write(name, spectrum, header="wavenumber (cm-1), absorbance", scale=1e-3):
        points = np.column_stack([spectrum.axis, scale * spectrum.values])
        np.savetxt(tmp_path / name, points, delimiter=",", header=header, comments="")
        return tmp_path / name

    return write
