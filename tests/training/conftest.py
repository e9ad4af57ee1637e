"""A tiny made-up store and tiny models, shared by the tests of this folder."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.config import DataConfig, FinetuneConfig, LoopConfig, OptimizerConfig, PretrainConfig
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer

GRID = np.stack(np.meshgrid(*[np.arange(2.0)] * 3), -1).reshape(-1, 3) * 1.3
RANGES = {"uv_vis": (3.0, 14.0), "ir": (600.0, 3800.0), "raman": (600.0, 3800.0)}
BARE = (3, 11, 12, 20, 29)
"""Rows without any spectrum."""

ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(
    width=16, heads=2, layers=1, feed_forward=16, patch=(100, 250, 250), stride=(50, 125, 125)
)


def row_of(i: int) -> Row:
    """Row i: two to eight atoms; every fifth has no Raman spectrum, row 5 no gap and row 7 no forces."""
    rng = np.random.default_rng(i)
    atoms = 2 + i % 7
    molecule = Molecule(rng.choice([1, 6, 7, 8], atoms), GRID[:atoms] + rng.normal(0, 0.05, (atoms, 3)))
    spectra = {
        name: LineSpectrum(name, np.sort(rng.uniform(*RANGES[name], 6)), rng.uniform(0.1, 50, 6), "made up")
        for name in RANGES
        if i not in BARE and not (name == "raman" and i % 5 == 0)
    }
    properties = {} if i == 5 else {"gap": 5.0 + 0.3 * float(molecule.numbers.mean())}
    forces = None if i == 7 else rng.normal(0, 0.1, (atoms, 3))
    return Row(molecule, spectra, properties, forces, identity=f"ID{i:04d}")


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metadata = Metadata(
        source="made up",
        licence="CC0-1.0",
        lines=dict.fromkeys(RANGES, "made up"),
        properties={"gap": Quantity("eV", "made up")},
        forces=Quantity("eV/Å", "made up"),
    )
    path = tmp_path_factory.mktemp("store") / "tiny.arrow"
    write_store(path, map(row_of, range(40)), metadata)
    return path


@pytest.fixture(scope="session")
def store(store_path: Path) -> Store:
    return Store(store_path)


Make = Callable[..., Any]


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """A copy with settings changed by full names in which __ stands for the dot."""
    for name, value in changes.items():
        first, _, rest = name.partition("__")
        new = _changed(getattr(config, first), {rest: value}) if rest else value
        config = replace(config, **{first: new})
    return config


@pytest.fixture(scope="session")
def stage1(store_path: Path) -> Make:
    """Settings of a tiny stage 1; keyword `loop__steps` sets `loop.steps`, and so on."""
    config = PretrainConfig(
        model=ModelConfig(ENCODER),
        data=DataConfig(store=str(store_path), fractions=(0.7, 0.2, 0.1)),
        loop=LoopConfig(steps=4, batch_size=8, validate_every=2, save_every=2, log_every=1),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    return lambda **changes: _changed(config, changes)


@pytest.fixture(scope="session")
def stage2(stage1: Make) -> Make:
    config = stage1(model__spectrum_encoder=SPECFORMER)
    return lambda **changes: _changed(config, changes)


@pytest.fixture(scope="session")
def gap(stage1: Make) -> Make:
    start = stage1()
    config = FinetuneConfig(
        model=ModelConfig(ENCODER, property="scalar"),
        data=start.data,
        loop=start.loop,
        optimizer=start.optimizer,
    )
    return lambda **changes: _changed(config, changes)


@pytest.fixture
def made_before() -> Callable[[Path], None]:
    """Turn a run into one from before runs had identities and checkpoints manifests."""

    def change(run: Path) -> None:
        for manifest in run.glob("checkpoints/*/manifest.json"):
            manifest.unlink()
        record = json.loads((run / "record.json").read_text())
        del record["id"], record["manifests_after"]
        (run / "record.json").write_text(json.dumps(record))

    return change


@pytest.fixture
def cut_before_step_3(monkeypatch: pytest.MonkeyPatch) -> Make:
    """A context whose training must be interrupted when three steps are done."""

    @contextmanager
    def cut() -> Iterator[None]:
        update = Trainer._update

        def until_step_3(self: Trainer, micros: Any) -> dict[str, float]:
            if self.step == 3:
                raise Interrupted("stop")
            return update(self, micros)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_update", until_step_3)
            with pytest.raises(Interrupted):
                yield

    return cut
