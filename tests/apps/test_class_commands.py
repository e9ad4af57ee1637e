"""Two classes and a number at once, from the command line: train, test, predict, report, refuse forces."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import MismatchError
from molspectra.evaluation.floors import FLOORS
from molspectra.evaluation.metrics import class_figures
from molspectra.reporting.collect import collect_report
from molspectra.training.record import read_metrics
from molspectra.training.tune import tune

SMILES = [
    *("C", "CC", "CCC", "CCCC", "C=C", "CC=C", "C#C", "CO", "CCO", "CCCO", "COC", "CC=O", "CC(C)=O", "O"),
    *("C=CO", "OCCO", "CN", "CCN", "NCCO", "CF", "FCCO", "CC#N", "OC=O", "CCOC"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whether there is oxygen, whether there are over two heavy atoms (of two in three), and a number."""

    def row(number: int, smiles: str) -> Row:
        molecule = from_smiles(smiles)
        labels = {"oxygen": float("O" in smiles), "size": float(len(molecule))}
        if number % 3:
            labels["large"] = float((molecule.numbers > 1).sum() > 2)
        return Row(molecule, {}, labels)

    properties = {"oxygen": Quantity(""), "large": Quantity("", "assay"), "size": Quantity("")}
    path = tmp_path_factory.mktemp("classes") / "some.arrow"
    rows = (row(number, smiles) for number, smiles in enumerate(SMILES))
    write_store(path, rows, Metadata("made up", "CC0", properties=properties))
    return path


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "classes"
    command = [
        *(
            "finetune",
            "--target",
            "oxygen",
            "size",
            "large",
            "--classes",
            "oxygen",
            "large",
            "--out",
            str(out),
        ),
        *("--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"),
        *("--data.fractions", "0.5,0.25,0.25", "--data.store", str(store), "--loop.batch_size", "4"),
        *("--loop.steps", "10", "--quiet"),
    ]
    assert main(command) == 0
    return out


def test_evaluate_leads_with_the_classes(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--part", "train"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["target", "MAE"]
    assert lines[1].split()[0] == "size"
    assert lines[3].split()[:3] == ["class", "AUROC", "AUPRC"]
    assert [line.split()[0] for line in lines[4:6]] == ["oxygen", "large"]
    assert "0.5" in lines[6]
    result = json.loads((run / "evaluation-train.json").read_text())
    with (run / "predictions-train.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("oxygen", "large"):
        labels = np.array([float(row[f"label {name}"]) for row in rows])
        probabilities = np.array([float(row[f"{name} [probability]"]) for row in rows])
        assert ((probabilities > 0) & (probabilities < 1)).all()
        known = ~np.isnan(labels)
        found, expected = result["targets"][name], class_figures(probabilities[known], labels[known])
        assert found["count"] == known.sum()
        assert found["auroc"] == pytest.approx(expected.auroc)
        assert found["f1"] == pytest.approx(expected.f1)
        assert found["base_rate"] == pytest.approx(labels[known].mean())
        assert found["constant"]["auprc"] == pytest.approx(labels[known].mean())
        assert found["constant"]["auroc"] == found["constant"]["balanced_accuracy"] == 0.5
    assert result["targets"]["large"]["count"] < len(rows)
    assert result["auroc"] == result["targets"]["oxygen"]["auroc"]
    assert result["targets"]["size"]["mae"] > 0
    record = json.loads((run / "record.json").read_text())
    validation = ms.evaluate(run, part="val", checkpoint="last")["targets"]
    for name in ("oxygen", "large"):
        assert record["validation"][f"{name}_auroc"] == pytest.approx(validation[name]["auroc"])


def test_floors_of_classes_and_numbers(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    plot = tmp_path / "x.svg"
    assert main(["evaluate", str(run), "--out", str(tmp_path), "--floors", "--plot", str(plot)]) == 0
    assert plot.read_text().startswith("<?xml")
    lines = capfd.readouterr().out.splitlines()
    for name in FLOORS:
        below = lines[lines.index(f"{name}:") :]
        assert [line.split()[0] for line in below[1:7] if line] == [
            "target",
            "size",
            "class",
            "oxygen",
            "large",
        ]
    folder = tmp_path / "floors" / "descriptors-oxygen"
    result = json.loads((folder / "evaluation.json").read_text())
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = np.array([float(row["label oxygen"]) for row in rows])
    expected = class_figures([float(row["oxygen [probability]"]) for row in rows], labels)
    assert result["auroc"] == pytest.approx(expected.auroc)
    assert result["constant"]["auroc"] == 0.5
    own = json.loads((tmp_path / "evaluation.json").read_text())["targets"]["oxygen"]
    assert result["training_base_rate"] == own["training_base_rate"]
    assert result["count"] == own["count"]
    assert main(["evaluate", str(run), "--out", str(tmp_path), "--floors", "--part", "val"]) == 2
    assert "--floors" in capfd.readouterr().err


def test_a_search_takes_the_largest_auroc(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = "optimizer.learning_rate=1e-5|1e-2|1e-1"
    for metric, best in (("oxygen_auroc", max), ("loss", min)):
        trials = tune(run / "config.json", tmp_path / metric, space, trials=3, metric=metric, show=False)
        values = [one.value for one in trials]
        assert values[0] == best(values) != sorted(values, reverse=best is min)[0]
        rows = read_metrics(tmp_path / metric / f"trial-{trials[0].number:03d}" / "metrics.csv")
        assert values[0] == best(value for _, name, value, _ in rows if name == f"val/{metric}")
        recorded = (tmp_path / metric / "best.yaml").read_text().splitlines()[0]
        assert recorded == f"# trial {trials[0].number}: {metric} {values[0]:.6g}"


def test_a_part_of_one_class_is_said(
    run: Path, store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ms.evaluate(run, part="val")
    with (run / "predictions-val.csv").open() as file:
        test = {row["identity"] for row in csv.DictReader(file)}  # of the run's split
    read = Store(store)
    rows = [read.row(row) for row in range(len(read))]
    changed = [
        Row(row.molecule, {}, row.properties | ({"oxygen": 0.0} if identity in test else {}))
        for row, identity in zip(rows, read.identities, strict=True)
    ]
    write_store(tmp_path / "one.arrow", changed, read.metadata)
    command = ["evaluate", str(run), "--part", "val", "--store", str(tmp_path / "one.arrow")]
    assert main([*command, "--allow-other-data", "--out", str(tmp_path / "out")]) == 0
    said = capfd.readouterr().out
    assert f"oxygen: all {len(test)} labels of the val part are 0" in said
    found = json.loads((tmp_path / "out" / "evaluation-val.json").read_text())
    assert (found["auroc"], found["positive"]) == (None, 0)


def test_predictions_are_probabilities(run: Path, tmp_path: Path) -> None:
    found = ms.predict(["CCO", "CC"], run)
    assert [quantity.unit for quantity in found.quantities] == ["probability", "", "probability"]
    assert found.quantities[2].level == "assay"
    assert ((found.values[:, [0, 2]] > 0) & (found.values[:, [0, 2]] < 1)).all()
    (tmp_path / "two.smi").write_text("CCO\nCC\n")
    out = tmp_path / "two.csv"
    assert (
        main(["predict", "--molecules", str(tmp_path / "two.smi"), "--model", str(run), "--out", str(out)])
        == 0
    )
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["oxygen [probability]"]) for row in rows] == found.values[:, 0].tolist()


def test_a_class_has_no_forces(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MismatchError, match="class 'oxygen', which has no forces"):
        ms.predict(["CCO"], run, forces=True)
    with pytest.raises(MismatchError, match="'oxygen' in 'probability'"):
        ms.Calculator(run)
    command = ["md", str(run), "--smiles", "CCO", "--out", str(tmp_path / "md.extxyz")]
    assert main(command) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_a_report_names_the_figure(run: Path) -> None:
    ms.evaluate(run)
    content = collect_report([run])
    assert not content.tables
    assert any("class oxygen: " in note and "AUROC" in note for note in content.notes)


def test_an_ensemble_of_classes_and_numbers(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Probabilities are averaged; their spread is given as it is, without intervals."""
    tiny = ["--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"]
    tiny += ["--data.store", str(store), "--loop.batch_size", "4", "--loop.steps", "3", "--quiet"]
    command = ["finetune", "--target", "oxygen", "size", "--classes", "oxygen", *tiny]
    ensemble = tmp_path / "ensemble"
    split = ["--data.fractions", "0.5,0.25,0.25"]
    assert main([*command, *split, "--members", "2", "--out", str(ensemble)]) == 0
    found = ms.predict(["CCO", "CC"], ensemble)
    members = [ms.predict(["CCO", "CC"], ensemble / f"member-{number}").values for number in (0, 1)]
    assert found.values == pytest.approx(np.mean(members, axis=0))
    assert found.uncertainties is not None
    assert found.uncertainties[:, 0] == pytest.approx(np.std(members, axis=0, ddof=1)[:, 0])
    found.save(tmp_path / "table.csv")
    heads = (tmp_path / "table.csv").read_text().splitlines()[0]
    assert "oxygen uncertainty" in heads
    assert "size 90 % from" in heads
    assert "oxygen 90 % from" not in heads
    assert main(["evaluate", str(ensemble)]) == 0
    said = capsys.readouterr().out
    assert "AUROC" in said
    assert "size: 2 members alone" in said


def test_folds_of_classes(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"]
    tiny += ["--data.store", str(store), "--loop.batch_size", "4", "--loop.steps", "2", "--quiet"]
    command = ["finetune", "--target", "oxygen", "size", "--classes", "oxygen", *tiny, "--data.folds", "2"]
    assert main([*command, "--out", str(tmp_path / "folds")]) == 0
    said = capsys.readouterr().out
    assert "AUROC (mean ± sd)" in said
    assert "MAE (mean ± sd)" in said
