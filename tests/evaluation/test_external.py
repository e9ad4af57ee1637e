"""A fine-tuned run tested on every labelled row of another store."""

import json
import shutil

import numpy as np
import pytest

from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import MismatchError, NotFoundError, SettingError, UnitError
from molspectra.evaluation.evaluate import evaluate
from molspectra.training.data import Selection

NEW = {"C1CCC1": 6.0, "CCCCC": 5.5, "CCC#N": 5.0, "OCCO": 4.5, "NCCN": None}


def stored(path, labels, unit="eV", name="gap"):
    rows = [
        Row(from_smiles(smiles), properties={} if value is None else {name: value})
        for smiles, value in labels.items()
    ]
    write_store(path, rows, Metadata("made up", "CC0", properties={name: Quantity(unit, "measured")}))
    return str(path)


def trained_on(tiny):
    """SMILES of the first training molecule of the tiny runs."""
    return tiny.store.smiles[Selection.of(tiny.data, ("gap",)).train[0]]


def test_all_rows_of_another_store(runs, tiny, tmp_path, capsys):
    other, run = stored(tmp_path / "other.arrow", NEW), runs["gap-stage2-0"]
    arguments = ["evaluate", str(run), "--store", other, "--part", "all", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "0 of 4 test molecules were seen in training" in said.err
    assert "1 rows have none of the run's targets" in said.err
    assert said.out.splitlines()[-1].endswith("evaluation-all.json")
    assert len(said.out.splitlines()) < 10
    result = json.loads((tmp_path / "out" / "evaluation-all.json").read_text())
    assert result["part"] == "all"
    assert result["count"] == result["molecules"] == 4
    assert result["data"]["hash"] == Store(other).hash
    assert result["data"]["rows_without_target"] == 1
    assert result["level"] == "measured"
    assert result["seen"]["training"]["structures"] == 0
    lines = (tmp_path / "out" / "predictions-all.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    values = np.array(list(NEW.values())[:4])
    train = tiny.store.column("gap")[Selection.of(tiny.data, ("gap",)).train]
    assert result["median_predictor_mae"] == pytest.approx(np.abs(values - np.median(train)).mean())


def test_molecules_of_the_training_are_refused_unless_allowed(runs, tiny, tmp_path, capsys):
    other = stored(tmp_path / "other.arrow", {**NEW, trained_on(tiny): 7.0})
    run, out = runs["gap-scratch-0"], tmp_path / "out"
    for allowed in ("none", "structures"):
        with pytest.raises(MismatchError, match=r"1 of 5 .* 1 of them with labels.*row 5.*--allow-leak all"):
            evaluate(run, out, "all", store=other, allow_leak=allowed)
    assert not out.exists()
    command = ["evaluate", str(run), "--part", "all", "--store", other, "--out", str(out)]
    assert main([*command, "--allow-leak", "all"]) == 0
    assert "1 of 5 test molecules were seen in training" in capsys.readouterr().err
    seen = json.loads((out / "evaluation-all.json").read_text())["seen"]
    assert seen["training"]["labels"] == len(seen["training"]["examples"]) == 1
    assert seen["allow_leak"] == "all"


def test_molecules_of_pre_training_are_refused_too(runs, tiny, tmp_path):
    train = Selection.of(tiny.data, ("gap",)).train
    only = set(Selection.of(tiny.data).train) - set(train)  # without a label: seen by pre-training alone
    assert only
    other = stored(tmp_path / "other.arrow", {**NEW, tiny.store.smiles[only.pop()]: 7.0})
    assert evaluate(runs["gap-scratch-0"], tmp_path / "out", "all", store=other)["count"] == 5
    with pytest.raises(MismatchError, match=r"1 of 5 .* with spectra"):
        evaluate(runs["gap-stage2-0"], tmp_path / "out", "all", store=other)


def test_without_the_store_of_the_run_what_it_saw_is_unknown(runs, tiny, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["gap-scratch-0"], run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["store"] = str(tmp_path / "gone.arrow")
    (run / "config.json").write_text(json.dumps(config))
    result = evaluate(run, None, "all", store=stored(tmp_path / "other.arrow", NEW))
    assert "gone.arrow" in result["seen"]["training"]["sentence"]
    assert result["median_predictor_mae"] is None
    assert result["mae"] > 0


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    run, out = runs["gap-scratch-0"], tmp_path / "out"
    with pytest.raises(UnitError, match=r"gap is in meV, .* predicts it in eV"):
        evaluate(run, out, "all", store=stored(tmp_path / "a.arrow", NEW, unit="meV"))
    with pytest.raises(NotFoundError, match="gap"):
        evaluate(run, out, "all", store=stored(tmp_path / "b.arrow", NEW, name="homo"))
    with pytest.raises(NotFoundError, match="no row has gap"):
        evaluate(run, out, "all", store=stored(tmp_path / "c.arrow", dict.fromkeys(NEW)))
    with pytest.raises(SettingError, match="part all"):
        evaluate(runs["stage1"], out, "all")
    with pytest.raises(SettingError, match="part all"):
        evaluate(run, out, allow_leak="all")
    assert not out.exists()
