"""Molecules and spectra to vectors, from Python and from the command line."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ase import Atoms

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.apps.loading import LoadedModel
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import ErrorPolicy, from_ase
from molspectra.data.store.export import export_parquet
from molspectra.data.store.store import Metadata, Row, write_store
from molspectra.errors import (
    ElementError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    MissingExtraError,
    NotFoundError,
    UnitError,
    ValueRangeError,
    WriteError,
)
from molspectra.evaluation import retrieval

SOME = ["CCO", "C1CC1", "CC(C)=O", "O", "CC#N"]


def close(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(one).max())


@pytest.fixture(scope="module")
def model(use_runs: dict[str, Path]) -> LoadedModel:
    return ms.load(use_runs["stage2"])


def test_structures_whatever_the_batch(model, use_runs) -> None:
    found = ms.embed(SOME, model)
    assert (found.vectors.dtype, found.vectors.shape) == (np.float32, (5, 16))
    assert found.about["length"] == "unit"
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    for size in (1, 2, 64):
        close(ms.embed(SOME, model, batch_size=size).vectors, found.vectors)
    close(ms.embed(SOME[::-1], model).vectors[::-1], found.vectors)
    raw = ms.embed(SOME, model, length="raw").vectors
    close(raw / np.linalg.norm(raw, axis=1, keepdims=True), found.vectors)
    assert np.linalg.norm(raw, axis=1).min() > 1.01
    assert ms.embed(SOME, use_runs["inner"]).about["length"] == "raw"
    assert ms.embed(SOME, use_runs["stage1"]).about["length"] == "raw"


def test_the_same_as_in_evaluation(model, use_store) -> None:
    store = ms.Store(use_store)
    rows = np.arange(len(store))
    wanted = retrieval.Gallery.of(model.model, store, rows).embeddings.numpy()
    close(ms.embed(store, model, length="raw").vectors, wanted)
    found = ms.embed_spectra(store, model, length="raw", on_error="skip")
    assert [str(each) for each in found.rejected] == [
        f"{use_store}, row 0: it has no spectrum (uv_vis, ir, raman)"
    ]
    close(found.vectors, retrieval.embed_spectra(model.model, store, rows[1:]).numpy())
    row = found.columns["source"].index("row 13")
    assert found.columns["modalities"][row] == "uv_vis+ir"  # water


def test_pooled_features_do_not_grow_with_the_molecule(model) -> None:
    """They are four times as long and of any length; two molecules far apart have those of one."""
    one = ms.from_smiles("CO")
    far = np.concatenate([one.positions, one.positions + 40.0])
    two = Molecule(np.concatenate([one.numbers, one.numbers]), far)
    found = ms.embed([one, two], model, pooled=True)
    assert found.vectors.shape == (2, 4 * model.width)
    assert (found.about["kind"], found.about["length"]) == ("pooled structure", "raw")
    assert np.allclose(found.vectors[0], found.vectors[1], atol=1e-4)
    assert (found.vectors[0, 2 * model.width :] > 0).all()  # deviations


def test_molecules_in_every_form(model, use_store, tmp_path: Path) -> None:
    expected = ms.embed(SOME, model)
    molecules = [ms.from_smiles(each) for each in SOME]
    (tmp_path / "x.smi").write_text("\n".join(SOME))
    lines = "".join(f"m{n},{each}\n" for n, each in enumerate(SOME))
    (tmp_path / "x.csv").write_text(f"name,smiles\n{lines}")
    for form in (molecules, tmp_path / "x.smi", str(tmp_path / "x.csv"), pa.table({"smiles": SOME})):
        found = ms.embed(form, model)
        close(found.vectors, expected.vectors)
        assert found.columns["identity"] == expected.columns["identity"]
        assert found.columns["formula"] == ["C2H6O", "C3H6", "C3H6O", "H2O", "C2H3N"]
    close(ms.embed(molecules[0], model).vectors, expected.vectors[:1])
    assert ms.embed(tmp_path / "x.csv", model).columns["name"][1] == "m1"
    renamed = pa.table({"structure": SOME, "id": [1, 2, 3, 4, 5]})
    assert ms.embed(renamed, model, smiles="structure").columns["name"] == list("12345")
    export_parquet(ms.Store(use_store), tmp_path / "x.parquet")
    close(ms.embed(tmp_path / "x.parquet", model).vectors, ms.embed(use_store, model).vectors)


def test_frames(model) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"smiles": [*SOME, None], "name": [*"abcde", None]}, index=list("uvwxyz"))
    found = ms.embed(frame, model, on_error="skip")
    assert [str(each) for each in found.rejected] == ["table, row 5: the SMILES is missing"]
    back = found.frame()
    assert list(back["name"]) == list("abcde")
    np.testing.assert_array_equal(np.stack(back["embedding"]), found.vectors)


def test_a_frame_without_pandas_is_one_line(model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise ImportError("No module named 'pandas'")

    class Table:
        to_pandas = fail

    monkeypatch.setattr("molspectra.apps.embed.table_of", lambda *_: Table())
    with pytest.raises(MissingExtraError, match="pandas"):
        ms.embed(["C"], model).frame()


def test_structures_in_bohr_are_rejected_in_every_format(model, tmp_path: Path) -> None:
    water = np.array([[0, 0, 0], [1.81, 0, 0], [-0.45, 1.76, 0]])
    atoms = "".join(f"{s} {x} {y} {z}\n" for s, (x, y, z) in zip("OHH", water.tolist(), strict=True))
    (tmp_path / "a.xyz").write_text(f"3\nbohr\n{atoms}1\natom\nO 0 0 0\n")
    table = pa.table({"numbers": [[8, 1, 1], [8]], "positions": [water.ravel().tolist(), [0.0, 0.0, 0.0]]})
    pq.write_table(table, tmp_path / "a.parquet")
    for name in ("a.xyz", "a.parquet"):
        found = ms.embed(tmp_path / name, model, on_error="skip")
        assert len(found.vectors) == 1
        assert "bohr" in found.rejected[0].reason


def test_structures_in_memory_are_checked_like_those_of_files(model, use_runs) -> None:
    water = np.array([[0, 0, 0], [1.81, 0, 0], [-0.45, 1.76, 0]])
    numbers = np.array([8, 1, 1])
    given = [ms.Molecule(numbers, water * 0.529), ms.Molecule(numbers, water), from_ase(Atoms("OH2", water))]
    found = ms.embed(given, model, on_error="skip")
    assert [each.where for each in found.rejected] == ["item 2", "item 3"]
    assert all("bohr" in each.reason for each in found.rejected)
    with pytest.raises(UnitError, match=r"molecules, item 2: .*bohr"):
        ms.predict(given, use_runs["gap"])
    for positions, said in ((water * 1e4, "beyond"), (water * 0.1, "closer than")):
        with pytest.raises(ValueRangeError, match=said):
            from_ase(Atoms("OH2", positions))


def test_bad_molecules_are_named_and_counted(model) -> None:
    given = ["C", "C(", None, 3, "CBr", ms.Molecule(np.array([8]), np.zeros((1, 3))), ""]
    found = ms.embed(given, model, on_error="skip")
    assert found.columns["source"] == ["item 1", "item 6"]
    reasons = [str(each) for each in found.rejected]
    expected = [
        "item 2: unreadable SMILES 'C('",
        "item 3: the SMILES is missing",
        "item 4: expected a SMILES, a Molecule, an RDKit molecule or ASE atoms, not an object of type int",
        "item 5: atom 2 is Br, which the model was not trained on, only H, C, N, O",
        "item 7: empty SMILES",
    ]
    assert reasons == [f"molecules, {each}" for each in expected]
    with pytest.raises(InputError, match=r"item 2: .*'C\('"):
        ms.embed(given, model)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], NotFoundError, "no molecules"),
        ("nothing.smi", InputError, r"nothing\.smi.*no such file"),
        ("CCO", NotFoundError, "CCO"),
        (5, FormatError, "type int"),
        (pa.table({"smile": ["C"]}), NotFoundError, "did you mean 'smile'"),
        (["CBr"], ElementError, "atom 2 is Br"),
    ],
)
def test_refused(given, error, message, model) -> None:
    with pytest.raises(error, match=message):
        ms.embed(given, model)


def test_more_that_is_refused(model, use_runs, tmp_path: Path) -> None:
    (tmp_path / "empty.smi").write_text("")
    (tmp_path / "comment.smi").write_text("# nothing\n")
    (tmp_path / "x.pdf").write_text("x")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "nan.xyz").write_text("1\n\nH nan 0 0\n")
    for name, message in (
        ("empty.smi", "is empty"),
        ("comment.smi", "there are no molecules"),
        ("x.pdf", "unknown format 'pdf'"),
        ("bad.parquet", "not a readable Parquet file"),
        ("nan.xyz", "not a finite number"),
    ):
        with pytest.raises(InputError, match=message):
            ms.embed(tmp_path / name, model)
    for options, message in (
        ({"batch_size": 0}, "batch_size"),
        ({"length": "long"}, "auto, unit or raw"),
        ({"on_error": "ignore"}, "'raise' or 'skip'"),
        ({"device": "quantum"}, "device 'quantum' cannot be used"),
    ):
        with pytest.raises(InputError, match=message):
            ms.embed(["C"], model, **options)
    with pytest.raises(InputError, match="nothing could be embedded: molecules, item 1"):
        ms.embed(["C("], model, on_error="skip")
    with pytest.raises(MismatchError, match="no spectrum encoder"):
        ms.embed_spectra(ms.SampledSpectrum("ir", np.zeros(3501)), use_runs["stage1"])


def test_a_vector_that_is_not_finite_is_bad(model) -> None:
    from molspectra.apps.embed import finite_vectors

    policy = ErrorPolicy("skip")
    embeddings = torch.tensor([[3.0, 4.0], [torch.nan, 0.0], [0.0, 2.0]])
    vectors, indices = finite_vectors(embeddings, "unit", policy, [("x", "a"), ("x", "b"), ("x", "c")])
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 1]])
    assert indices == [0, 2]
    assert [str(each) for each in policy.rejected] == ["x, b: its embedding is not finite"]


def sampled(use_store: Path, row: int, name: str) -> ms.SampledSpectrum:
    return ms.Store(use_store).spectrum(row, name).broadened()


def text_file(path: Path, spectrum: ms.SampledSpectrum, unit: str = "cm-1") -> Path:
    rows = zip(spectrum.axis, spectrum.values, strict=True)
    path.write_text("\n".join(f"{x:.6f} {y:.9e}" for x, y in rows))
    return path


def test_spectra_in_every_form(model, use_store, tmp_path: Path) -> None:
    store = ms.Store(use_store)
    everything = ms.embed_spectra(store, model, on_error="skip")
    row = everything.columns["source"].index("row 8")
    lines = {name: store.spectrum(8, name) for name in ("uv_vis", "ir", "raman")}
    close(ms.embed_spectra(lines, model).vectors[0], everything.vectors[row])
    mixed = [lines["uv_vis"], lines["ir"].broadened(), lines["raman"]]
    found = ms.embed_spectra(mixed, model, together=True)
    close(found.vectors[0], everything.vectors[row])
    assert found.columns["modalities"] == ["uv_vis+ir+raman"]
    alone = ms.embed_spectra(store, model, modalities=["ir"], on_error="skip").vectors
    path = text_file(tmp_path / "a.txt", lines["ir"].broadened())
    options = {"modalities": ["ir"], "unit": "cm⁻¹", "quantity": "density"}
    close(ms.embed_spectra(path, model, **options).vectors[0], alone[row])
    del options["modalities"]  # the mapping tells
    close(ms.embed_spectra([{"ir": path}, lines["ir"]], model, **options).vectors, alone[[row, row]])
    samples = [lines, lines["ir"], {"ir": lines["ir"], "raman": lines["raman"]}]
    for size in (1, 3):  # alone in a batch, or beside others that have more spectra
        found = ms.embed_spectra(samples, model, batch_size=size)
        close(found.vectors[1], alone[row])
        close(found.vectors[0], everything.vectors[row])
    assert found.columns["modalities"] == ["uv_vis+ir+raman", "ir", "ir+raman"]


def test_bad_spectra(model, use_store, tmp_path: Path) -> None:
    ir = sampled(use_store, 8, "ir")
    flat, absurd = (ms.SampledSpectrum("ir", np.full(3501, each)) for each in (0.0, 1e30))
    found = ms.embed_spectra([flat, ir, absurd], model, on_error="skip")
    assert [(each.where, "ir: " in each.reason) for each in found.rejected] == [
        ("item 1", True),
        ("item 3", True),
    ]
    rows = [Row(ms.Store(use_store).molecule(row), {"ir": each}) for row, each in enumerate((flat, ir))]
    write_store(tmp_path / "a.arrow", rows, Metadata("", "", samples={"ir": ""}))
    found = ms.embed_spectra(tmp_path / "a.arrow", model, on_error="skip")
    assert [str(each).rpartition("a.arrow, ")[2][:9] for each in found.rejected] == ["row 0: ir"]
    (tmp_path / "empty.jdx").write_text("")
    given = [ir, tmp_path / "gone.jdx", tmp_path / "empty.jdx", {"raman": ir}, [ir, ir], [], 4]
    found = ms.embed_spectra(given, model, on_error="skip")
    assert len(found) == 1
    reasons = [each.reason for each in found.rejected]
    assert len(reasons) == 6
    for reason, part in zip(
        reasons,
        ("no such file", "empty.jdx", "one of ir", "has 2 of ir", "has no spectra", "of type int"),
        strict=True,
    ):
        assert part in reason
    for spectra, options, message in (
        ([], {}, "there are no spectra"),
        (7, {}, "expected files"),
        (ir, {"modalities": ["raman"]}, "asked to read raman"),
        (ir, {"modalities": ["nmr"]}, "not 'nmr'"),
        (ir, {"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(InputError, match=message):
            ms.embed_spectra(spectra, model, **options)


def test_files_that_are_written(model, tmp_path: Path) -> None:
    found = ms.embed(SOME, model)
    for name in ("x.parquet", "x.csv", "x.npy"):
        found.save(tmp_path / name)
        with pytest.raises(ExistsError, match=re.escape(name)):
            found.save(tmp_path / name)
        found.save(tmp_path / name, overwrite=True)
    table = pq.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), found.vectors)
    assert json.loads(table.schema.metadata[b"molspectra"])["length"] == "unit"
    assert table["smiles"].to_pylist() == SOME
    assert table["name"].to_pylist() == [None] * 5
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()))
    values = np.array([[row[f"e{n}"] for n in range(16)] for row in rows], np.float32)
    np.testing.assert_array_equal(values, found.vectors)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), found.vectors)
    beside = list(csv.DictReader((tmp_path / "x.columns.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["smiles"] for row in beside] == SOME
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(FormatError, match=r"x\.xlsx"):
        found.save(tmp_path / "x.xlsx")
    with pytest.raises(WriteError, match=re.escape(str(tmp_path / "no"))):
        found.save(tmp_path / "no" / "x.csv")


def test_the_command(use_runs, use_store, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.smi").write_text("CCO ethanol\nC(\nCBr\n")
    run = ["--model", str(use_runs["stage2"]), "--quiet"]
    assert main(["embed", "--molecules", "x.smi", "--out", "x.parquet", *run]) == 2
    assert "x.smi, line 2: unreadable SMILES" in capsys.readouterr().err
    assert not Path("x.parquet").exists()
    assert main(["embed", "--molecules", "x.smi", "--out", "x.parquet", "--on-error", "skip", *run]) == 1
    said = capsys.readouterr()
    assert "left out: x.smi, line 2" in said.err
    assert said.out == "1 structure embeddings of length 16 (unit) in x.parquet; 2 left out\n"
    assert pq.read_table("x.parquet")["name"].to_pylist() == ["ethanol"]
    text_file(Path("a.txt"), sampled(use_store, 8, "ir"))
    spectra = ["--spectra", "a.txt", "--modality", "ir", "--unit", "cm⁻¹", "--quantity", "absorbance"]
    assert main(["embed", *spectra, "--out", "a.npy", *run]) == 0
    assert np.load("a.npy").shape == (1, 16)
    assert main(["embed", "--spectra", str(use_store), "--out", "s.csv", "--on-error", "skip", *run]) == 1
    assert "21 spectrum embeddings" in capsys.readouterr().out
    assert main(["embed", "--smiles", "CCO", "--pooled", "--out", "p.npy", *run]) == 0
    assert (
        capsys.readouterr().out == "1 pooled structure embeddings of length 64 (raw) in p.npy; 0 left out\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--smiles", "C", "--out", "x.npy", "--modality", "ir"], "--modality is about spectra"),
        (["--smiles", "C", "--out", "x.doc"], "suffix"),
        (["--spectra", "a.txt", "--out", "x.npy", "--pooled"], "--pooled is about molecules"),
        (["--smiles", "C", "--out", "x.npy", "--model", "large"], "no such model"),
        (["--out", "x.npy"], "--molecules"),
        (["--smiles", "C", "--out", "x.npy", "--outt", "y"], "did you mean --out"),
    ],
)
def test_the_command_refuses(arguments, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(use_runs, tmp_path, monkeypatch, capsys) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyarrow.parquet.write_table", stop)
    arguments = ["embed", "--smiles", "C", "--out", str(tmp_path / "x.parquet"), "--model"]
    assert main([*arguments, str(use_runs["stage2"]), "--quiet"]) == 130
    assert not list(tmp_path.iterdir())
