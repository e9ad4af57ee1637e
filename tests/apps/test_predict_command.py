"""Properties and forces by fine-tuned runs, from Python and from the command line."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.chem.xyz import xyz_entries, xyz_frame
from molspectra.data.store.schema import Quantity
from molspectra.errors import ElementError, FormatError, InputError, MismatchError, NotFoundError
from molspectra.evaluation.predict import predict_rows

SOME = ["CCO", "C1CC1", "CC(C)=O"]


def test_the_same_as_in_evaluation(use_runs, use_store) -> None:
    store, model = ms.Store(use_store), ms.load(use_runs["forces"])
    found = ms.predict(store, model)
    wanted = predict_rows(model.model, store, np.arange(len(store)), ["gap"], forces=True)
    np.testing.assert_allclose(found.values, wanted.prediction[:, 0], atol=1e-5)
    assert found.forces is not None
    np.testing.assert_allclose(np.concatenate(found.forces), wanted.force_prediction, atol=1e-5)
    assert (found.targets, found.quantities) == (("gap",), (Quantity("eV", "made-up level"),))
    assert (found.force_quantity.unit, found.force_quantity.level) == ("eV/Å", "made-up level")


def test_forces_only_where_they_were_learnt(use_runs) -> None:
    assert ms.predict(SOME, use_runs["gap"]).forces is None
    assert ms.predict(SOME, use_runs["forces"], forces=False).forces is None
    asked = ms.predict(SOME, use_runs["gap"], forces=True)
    assert asked.force_quantity.unit == "eV/Å"
    assert [each.shape for each in asked.forces] == [(9, 3), (9, 3), (10, 3)]


def test_forces_are_the_negative_slope(use_runs) -> None:
    model, molecule, step = ms.load(use_runs["forces"]), ms.from_smiles("CO"), 0.01
    model.model.double()
    shift = np.zeros((len(molecule), 3))
    shift[1, 2] = step
    ends = [molecule.with_positions(molecule.positions + sign * shift) for sign in (1, -1)]
    high, low = ms.predict(ends, model, forces=False).values
    force = ms.predict([molecule], model).forces[0][1, 2]
    assert force == pytest.approx(-(high - low) / (2 * step), rel=1e-3)


def test_any_batch(use_runs) -> None:
    wanted = ms.predict(SOME, use_runs["gap"]).values
    for size in (1, 2):
        found = ms.predict(SOME, use_runs["gap"], batch_size=size).values
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "error"),
    [("stage2", MismatchError), ("nowhere", NotFoundError)],
)
def test_models_that_predict_nothing(name, error, use_runs) -> None:
    with pytest.raises(error, match=name):
        ms.predict(SOME, use_runs.get(name, name))


def test_bad_molecules(use_runs) -> None:
    found = ms.predict(["C", "CBr", "X"], use_runs["gap"], on_error="skip")
    assert len(found) == 1
    assert [each.where for each in found.rejected] == ["item 2", "item 3"]
    with pytest.raises(ElementError, match="item 1: atom 2 is Br"):
        ms.predict(["CBr"], use_runs["gap"])
    with pytest.raises(InputError, match="nothing could be predicted"):
        ms.predict(["CBr"], use_runs["gap"], on_error="skip")


def test_files_that_are_written(use_runs, tmp_path: Path) -> None:
    plain, pulled = ms.predict(SOME, use_runs["gap"]), ms.predict(SOME, use_runs["forces"])
    plain.save(tmp_path / "x.csv")
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["gap [eV]"]) for row in rows] == plain.values.tolist()
    assert rows[0]["level"] == "made-up level"
    with pytest.raises(FormatError, match="forces"):
        pulled.save(tmp_path / "y.csv")
    pulled.save(tmp_path / "y.parquet")
    table = pq.read_table(tmp_path / "y.parquet")
    assert table.schema.field("gap").metadata == {b"unit": b"eV", b"level": b"made-up level"}
    assert table.schema.field("forces").metadata[b"unit"] == "eV/Å".encode()
    for row, force in zip(table["forces"].to_pylist(), pulled.forces, strict=True):
        np.testing.assert_array_equal(np.array(row), force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "y.parquet"]


def test_frames_can_be_read_again(use_runs, tmp_path: Path) -> None:
    named = [ms.from_smiles("F/C=C/C", name='a "b" c'), ms.from_smiles("[NH4+]"), ms.from_smiles("C/C=C\\C")]
    found = ms.predict([named[2], named[1]], use_runs["forces"])
    found.save(tmp_path / "x.extxyz")
    again = list(ms.read_molecules(tmp_path / "x.extxyz"))
    assert [each.smiles for each in again] == ["C/C=C\\C", "[NH4+]"]
    assert again[1].charge == 1
    np.testing.assert_allclose(again[0].positions, named[2].positions, atol=1e-8)
    entries = list(xyz_entries(tmp_path / "x.extxyz"))
    fields = entries[0].fields()
    assert float(fields["gap"]) == found.values[0]
    assert (fields["gap_unit"], fields["forces_unit"]) == ("eV", "eV/Å")
    np.testing.assert_allclose(entries[1].vectors("forces"), found.forces[1], atol=1e-8)
    assert '"a \\"b\\" c"' in xyz_frame(named[0], {})


def test_results_can_be_prepared_again(use_runs, tmp_path: Path, capsys) -> None:
    ms.predict(SOME, use_runs["gap"]).save(tmp_path / "x.csv")
    ms.predict(SOME, use_runs["forces"]).save(tmp_path / "y.parquet")
    for name in ("x.csv", "y.parquet"):
        out = tmp_path / f"{name}.arrow"
        kind = name.partition(".")[2]
        assert main(["prepare", kind, "--raw", str(tmp_path / name), "--out", str(out), "--quiet"]) == 0
        assert ms.Store(out).metadata.properties["gap"].unit == "eV"
    assert ms.Store(out).metadata.forces.unit == "eV/Å"


def test_a_short_description(use_runs) -> None:
    found = ms.predict(["C", "C("], use_runs["forces"], on_error="skip")
    assert repr(found) == "Predicted(gap of 1, eV, made-up level, with forces, 1 left out)"
    found = ms.embed(["C", "C("], use_runs["stage2"], on_error="skip")
    assert repr(found) == "Embeddings(1 of a structure, length 16, unit, 1 left out)"


def test_frame(use_runs) -> None:
    pytest.importorskip("pandas")
    frame = ms.predict(SOME, use_runs["gap"]).frame()
    assert list(frame["smiles"]) == SOME
    assert frame["gap"].dtype == np.float64


def test_the_command(use_runs, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gap, forces = str(use_runs["gap"]), str(use_runs["forces"])
    assert main(["predict", "--smiles", *SOME, "--model", gap, "--out", "x.csv", "--quiet"]) == 0
    assert capsys.readouterr().out == "gap (eV; made-up level) of 3 molecules in x.csv; 0 left out\n"
    assert main(["predict", "--molecules", "x.csv", "--model", forces, "--out", "y.extxyz"]) == 0
    assert "3 molecules in y.extxyz" in capsys.readouterr().out
    assert len(list(ms.read_molecules("y.extxyz"))) == 3
    assert main(["predict", "--molecules", "x.csv", "--model", forces, "--out", "z.csv"]) == 2
    assert "no room for forces" in capsys.readouterr().err
    arguments = ["--forces", "no", "--on-error", "skip", "--quiet"]
    assert main(["predict", "--smiles", "C", "C(", "--model", forces, "--out", "z.csv", *arguments]) == 1
    assert "left out: molecules, item 2" in capsys.readouterr().err
    (listed,) = tmp_path.glob("*.rejected.jsonl")
    (line,) = listed.read_text(encoding="utf-8").splitlines()
    assert json.loads(line).keys() == {"path", "where", "reason"}
    assert json.loads(line)["where"] == "item 2"
    assert main(["predict", "--smiles", "C", "--model", str(use_runs["stage2"]), "--out", "w.csv"]) == 2
    assert "predicts no property" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("x.csv", "y.extxyz", "z.csv", "z.csv.rejected.jsonl")
    ]


def test_a_table_of_arrow(use_runs) -> None:
    found = ms.predict(pa.table({"SMILES": SOME}), use_runs["gap"], smiles="SMILES")
    np.testing.assert_allclose(found.values, ms.predict(SOME, use_runs["gap"]).values, rtol=1e-6)
