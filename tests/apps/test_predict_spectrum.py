"""Spectra by the spectrum head of a model, from Python and from the command line."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from docs_pages import follow

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.errors import ElementError, ExistsError, FormatError, InputError, MismatchError, NotFoundError
from molspectra.evaluation import predicted_retrieval
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.search.library import Library
from molspectra.spectra.modality import modality
from molspectra.spectra.plots import DRAWN
from molspectra.training.config import DataConfig, LoopConfig, PretrainConfig
from molspectra.training.run import pretrain

SOME = ["CCO", "C1CC1", "CC(C)=O"]
HEAD = ("uv_vis", "ir", "raman")


@pytest.fixture(scope="module")
def run(use_store, tmp_path_factory) -> str:
    """A run of stage 2 with a spectrum head."""
    encoder = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
    specformer = SpecFormerConfig(
        width=8, heads=2, layers=1, feed_forward=8, patch=(100, 250, 250), stride=(50, 125, 125)
    )
    config = PretrainConfig(
        model=ModelConfig(encoder, specformer, spectrum_head=True),
        data=DataConfig(store=str(use_store), fractions=(0.6, 0.2, 0.2)),
        loop=LoopConfig(steps=2, batch_size=4, validate_every=0, save_every=0),
    )
    config = replace(config, weights=replace(config.weights, spectrum=1.0))
    return str(pretrain(config, tmp_path_factory.mktemp("head") / "run", show=False).directory)


def test_the_same_as_in_evaluation(run, use_store) -> None:
    store, model = ms.Store(use_store), ms.load(run)
    wanted = predicted_retrieval.predicted_spectra(model.model, store, np.arange(len(store)))
    found = ms.predict_spectra(store, model)
    assert found.modalities == HEAD
    assert found.columns["identity"] == store.identities
    for name, values in found.intensities.items():
        kind = modality(name)
        assert values.shape == (len(store), kind.points)
        assert values.dtype == np.float32
        assert values.min() >= 0
        close = predicted_retrieval.comparable(torch.from_numpy(values), kind)
        np.testing.assert_allclose(close.numpy(), wanted[name].numpy(), atol=1e-5)


def test_any_batch_and_again_the_same(run) -> None:
    wanted = ms.predict_spectra(SOME, run)
    again, single = ms.predict_spectra(SOME, run), ms.load(run).predict_spectra(SOME, batch_size=1)
    for name in HEAD:
        np.testing.assert_array_equal(again.intensities[name], wanted.intensities[name])
        np.testing.assert_allclose(single.intensities[name], wanted.intensities[name], rtol=1e-4, atol=1e-7)


def test_spectra_of_each_molecule() -> None:
    found = ms.predict_spectra(["CCO", "CC(C)=O"], modalities=["raman", "ir"])
    assert repr(found) == "PredictedSpectra(ir, raman of 2, predicted by base)"
    ethanol, acetone = found
    assert list(acetone) == ["ir", "raman"]
    assert isinstance(acetone["ir"], ms.SampledSpectrum)
    assert acetone["ir"].source == found.level == "predicted by base"
    np.testing.assert_array_equal(found[1]["ir"].values, acetone["ir"].values)
    assert abs(found.bands(1, "ir")[0].position - 1775) < 40  # C=O of GFN2-xTB
    first, second = found.bands(0, "raman", 2)
    assert first.height > second.height
    assert abs(first.position - second.position) >= 2 * modality("raman").fwhm
    assert ethanol["raman"].values.max() == pytest.approx(first.height)


def test_refused(run) -> None:
    with pytest.raises(MismatchError, match=r"small: .*no spectrum head; give base.*weights\.spectrum"):
        ms.predict_spectra(SOME, "small")
    with pytest.raises(NotFoundError, match="dos_occupied"):
        ms.predict_spectra(SOME, run, modalities=["dos"])
    with pytest.raises(NotFoundError, match="raman"):
        ms.predict_spectra(SOME, run, modalities=["rama"])
    with pytest.raises(NotFoundError, match="no modality"):
        ms.predict_spectra(SOME, run, modalities=[])
    with pytest.raises(ElementError, match="item 1: atom 2 is Br"):
        ms.predict_spectra(["CBr"])
    with pytest.raises(InputError, match="nothing could be predicted"):
        ms.predict_spectra(["CBr"], on_error="skip")


def test_spectra_that_are_no_numbers_are_refused(run) -> None:
    model = ms.load(run)
    with torch.no_grad():
        model.model.spectrum_head.heights["raman"].bias.fill_(np.nan)
    with pytest.raises(InputError, match=r"item 1: its predicted raman spectrum: .*not a finite"):
        model.predict_spectra(SOME)
    assert len(model.predict_spectra(SOME, modalities=["ir"])) == 3


def test_charged_molecules_as_in_embed(run) -> None:
    molecules = [ms.from_smiles("C[NH3+]")]
    assert len(ms.embed(molecules, run)) == len(ms.predict_spectra(molecules, run)) == 1


def test_a_store(run, tmp_path: Path) -> None:
    found = ms.predict_spectra([*SOME, "C("], run, on_error="skip")
    found.save(tmp_path / "spectra.arrow")
    store = ms.Store(tmp_path / "spectra.arrow")
    assert store.metadata.samples == dict.fromkeys(HEAD, f"predicted by {run}")
    assert store.smiles == SOME
    for row, spectra in enumerate(found):
        for name in HEAD:
            np.testing.assert_array_equal(store.spectrum(row, name).values, spectra[name].values)
    assert (tmp_path / "spectra.arrow.rejected.jsonl").read_text().count("\n") == 1
    with pytest.raises(ExistsError):
        found.save(tmp_path / "spectra.arrow")
    with pytest.raises(FormatError, match="known"):
        found.save(tmp_path / "spectra.txt")
    index = tmp_path / "index"
    assert main(["index", str(tmp_path / "spectra.arrow"), "--out", str(index), "--model", "small"]) == 0
    hits = Library(index).search({"ir": found[2]["ir"]}, by="cosine", top=1)
    assert hits.table["smiles"].to_pylist() == SOME[2:]


def test_tables(run, tmp_path: Path) -> None:
    found = ms.predict_spectra(SOME, run)
    found.save(tmp_path / "x.parquet")
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [(row["smiles"], row["modality"]) for row in rows] == [
        (one, name) for one in SOME for name in HEAD
    ]
    assert rows[1]["intensity_unit"] == "km/mol·cm"
    np.testing.assert_array_equal(np.float32(rows[4]["intensity"]), found.intensities["ir"][1])
    np.testing.assert_array_equal(rows[4]["axis"], modality("ir").axis())
    found.save(tmp_path / "x.csv")
    lines = list(csv.DictReader((tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["modality"] for line in lines] == list(HEAD) * 3
    assert np.float32(lines[4]["1500 cm⁻¹"]) == found.intensities["ir"][1, 1000]
    assert np.float32(lines[5]["1500 cm⁻¹"]) == found.intensities["raman"][1, 1000]
    assert np.float32(lines[3]["1.02 eV"]) == found.intensities["uv_vis"][1, 1]
    assert lines[3]["1500 cm⁻¹"] == lines[4]["1.02 eV"] == ""
    assert sum(label.endswith("cm⁻¹") for label in lines[0]) == 3501


def test_figures(run, tmp_path: Path) -> None:
    found = ms.predict_spectra(["C" * count for count in range(1, DRAWN + 2)], run)
    drawn = found.figure()
    assert len(drawn.axes) == 3 * DRAWN
    np.testing.assert_allclose(drawn.axes[4].lines[0].get_ydata(), found.intensities["ir"][1])
    found = ms.predict_spectra(SOME[:1], run, modalities=["ir"])
    assert found._repr_png_().startswith(b"\x89PNG")
    found.plot(tmp_path / "x.svg")
    before = (tmp_path / "x.svg").read_bytes()
    found.plot(tmp_path / "x.svg", overwrite=True)
    assert (tmp_path / "x.svg").read_bytes() == before
    with pytest.raises(ExistsError):
        found.plot(tmp_path / "x.svg")


def test_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict-spectrum", "--smiles", *SOME, "--out", "x.arrow", "--quiet"]) == 0
    wanted = "uv_vis, ir, raman of 3 molecules, predicted by base, in x.arrow; 0 left out\n"
    assert capsys.readouterr().out == wanted
    before, store = Path("x.arrow").read_bytes(), ms.Store("x.arrow")
    for row, spectra in enumerate(ms.predict_spectra(SOME)):
        for name, spectrum in spectra.items():
            np.testing.assert_array_equal(store.spectrum(row, name).values, spectrum.values)
    arguments = ["predict-spectrum", "--smiles", *SOME, "--out", "x.arrow", "--quiet"]
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert Path("x.arrow").read_bytes() == before
    capsys.readouterr()
    words = ["predict-spectrum", "--molecules", "x.arrow", "--modalities", "ir", "--plot", "x.png", "--quiet"]
    assert main(words) == 0
    head, *lines, foot, plotted = capsys.readouterr().out.splitlines()
    assert "strongest bands" in head
    assert [line.split()[:2] for line in lines] == [[one, "ir"] for one in SOME]
    assert foot == "ir: cm⁻¹ (km/mol·cm); predicted by base"
    assert "3 molecules in x.png" in plotted
    assert Path("x.png").read_bytes()[:4] == b"\x89PNG"


def test_errors_of_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["predict-spectrum", "--quiet", "--smiles", "C", "CBr"]
    assert main([*command, "--on-error", "skip", "--out", "y.csv"]) == 1
    assert "left out: molecules, item 2: atom 2 is Br" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["y.csv", "y.csv.rejected.jsonl"]
    for words, reason in (
        (["--out", "z.csv"], "Br"),
        (["--out", "z.xyz"], ".arrow, .parquet, .csv"),
        (["--plot", "z.gif"], ".png, .svg, .pdf"),
        (["--out", "z.csv", "--model", "small"], "no spectrum head"),
        (["--out", "z.csv", "--model", "nowhere"], "no such model"),
        (["--out", "z.csv", "--modalities", "dos"], "predicts no dos_occupied"),
    ):
        assert main([*command, *words]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
        assert not list(tmp_path.glob("z*"))


def test_an_interruption_leaves_no_file(monkeypatch, tmp_path: Path) -> None:
    from molspectra.apps import predict_spectra

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_spectra, "check_values", stop)
    words = ["predict-spectrum", "--smiles", *SOME, "--out", str(tmp_path / "x.arrow"), "--quiet"]
    assert main(words) == 130
    assert not list(tmp_path.iterdir())


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)

    def shorter(command: str) -> str:
        return f"{command} --loop.steps 4 --quiet" if command.startswith("molspectra finetune") else command

    done = [name for name, _ in follow("predict_spectrum", capsys, shorter)]
    derivatives = ["python", "finetune", "predict-spectrum", "python"]
    assert done == ["predict-spectrum", "predict-spectrum", "python", *derivatives]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("some.smi", "spectra.arrow", "spectra.png", "spectra.csv"),
        *("dipoles.arrow", "runs", "lines.arrow"),
    }
