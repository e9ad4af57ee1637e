"""Several properties by one model: heads of their own, missing labels, errors and predictions of each."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, write_store
from molspectra.errors import SettingError
from molspectra.models.model import HeadConfig, MolSpectra
from molspectra.objectives.loss import NoiseKey
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection, in_order
from molspectra.training.settings import from_dict
from molspectra.training.stages import FinetuneStage
from molspectra.training.standardise import standardise
from molspectra.training.targets import resolved

SMILES = ["C", "CC", "CCC", "CCCC", "C=C", "CC=C", "C#C", "CO", "CCO", "CCCO", "COC", "CC=O", "CC(C)=O", "O"]
TARGETS = ("gap", "alpha", "mu")
TINY = [
    *("--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"),
    *("--data.fractions", "0.5,0.25,0.25", "--loop.batch_size", "4", "--quiet"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 molecules; every third has no gap, every second no alpha, and the last nothing."""

    def row(number: int, smiles: str) -> Row:
        molecule = from_smiles(smiles)
        values = {"gap": 5.0 + 0.3 * float(molecule.numbers.mean()), "alpha": float(len(molecule))}
        values["mu"] = 0.1 * number
        kept = {
            name: value
            for name, value in values.items()
            if number < 13
            and not (name == "gap" and number % 3 == 2)
            and not (name == "alpha" and number % 2)
        }
        return Row(molecule, {}, kept)

    units = {"gap": "eV", "alpha": "a0^3", "mu": "D"}
    metadata = Metadata("made up", "CC0", properties={name: Quantity(unit) for name, unit in units.items()})
    path = tmp_path_factory.mktemp("several") / "some.arrow"
    write_store(path, (row(number, smiles) for number, smiles in enumerate(SMILES)), metadata)
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "several"
    command = ["finetune", "--target", *TARGETS, "--data.store", str(store), "--out", str(out), *TINY]
    assert main([*command, "--loop.steps", "5"]) == 0
    return out


def test_each_target_has_its_head(run: Path) -> None:
    """Gap is pooled, the dipole has vectors; what the run learnt is in its record with its labels."""
    model = ms.load(str(run)).model
    assert model.config.heads == (
        HeadConfig("scalar", "pooled"),
        HeadConfig("scalar", "sum"),
        HeadConfig("dipole", "sum"),
    )
    record = json.loads((run / "record.json").read_text())
    rows, labels = record["data"]["rows"], record["data"]["labels"]
    assert sum(rows.values()) == 13
    assert labels["mu"] == rows
    assert sum(labels["alpha"].values()) == 7
    assert record["data"]["rows_without_target"] == 1
    assert record["about"]["targets"]["alpha"] == {"unit": "a0^3", "level": ""}


def test_the_loss_of_each_is_over_its_labels(store: Path) -> None:
    """By hand: the mean of squared errors over what is known, in units of the target's own deviation."""
    settings = {"target": "gap,alpha", "data": {"store": str(store)}, "denoising_weight": 0.0}
    config = resolved(ms_config(settings))
    selection = Selection.of(config.data, config.labels)
    torch.manual_seed(0)
    model = MolSpectra(config.model)
    standardise(model, selection, config.targets)
    stage = FinetuneStage(model, config).eval()
    (micro,) = in_order(selection.store, selection.train, 100, targets=config.labels)
    losses = stage(micro.batch, NoiseKey(0, torch.zeros(len(selection.train), dtype=torch.int64)))
    predicted = [value.detach().numpy() for value in model.predict(model.encode(micro.batch), micro.batch)]
    for name, values in zip(config.targets, predicted, strict=True):
        wanted = selection.store.column(name)[selection.train]
        known = ~np.isnan(wanted)
        assert 0 < known.sum() < len(known)
        by_hand = np.square((values - wanted)[known] / wanted[known].std()).mean()
        loss = losses[name]
        assert loss.count == known.sum() == stage.counts(micro.batch)[name]
        assert float(loss.sum.detach()) / loss.count == pytest.approx(by_hand, rel=1e-4)


def test_evaluation_and_predictions(run: Path, store: Path, tmp_path: Path) -> None:
    result = ms.evaluate(run, part="train")
    assert result["target"] == "gap"
    assert list(result["targets"]) == list(TARGETS)
    with (run / "predictions-train.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, unit in (("gap", "eV"), ("alpha", "a0^3"), ("mu", "D")):
        pairs = [
            (float(row[f"computed {name} [{unit}]"]), float(row[f"predicted {name} [{unit}]"]))
            for row in rows
        ]
        errors = [abs(one - other) for one, other in pairs if not np.isnan(one)]
        assert result["targets"][name]["count"] == len(errors)
        assert result["targets"][name]["mae"] == pytest.approx(np.mean(errors))

    found = ms.predict(["CCO", "CC=O"], run)
    assert found.targets == TARGETS
    assert found.values.shape == (2, 3)
    assert [quantity.unit for quantity in found.quantities] == ["eV", "a0^3", "D"]
    for suffix in (".csv", ".parquet", ".extxyz"):
        found.save(tmp_path / f"some{suffix}")
    with (tmp_path / "some.csv").open() as file:
        (first, _) = csv.DictReader(file)
    assert [float(first[f"{name}"]) for name in ("gap [eV]", "alpha [a0^3]", "mu [D]")] == found.values[
        0
    ].tolist()
    assert "mu_unit=D" in (tmp_path / "some.extxyz").read_text()
    assert found.table().schema.field("alpha").metadata[b"unit"] == b"a0^3"


def test_the_labels_are_counted_at_the_start(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        "finetune",
        "--target",
        "gap,alpha",
        "--data.store",
        str(store),
        "--out",
        str(tmp_path / "run"),
    ]
    shown = [word for word in TINY if word != "--quiet"]
    assert main([*command, *shown, "--loop.steps", "1"]) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "gap is known in" in said
    assert "have no gap or alpha" in said


def test_what_cannot_be_learnt(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="twice"):
        FinetuneConfig(target="gap,gap")
    with pytest.raises(SettingError, match="forces"):
        FinetuneConfig(target="gap, forces")
    with pytest.raises(SettingError, match="heads"):
        resolved(ms_config({"target": "gap,mu", "model": {"heads": [{"property": "scalar"}]}}))


def ms_config(values: dict[str, object]) -> FinetuneConfig:
    encoder = {"channels": 8, "layers": 1, "heads": 2, "radial": 4}
    model = {"encoder": encoder, **values.pop("model", {})}  # type: ignore[dict-item]
    return from_dict(FinetuneConfig, values | {"model": model}, "test")


def test_errors_are_told_in_units(run: Path, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The validation's errors are those of an evaluation of its part, and lead what `evaluate` prints."""
    result = ms.evaluate(run, part="val", checkpoint="last")
    validation = json.loads((run / "record.json").read_text())["validation"]
    for name in TARGETS:
        assert validation[f"{name}_mae"] == pytest.approx(result["targets"][name]["mae"], rel=1e-4)
    assert main(["finetune", "--out", str(run), "--target", TARGETS[0], "--resume"]) == 2
    said = capfd.readouterr().err
    assert f"the run there learns {','.join(TARGETS)}, not {TARGETS[0]}" in said
    assert "heads" not in said
    assert main(["evaluate", str(run), "--part", "val"]) == 0
    head, *rows = capfd.readouterr().out.splitlines()
    assert head.split()[:3] == ["target", "MAE", "RMSE"]
    assert [row.split()[0] for row in rows[:3]] == list(TARGETS)
