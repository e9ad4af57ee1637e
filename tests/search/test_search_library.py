"""An index from making it to searching it; what is found against a search without any index."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import molspectra
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.batch import batch_of
from molspectra.data.store.export import export_parquet
from molspectra.data.store.store import Metadata, Row, write_store
from molspectra.errors import (
    DamagedError,
    ElementError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    ValueRangeError,
)
from molspectra.models.model import MolSpectra
from molspectra.search.build import add_approximate, append, build
from molspectra.search.library import Library, weights_of
from molspectra.search.manifest import Manifest
from molspectra.search.pipeline import Pipeline
from molspectra.search.segment import open_segments
from molspectra.spectra.spectrum import SampledSpectrum
from molspectra.training.checkpoint import load_model, save_checkpoint


def columns(hits, *names):
    return [hits.table[name].to_pylist() for name in names]


def spectra_of(store, row, *names):
    return {name: store.spectrum(row, name) for name in names}


def test_an_index_keeps_what_the_store_has(made, small):
    library = molspectra.Library(made)
    library.verify()
    assert len(library) == len(small) == 60
    assert library.manifest.modalities == ("uv_vis", "ir", "raman")
    assert library.table["identity"].to_pylist() == small.identities
    for row in (0, 59):
        mine, theirs = library.molecule(row), small.molecule(row)
        assert mine.smiles == theirs.smiles
        assert mine.name == theirs.name
        np.testing.assert_array_equal(mine.numbers, theirs.numbers)
        np.testing.assert_array_equal(mine.positions, theirs.positions)
        assert library.table["formula"][row].as_py() == theirs.formula


def test_exact_search_equals_brute_force(made, small, run):
    model, _ = load_model(run)
    with torch.no_grad():
        structures = model.embed(batch_of([small.molecule(row) for row in range(60)])).double()
        batch = small.batch([7], modalities=("ir", "raman"))
        query = model.spectrum_encoder(batch.spectra).representation.double()
    expected = torch.nn.functional.cosine_similarity(query, structures).numpy()
    hits = Library(made).search(spectra_of(small, 7, "raman", "ir"), by="embedding", top=60)
    scores, rows = columns(hits, "score", "row")
    np.testing.assert_allclose(scores, np.sort(expected)[::-1], atol=1e-5)
    np.testing.assert_allclose(np.array(scores), expected[rows], atol=1e-5)


def test_cosine_equals_that_of_averaged_spectra(made, small):
    spectra = (
        small.batch(range(60), modalities=("ir",)).spectra["ir"][:, :3500].view(60, 875, 4).mean(2).double()
    )
    spectra = torch.nn.functional.normalize(spectra, dim=1)
    expected = (spectra @ spectra[3]).numpy()
    hits = Library(made).search(spectra_of(small, 3, "ir"), by="cosine", top=60)
    scores, rows = columns(hits, "score", "row")
    np.testing.assert_allclose(scores, expected[rows], atol=2e-3)  # stored as float16
    assert rows[0] == 3
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    "by", ["shape", "cosine", "sid", "learned", ["cosine", "sid"], {"learned": 1, "cosine": 3}]
)
def test_a_molecule_is_found_by_its_own_spectra(made, small, by):
    library = Library(made)
    for row in (0, 20, 41):
        hits = library.search(spectra_of(small, row, "uv_vis", "ir", "raman"), by=by, top=3)
        first = next(iter(hits))
        assert first["row"] == row
        assert first["confidence"] > 0
        if not isinstance(by, str):
            assert set(by) <= set(hits.table.column_names)
            assert first["cosine"] == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("by", ["shape", "cosine"])
def test_a_scale_is_applied_once(made, small, by):
    lines = small.spectrum(5, "ir")
    scaled = replace(lines, position=0.96 * lines.position)
    (right,) = Library(made).search({"ir": scaled}, by=by, pipeline=Pipeline(scale=0.96), top=1)
    (wrong,) = Library(made).search({"ir": scaled}, by=by, pipeline=Pipeline(scale=0.92), top=1)
    assert right["row"] == 5
    assert right["score"] > 0.99
    assert wrong["score"] < 0.97


def test_weights_go_with_the_temperatures(made, small):
    library, spectra = Library(made), spectra_of(small, 5, "ir")
    alone = {way: library.search(spectra, by=way, top=60) for way in ("embedding", "sid")}
    both = library.search(spectra, by={"embedding": 1, "sid": 3}, top=60)
    heat = library.manifest.calibration.temperature
    score = {way: dict(zip(*columns(hits, "row", "score"), strict=True)) for way, hits in alone.items()}
    for hit in both:
        expected = 0.25 * score["embedding"][hit["row"]] / heat["embedding:ir"]
        expected += 0.75 * score["sid"][hit["row"]] / heat["sid:ir"]
        assert hit["score"] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert both.ways == {"embedding": 0.25, "sid": 0.75}


def test_mirror_images_and_conformers_are_one_answer(run, tmp_path, small):
    smiles = ["N[C@@H](C)C(=O)O", "N[C@H](C)C(=O)O", "NCCC(=O)O", "CCO"]
    molecules = [from_smiles(each, seed=seed) for each in smiles for seed in (0, 1)]
    library = Library.build(tmp_path / "index", molecules, run, calibration=None)
    hits = library.search(spectra_of(small, 0, "ir"), by="embedding", top=25)
    assert len(hits) == hits.library == 3
    assert len(set(*columns(hits, "identity"))) == 3
    assert len(library) == 8
    # the best of the four entries counts
    every = (
        library.segments[0].arrays["structure"]
        @ library.query(spectra_of(small, 0, "ir"), {"embedding": 1}, Pipeline()).vector[0]
    )
    alanine = next(hit for hit in hits if hit["identity"] == molecules[0].identity)
    assert alanine["score"] == pytest.approx(float(every[:4].max()), abs=1e-6)


def test_appending_equals_making_at_once(made, small, run, tmp_path):
    halves = []
    for number, rows in enumerate((range(37), range(37, 60))):
        path = tmp_path / f"half{number}.arrow"
        write_store(path, [small.row(row) for row in rows], small.metadata)
        halves.append(path)
    library = Library.build(tmp_path / "parts", halves[0], run, calibration=None)
    assert library.append(halves[1]).rows == 23
    assert [each.rows for each in library.manifest.segments] == [37, 23]
    library.verify()
    whole, spectra = Library(made), spectra_of(small, 50, "ir", "raman")
    for by in ("embedding", "learned", "cosine", "sid"):
        mine, theirs = (each.search(spectra, by=by, top=60) for each in (library, whole))
        assert columns(mine, "row") == columns(theirs, "row")
        np.testing.assert_allclose(*columns(mine, "score"), *columns(theirs, "score"), atol=1e-6)


def test_what_is_there_already_is_not_added_again(index, small, others):
    before, library = (index / "library.json").read_bytes(), Library(index)
    added = library.append(small)
    assert added.rows == 0
    assert added.remarks == ("60 molecules of small.arrow are in the index already and not added again",)
    assert (index / "library.json").read_bytes() == before
    assert sorted(path.name for path in index.glob("segment-*")) == ["segment-000000"]

    molecules = [small.molecule(row) for row in range(5)] + [others.molecule(0)]
    added = library.append(molecules)
    assert (added.rows, len(library)) == (1, 61)
    assert added.remarks[0].startswith("5 molecules of molecules are in the index already")
    assert library.append(others).rows == 60  # the one without spectra gets them

    stretched = molecules[1].with_positions(molecules[1].positions * 1.01)
    added = library.append([molecules[0], stretched])
    assert added.rows == 1
    assert "1 more with another structure or spectrum" in added.remarks[0]


WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def test_molecules_that_the_model_cannot_know_are_refused(run, made, small, tmp_path):
    water = Molecule(np.array([8, 1, 1]), WATER)
    bohr = water.with_positions(WATER / 0.529177)
    bromide = from_smiles("CBr")
    for bad, said in ((bohr, "bohr"), (bromide, "is Br, which the model was not trained on, only H")):
        with pytest.raises(InputError, match=rf"molecules, item 2: .*{said}"):
            build(tmp_path / "index", [water, bad], run, calibration=None)
        assert not (tmp_path / "index").exists()
    library = Library.build(tmp_path / "index", [water], run, calibration=None)
    added = library.append([bohr, from_smiles("CCO"), bromide], on_error="skip")
    assert added.rows == 1
    assert [each.where for each in added.rejected] == ["item 1", "item 3"]
    with pytest.raises(ElementError, match="Br was asked for, which the model was not trained on, only H"):
        Library(made).search(spectra_of(small, 0, "ir"), by="embedding", formula="CH3Br")
    Library(made).search(spectra_of(small, 0, "ir"), by="cosine", contains=["Br"])


def test_entries_with_elements_that_the_model_does_not_know_are_left_out(made, small, monkeypatch):
    library = Library(made)
    chlorine = [row for row in range(60) if 17 in small.molecule(row).numbers]
    known = replace(library.model, elements=library.model.elements - {17})
    library.__dict__["model"] = known
    hits = library.search(spectra_of(small, 0, "ir"), by="embedding", top=60)
    assert chlorine
    assert not set(chlorine) & set(*columns(hits, "row"))
    assert len(hits) == 60 - len(chlorine)
    assert any(remark.startswith(f"{len(chlorine)} entries have elements") for remark in hits.remarks)


def test_spectra_of_a_library_that_cannot_be_right(run, small, tmp_path):
    flat = SampledSpectrum("ir", np.zeros(3501))
    absurd = SampledSpectrum("ir", np.full(3501, 1e30))
    good = SampledSpectrum("ir", np.linspace(0, 1, 3501))
    path = tmp_path / "odd.arrow"
    rows = [Row(small.molecule(row), {"ir": each}) for row, each in enumerate((good, flat, absurd))]
    write_store(path, rows, Metadata("by hand", "CC0", samples={"ir": ""}, sample_dtype="float32"))
    with pytest.raises(
        ValueRangeError, match=r"odd\.arrow, row 1: its ir spectrum .* all intensities are zero"
    ):
        build(tmp_path / "index", path, run, calibration=None)
    added = build(tmp_path / "index", path, run, calibration=None, on_error="skip")
    assert added.rows == 3
    assert [(each.where, "cannot be used" in each.reason) for each in added.rejected] == [
        ("row 1", True),
        ("row 2", True),
    ]
    samples = open_segments(tmp_path / "index", Library(tmp_path / "index").manifest)[0].arrays["samples-ir"]
    assert samples.any(1).tolist() == [True, False, False]
    for bad in (flat, absurd):
        with pytest.raises(ValueRangeError, match=r"ir: .*(zero|1e\+30)"):
            Library(tmp_path / "index").search({"ir": bad})


def test_half_precision_vectors(small, run, tmp_path, made):
    library = Library.build(tmp_path / "half", small, run, vectors="float16", calibration=None)
    assert library.segments[0].arrays["structure"].dtype == np.float16
    spectra = spectra_of(small, 8, "ir")
    mine, theirs = (each.search(spectra, top=60) for each in (library, Library(made)))
    np.testing.assert_allclose(*columns(mine, "score"), *columns(theirs, "score"), atol=2e-3)
    assert set(*columns(mine, "confidence")) == {None}


def test_the_same_from_parquet(small, run, tmp_path, made):
    export_parquet(small, tmp_path / "small.parquet")
    library = Library.build(tmp_path / "index", tmp_path / "small.parquet", run, calibration=None)
    spectra = spectra_of(small, 8, "ir")
    for by in ("embedding", "cosine"):
        mine, theirs = (each.search(spectra, by=by, top=60) for each in (library, Library(made)))
        assert columns(mine, "row") == columns(theirs, "row")


def test_a_library_of_bare_structures_is_searched_by_embedding_alone(run, tmp_path, small):
    (tmp_path / "some.smi").write_text("CCO ethanol\nCCN\nc1ccccc1 benzene\n")
    library = Library.build(tmp_path / "index", tmp_path / "some.smi", run)
    assert library.manifest.modalities == ()
    hits = library.search(spectra_of(small, 0, "ir", "raman"))
    assert len(hits) == 3
    assert hits.table["confidence"].null_count == 0
    for by in ("cosine", "learned", ["embedding", "sid"]):
        with pytest.raises(NotFoundError, match=r"no ir spectra .*; it has: none"):
            library.search(spectra_of(small, 0, "ir"), by=by)
    added = library.append(small)
    assert added.remarks == (
        "ir, raman, uv_vis spectra of small.arrow are left out: the index keeps none of that kind",
    )
    assert len(library) == 63


def test_entries_without_the_spectrum_are_left_out_and_counted(made, index, small):
    (index.parent / "more.smi").write_text("CCO\nCCN\n")
    append(index, index.parent / "more.smi")
    hits = Library(index).search(spectra_of(small, 0, "ir"), by="cosine", top=100)
    assert len(hits) == hits.candidates
    assert max(*columns(hits, "row")) < 60
    assert "2 entries have none of the spectra and are left out" in hits.remarks
    assert len(Library(index).search(spectra_of(small, 0, "ir"), by="embedding", top=100)) == hits.library


@pytest.mark.parametrize("where", ["write_segment", "Manifest.write"])
def test_an_append_that_fails_changes_nothing(index, others, monkeypatch, where):
    before = (index / "library.json").read_bytes()
    with monkeypatch.context() as patch:

        def fail(*arguments, **options):
            raise KeyboardInterrupt

        if where == "Manifest.write":
            patch.setattr(Manifest, "write", fail)
        else:
            patch.setattr("molspectra.search.segment.arrays_of", fail)
        with pytest.raises(KeyboardInterrupt):
            append(index, others)
    assert (index / "library.json").read_bytes() == before
    assert len(Library(index)) == 60
    append(index, others)
    assert len(Library(index)) == 120
    assert sorted(path.name for path in index.iterdir()) == [
        "library.json",
        "model",
        "segment-000000",
        "segment-000001",
    ]


def test_a_killed_append_leaves_the_old_state(index, others):
    code = (
        "import os, sys\n"
        "from molspectra.search import build, manifest\n"
        "manifest.Manifest.write = lambda *_: os._exit(9)\n"
        "build.append(sys.argv[1], sys.argv[2])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(index), str(others.path)], check=False)
    assert done.returncode == 9
    assert (index / "segment-000001").is_dir()  # written, but not part of the index
    library = Library(index)
    assert len(library) == 60
    library.append(others)
    assert len(library) == 120
    library.verify()


def test_an_interrupted_build_leaves_nothing(small, run, tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("molspectra.search.segment.arrays_of", fail)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "index", small, run)
    assert list(tmp_path.iterdir()) == []


def checkpoint(path, model):
    save_checkpoint(path / "checkpoints", "step", 1, model, {}, None)
    return path


def test_another_model_is_refused(index, run, small, tmp_path):
    model, _ = load_model(run)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    other = checkpoint(tmp_path / "other", model)
    said = r"index: .* \(\w{12}\) .*other \(\w{12}\)"
    for refused in (lambda: Library(index, other), lambda: append(index, small, other)):
        with pytest.raises(MismatchError, match=said):
            refused()
    assert len(Library(index, run)) == 60
    bare = checkpoint(tmp_path / "stage1", MolSpectra(replace(model.config, spectrum_encoder=None)))
    with pytest.raises(MismatchError, match=r"stage1: .*stage 2"):
        build(tmp_path / "new", small, bare)


def test_a_changed_model_in_the_index_is_refused(index, small):
    weights = index / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MismatchError, match=r"\w{12}.*model \(\w{12}\)"):
        Library(index).search(spectra_of(small, 0, "ir"), by="embedding")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("structure.npy", lambda data: data[: len(data) // 2]),
        ("structure.npy", lambda data: b""),
        ("samples-ir.npy", lambda data: data.replace(b"<f2", b"|O ", 1)),
        ("learned-ir.npy", lambda data: data.replace(b"(60, 16)", b"(61, 16)", 1)),
        ("molecules.arrow", lambda data: data[:-100]),
        ("molecules.arrow", lambda data: b"not Arrow"),
    ],
)
def test_damaged_files_are_refused(index, file, damage):
    path = index / "segment-000000" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedError, match=rf"{file}: damaged \(.*\)$"):
        Library(index)


def test_a_changed_value_is_found_by_verify(index):
    path = index / "segment-000000" / "structure.npy"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=r"structure\.npy"):
        Library(index).verify()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": 9}, FormatError),
        ({"segments": []}, DamagedError),
        ({"vectors": "float8"}, DamagedError),
        ({"modalities": ["nmr"]}, DamagedError),
        ({"model": None}, DamagedError),
        ({"segments": [{"name": "../../etc", "rows": 1, "source": "", "files": {}}]}, DamagedError),
        ({"segments": [{"name": "segment-000000", "rows": 10**12, "source": "", "files": {}}]}, DamagedError),
        ({"calibration": {"queries": 1, "temperature": {"a": 0.0}, "accuracy": {}, "confidence": {},
                          "source": ""}}, DamagedError),
    ],
)  # fmt: skip
def test_a_strange_manifest_is_refused(index, change, error):
    path = index / "library.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=r"library\.json|segment-000000"):
        Library(index)


def test_what_is_no_index_is_refused(tmp_path, small, run):
    with pytest.raises(NotFoundError, match=r"library\.json"):
        Library(tmp_path)
    with pytest.raises(ExistsError, match="not an index"):
        build(tmp_path, small, run, overwrite=True)
    (tmp_path / "library.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Library(tmp_path)


def test_an_index_is_replaced_only_when_asked(index, run, tmp_path):
    (tmp_path / "one.smi").write_text("CCO\n")
    with pytest.raises(ExistsError, match=r"--append .* --overwrite"):
        build(index, tmp_path / "one.smi", run)
    build(index, tmp_path / "one.smi", run, overwrite=True, calibration=None)
    assert len(Library(index)) == 1


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"by": "cosin"}, SettingError, "did you mean 'cosine'"),
        ({"by": []}, SettingError, "at least one way"),
        ({"by": ["sid", "sid"]}, SettingError, "each only once"),
        ({"by": {"sid": -1.0}}, ValueRangeError, r"sid .*-1\.0"),
        ({"by": {"sid": float("nan")}}, ValueRangeError, "sid .*nan"),
        ({"top": 0}, ValueRangeError, "not 0"),
        ({"formula": "C7h8"}, FormatError, "'C7h8'"),
        ({"approximate": True, "formula": "CH4"}, SettingError, "without filters"),
        ({"approximate": True}, NotFoundError, "--approximate"),
    ],
)
def test_what_cannot_be_searched(made, small, options, error, said):
    with pytest.raises(error, match=said):
        Library(made).search(spectra_of(small, 0, "ir"), **options)


def test_a_search_needs_spectra_of_known_kinds(made, small):
    library = Library(made)
    with pytest.raises(SettingError, match="at least one spectrum"):
        library.search({})
    with pytest.raises(InputError, match="unknown modality 'nmr'"):
        library.search({"nmr": small.spectrum(0, "ir")})
    with pytest.raises(MismatchError, match=r"\bir\b.*\braman\b"):
        library.search({"raman": small.spectrum(0, "ir")})


def test_weights_have_sum_one():
    assert weights_of("sid") == {"sid": 1.0}
    assert weights_of(["embedding", "sid"]) == {"embedding": 0.5, "sid": 0.5}
    assert weights_of({"embedding": 2, "sid": 6}) == {"embedding": 0.25, "sid": 0.75}


def test_no_answer_is_an_empty_table(made, small):
    hits = Library(made).search(spectra_of(small, 0, "ir"), formula="C99H2")
    assert len(hits) == hits.candidates == 0
    assert hits.text().startswith("rank  score")


def test_approximate_search_gives_the_exact_scores(index, small, others):
    pytest.importorskip("faiss")
    assert add_approximate(index) == 60
    append(index, others)  # found although the approximate index does not hold them
    library, spectra = Library(index), spectra_of(small, 11, "ir")
    mine, theirs = (
        library.search(spectra, by="embedding", top=40, approximate=each) for each in (True, False)
    )
    assert columns(mine, "row", "score") == columns(theirs, "row", "score")
    assert mine.table["confidence"].null_count == 40
    assert add_approximate(index) == 120
    assert [path.name for path in index.glob("*.faiss")] == ["approximate-120.faiss"]
    (index / "approximate-120.faiss").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"approximate-120\.faiss"):
        Library(index).search(spectra, approximate=True)
