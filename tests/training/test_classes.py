"""Targets that are two classes: heads, settings, refused labels, and what is learnt and said."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import InputError, SettingError, ValueRangeError
from molspectra.evaluation.metrics import class_figures
from molspectra.evaluation.predict import predict_rows
from molspectra.models.model import HeadConfig, ModelConfig, MolSpectra, property_heads
from molspectra.objectives.loss import NoiseKey
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection, in_order
from molspectra.training.run import finetune
from molspectra.training.stages import FinetuneStage
from molspectra.training.standardise import standardise
from molspectra.training.targets import classes_of, resolved

Make = Callable[..., Any]
ROWS = 40


@pytest.fixture
def with_labels(store: Store, tmp_path: Path) -> Make:
    """Write a store of the molecules with columns of labels, in which None is no label."""

    def write(**columns: Sequence[float | None]) -> Path:
        rows = [
            Row(
                store.molecule(row),
                {},
                {name: float(values[row]) for name, values in columns.items() if values[row] is not None},
                identity=f"ID{row:04d}",
            )
            for row in range(ROWS)
        ]
        path = tmp_path / "labels.arrow"
        path.unlink(missing_ok=True)
        properties = {name: Quantity("", "assay") for name in columns}
        write_store(path, rows, Metadata("made up", "CC0", properties=properties))
        return path

    return write


@pytest.fixture
def atoms(store: Store) -> list[float]:
    """Class 1: more than five atoms, which is easy to learn."""
    return [float(len(store.molecule(row)) > 5) for row in range(ROWS)]


def settings(gap: Make, path: Path, target: str = "active", **changes: Any) -> FinetuneConfig:
    classes = changes.pop("classes", ("active",))
    config: FinetuneConfig = gap(
        data__store=str(path), target=target, model__property=None, denoising_weight=0.0, **changes
    )
    return replace(config, classes=classes)


def test_which_targets_are_classes(gap: Make) -> None:
    """They are pooled unless told otherwise, even in columns with a head of their own; others stay."""
    mixed = resolved(settings(gap, Path("x"), "gap,active,u0"))
    assert mixed.model.heads == (
        HeadConfig("scalar", "pooled"),
        HeadConfig("binary", "pooled"),
        HeadConfig("scalar", "sum"),
    )
    assert classes_of(mixed) == ("active",)
    one = resolved(settings(gap, Path("x"), "mu", classes=("mu",)))
    assert (one.model.property, one.model.readout) == ("binary", "pooled")
    every = settings(gap, Path("x"), "a,b", classes=())
    every = resolved(replace(every, model=replace(every.model, property="binary", readout="sum")))
    assert every.model.heads == (HeadConfig("binary", "sum"),) * 2
    assert classes_of(every) == ("a", "b")
    assert property_heads(ModelConfig(property="binary")) == (HeadConfig("binary", "pooled"),)
    with pytest.raises(SettingError, match="classes: 'toxic' is not a target"):
        settings(gap, Path("x"), "active", classes=("toxic",))
    with pytest.raises(SettingError, match=r"forces: .* 'active' is a class"):
        resolved(settings(gap, Path("x"), "active,u0", forces=True))
    with pytest.raises(InputError, match=r"model\.atom_references: a class has none"):
        MolSpectra(ModelConfig(property="binary", readout="sum", atom_references="fit"))


def test_at_first_the_base_rate_is_predicted_and_labels_may_lack(
    gap: Make, with_labels: Make, atoms: list[float]
) -> None:
    """The losses, by hand over what is known: entropy of the class, and squared error of the number."""
    active = [None if row % 3 == 0 else label for row, label in enumerate(atoms)]
    size = [None if row % 4 == 1 else 2.0 * row for row in range(ROWS)]
    config = resolved(settings(gap, with_labels(active=active, size=size), "size,active"))
    selection = Selection.of(config.data, config.labels)
    model = MolSpectra(config.model)
    standardise(model, selection, config.targets)
    labels = {name: selection.store.column(name)[selection.train] for name in config.targets}
    known = ~np.isnan(labels["active"])
    rate = labels["active"][known].mean()
    assert 0 < rate < 1
    assert 0 < known.sum() < len(known)
    found = predict_rows(model, selection.store, selection.train, config.targets)
    assert found.prediction[:, 1] == pytest.approx(rate, abs=1e-6)
    stage = FinetuneStage(model, config).eval()
    (micro,) = in_order(selection.store, selection.train, 100, targets=config.labels)
    losses = stage(micro.batch, NoiseKey(0, torch.zeros(len(selection.train), dtype=torch.int64)))
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert losses["active"].count == known.sum() == stage.counts(micro.batch)["active"]
    assert float(losses["active"].mean.detach()) == pytest.approx(entropy, rel=1e-5)
    size = labels["size"]
    by_hand = np.nanmean(np.square(found.prediction[:, 0] - size)) / np.nanvar(size)
    assert float(losses["size"].mean.detach()) == pytest.approx(by_hand, rel=1e-4)


def test_a_small_set_is_learnt(
    gap: Make, with_labels: Make, atoms: list[float], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the end the probabilities of the training rows tell all labels; the validation is told."""
    path = with_labels(active=atoms)
    config = settings(gap, path, loop__steps=80, loop__validate_every=0, optimizer__learning_rate=5e-3)
    result = finetune(config, tmp_path / "run")
    assert result.metrics["loss"] == result.metrics["active"]
    assert "active_mae" not in result.metrics
    model, about = load_model(tmp_path / "run", "last")
    assert (about["unit"], about["level"]) == ("probability", "assay")
    selection = Selection.of(config.data, ("active",))
    found = predict_rows(model, selection.store, selection.train, ["active"])
    assert class_figures(found.prediction[:, 0], found.target[:, 0]).auroc == 1
    said = capfd.readouterr().err.splitlines()
    area, rate = result.metrics["active_auroc"], np.array(atoms)[selection.val].mean()
    assert said[-2] == f"active: AUROC {area:.3g} on the validation part (base rate {rate:.3g})"
    assert not any("fitted as a number" in line for line in said)


def test_the_area_does_not_depend_on_batches(
    gap: Make, with_labels: Make, tmp_path: Path, atoms: list[float]
) -> None:
    labels = [None if row % 5 == 2 else label for row, label in enumerate(atoms)]
    path = with_labels(active=labels)
    config = settings(gap, path, loop__batch_size=3, loop__steps=2)
    result = finetune(config, tmp_path / "run", show=False)
    selection = Selection.of(config.data, ("active",))
    model, _ = load_model(tmp_path / "run", "last")
    found = predict_rows(model, selection.store, selection.val, ["active"])
    ones, zeros = (found.prediction[found.target == label] for label in (1, 0))
    above = (ones[:, None] > zeros).sum() + 0.5 * (ones[:, None] == zeros).sum()
    assert result.metrics["active_auroc"] == pytest.approx(above / ones.size / zeros.size)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_other_labels_are_refused_in_every_part(
    gap: Make, with_labels: Make, tmp_path: Path, atoms: list[float], part: str
) -> None:
    config = settings(gap, with_labels(active=atoms))
    row = int(getattr(Selection.of(config.data, ("active",)), part)[1])
    atoms[row] = 0.5
    config = settings(gap, with_labels(active=atoms))
    with pytest.raises(ValueRangeError, match=rf"labels\.arrow, row {row}: active is 0\.5"):
        finetune(config, tmp_path / "run", show=False)


def test_one_class_is_refused_in_training_and_said_in_validation(
    gap: Make, with_labels: Make, tmp_path: Path, atoms: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    config = settings(gap, with_labels(active=atoms), loop__steps=1)
    selection = Selection.of(config.data, ("active",))
    labels = np.array(atoms)
    labels[selection.val] = 1
    with_labels(active=labels.tolist())
    result = finetune(config, tmp_path / "run")
    assert "active_auroc" not in result.metrics
    assert f"all {len(selection.val)} labels of it are 1" in capfd.readouterr().err
    labels[selection.train] = 0
    with_labels(active=labels.tolist())
    with pytest.raises(ValueRangeError, match="active is 0 in all"):
        finetune(config, tmp_path / "other", show=False)


def test_a_remark_names_the_setting(
    gap: Make, with_labels: Make, tmp_path: Path, atoms: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    path = with_labels(active=atoms, toxic=atoms[::-1])
    finetune(settings(gap, path, "active,toxic", loop__steps=1), tmp_path / "run")
    said = [line for line in capfd.readouterr().err.splitlines() if "as a number" in line]
    assert len(said) == 1
    assert ": toxic is 0 or 1 " in said[0]
    assert "--classes active,toxic" in said[0]
