"""The published MD17 protocol on a made-up trajectory: energies and forces, plateau, noise, exact resume."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import InputError, MismatchError
from molspectra.evaluation.evaluate import evaluate
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.objectives.loss import NoiseKey
from molspectra.training.checkpoint import find_checkpoint, newest, read_resume
from molspectra.training.config import DataConfig, FinetuneConfig, LoopConfig, OptimizerConfig
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer
from molspectra.training.record import read_metrics
from molspectra.training.run import finetune
from molspectra.training.schedule import ScheduleConfig
from molspectra.training.stages import FinetuneStage

ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8, layer_norms=False)
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
STIFFNESS = 800.0
"""kcal/mol/Å² of every bond and of the distance between the hydrogens."""


def frame(i: int) -> Row:
    """Water on springs, moved a little; energies of an electronic calculation's size."""
    positions = WATER + np.random.default_rng(i).normal(0, 0.05, (3, 3))
    energy, forces = -47_970.0, np.zeros((3, 3))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        apart = positions[a] - positions[b]
        stretch = np.linalg.norm(apart) - np.linalg.norm(WATER[a] - WATER[b])
        energy += 0.5 * STIFFNESS * stretch**2
        force = -STIFFNESS * stretch * apart / np.linalg.norm(apart)
        forces[a] += force
        forces[b] -= force
    return Row(Molecule(np.array([8, 1, 1]), positions), {}, {"energy": energy}, forces, identity="water")


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trajectory") / "water.arrow"
    metadata = Metadata(
        "made up",
        "CC0",
        properties={"energy": Quantity("kcal/mol", "springs")},
        forces=Quantity("kcal/mol/Å", "springs"),
    )
    write_store(path, map(frame, range(60)), metadata)
    return path


@pytest.fixture(scope="module")
def config(trajectory: Path) -> FinetuneConfig:
    return FinetuneConfig(
        target="energy",
        forces=True,
        model=ModelConfig(ENCODER, property="scalar", atom_references="fit"),
        data=DataConfig(str(trajectory), split="reference", split_seed=1, sizes=(32, 8)),
        loop=LoopConfig(steps=16, batch_size=8, validate_every=2, save_every=5, log_every=1),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            schedule=ScheduleConfig(kind="plateau", warmup=2, patience=1, shrink=0.5, threshold=0.5),
        ),
        supervised=replace(FinetuneConfig().supervised, standardised=False),
        energy_weight=0.2,
        force_weight=0.8,
        energy_smoothing=0.05,
        denoising_weight=0.0,
    )


@pytest.fixture(scope="module")
def whole(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    return finetune(config, tmp_path_factory.mktemp("whole") / "run", show=False).directory


def logged(run: Path, name: str) -> list[float]:
    return [value for _, found, value, _ in read_metrics(run / "metrics.csv") if found == name]


def test_the_rate_shrinks_on_plateaus_of_the_validation_loss(whole: Path) -> None:
    rates, losses = logged(whole, "train/learning_rate"), logged(whole, "val/loss")
    assert rates[:2] == [0.0005, 0.001]
    assert min(rates) < max(rates) == 0.001
    best, bad, expected = float("inf"), 0, [0.001]
    for loss in losses:  # one validation every two steps
        if loss < 0.5 * best:
            best, bad = loss, 0
        else:
            bad += 1
        expected.append(expected[-1] * (0.5 if bad > 1 else 1.0))
        bad = 0 if bad > 1 else bad
    assert rates[2::2] == expected[1:-1]


@pytest.mark.parametrize("stop", [3, 8])
def test_a_stopped_run_goes_on_bit_for_bit(
    config: FinetuneConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    update = Trainer._update

    def patched(self: Trainer, micros: Any) -> dict[str, float]:
        if self.step == stop:
            signal.raise_signal(signal.SIGTERM)
        return update(self, micros)

    monkeypatch.setattr(Trainer, "_update", patched)
    with pytest.raises(Interrupted):
        finetune(config, tmp_path / "run", show=False)
    monkeypatch.undo()
    finetune(config, tmp_path / "run", resume=True, show=False)
    for name in ("train/learning_rate", "train/loss", "val/loss"):
        assert logged(tmp_path / "run", name) == logged(whole, name)
    states = [newest(run / "checkpoints") for run in (tmp_path / "run", whole)]
    ours, theirs = (read_resume(state) for state in states if state is not None)
    assert ours["plateau"] == theirs["plateau"]
    assert ours["plateau"][2] > 0
    assert all(torch.equal(ours["stage"][key], value) for key, value in theirs["stage"].items())


def test_a_state_without_a_plateau_is_refused(
    config: FinetuneConfig, tmp_path: Path, made_before: Callable[[Path], None]
) -> None:
    finetune(replace(config, loop=replace(config.loop, steps=2)), tmp_path / "run", show=False)
    state = tmp_path / "run" / "checkpoints" / "step-000000002" / "resume.pt"
    content = torch.load(state, weights_only=True)
    del content["plateau"]
    torch.save(content, state)
    made_before(tmp_path / "run")
    record = tmp_path / "run" / "record.json"
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(MismatchError, match="step-"):
        finetune(
            replace(config, loop=replace(config.loop, steps=2)), tmp_path / "run", resume=True, show=False
        )


def test_a_plateau_needs_validations(config: FinetuneConfig) -> None:
    with pytest.raises(InputError, match=r"set loop\.validate_every"):
        replace(config, loop=replace(config.loop, validate_every=0))


def test_forces_are_evaluated_beside_their_floor(whole: Path, trajectory: Path, tmp_path: Path) -> None:
    results = {
        choice: evaluate(whole, tmp_path / choice, checkpoint=choice)  # type: ignore[arg-type]
        for choice in ("best", "last")
    }
    for choice, result in results.items():
        assert result["checkpoint"] == find_checkpoint(whole, choice).name  # type: ignore[arg-type]
        assert result["checkpoint_choice"] == choice
        assert result["forces"]["unit"] == "kcal/mol/Å"
        assert result["forces"]["count"] == 20 * 9
    store = Store(trajectory)
    rows = np.random.default_rng(1).permutation(60)
    parts = [
        store.batch(part, targets=("forces",)).targets["forces"].numpy() for part in (rows[:32], rows[40:])
    ]
    constant = np.median(parts[0].astype(np.float64))
    floor = np.abs(parts[1].astype(np.float64) - constant).mean()
    assert results["best"]["forces"]["constant"] == pytest.approx(constant)
    assert results["best"]["forces"]["median_predictor_mae"] == pytest.approx(floor)
    assert results["best"]["molecules"] == 20


def stage_of(config: FinetuneConfig, **changes: Any) -> FinetuneStage:
    torch.manual_seed(0)
    return FinetuneStage(MolSpectra(config.model), replace(config, **changes)).train()


def test_where_the_noise_goes(config: FinetuneConfig, trajectory: Path) -> None:
    """The losses of a step, in relation to those of the clean frames."""
    batch = Store(trajectory).batch(np.arange(6), targets=("energy", "forces"))
    key = NoiseKey(0, torch.zeros(6, dtype=torch.int64))

    def losses(weight: float, mode: str) -> dict[str, float]:
        found = stage_of(config, denoising_weight=weight, noisy_nodes=mode)(batch, key)
        return {name: float(loss.sum.detach()) for name, loss in found.items()}

    clean = losses(0.0, "auto")
    assert set(clean) == {"energy", "forces"}
    assert losses(0.0, "joint") == losses(0.0, "separate") == clean
    separate, joint, reference = losses(0.1, "auto"), losses(0.1, "joint"), losses(0.0, "reference")
    assert {name: separate[name] for name in clean} == clean
    # without gradients of positions kernels take distances in float64: the same to rounding
    assert separate["denoising"] == pytest.approx(joint["denoising"], rel=1e-5)
    assert joint["forces"] != clean["forces"]
    assert reference == {name: joint[name] for name in clean}
    assert losses(0.1, "separate") == separate


def test_without_forces_noise_is_joint(config: FinetuneConfig) -> None:
    assert replace(config, forces=False).noise_mode == "joint"
    assert config.noise_mode == "separate"
    assert replace(config, noisy_nodes="reference").noise_mode == "reference"


def test_springs_are_learnt(config: FinetuneConfig, tmp_path: Path) -> None:
    """In a few steps the forces are better than any constant, and better than at the start."""
    longer = replace(config, loop=replace(config.loop, steps=60, validate_every=30))
    longer = replace(longer, optimizer=OptimizerConfig(learning_rate=5e-3))
    run = finetune(longer, tmp_path / "run", show=False).directory
    forces = evaluate(run)["forces"]
    assert forces["mae"] < 0.7 * forces["median_predictor_mae"]
