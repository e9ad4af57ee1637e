"""A new modality is a declaration: a made-up one goes all the way without a change of code."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Row, Store, write_store
from molspectra.errors import InputError
from molspectra.evaluation.evaluate import evaluate
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.objectives.reconstruction import ReconstructionConfig
from molspectra.spectra import modality as declared
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.measured import Preparation, prepare_measured
from molspectra.spectra.modality import IR, MODALITIES, Modality, declare
from molspectra.spectra.plots import plot_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum
from molspectra.training.config import DataConfig, LoopConfig, PretrainConfig, SpectraConfig
from molspectra.training.run import pretrain

SMILES = [
    "C",
    "CC",
    "CCC",
    "CCCC",
    "CC(C)C",
    "C=C",
    "CO",
    "CCO",
    "COC",
    "CCCO",
    "CC(C)O",
    "CCOC",
    "O",
    "N",
    "CN",
]
SMILES += [
    "CCN",
    "CNC",
    "C#N",
    "CC#N",
    "NC=O",
    "CF",
    "FCF",
    "C1CC1",
    "C1CO1",
    "c1ccoc1",
    "C#C",
    "CC#C",
    "CC=O",
]


@pytest.fixture
def nmr(monkeypatch):
    """Proton NMR, as somebody might declare it."""
    kind = Modality(
        "nmr_h", "ppm", "H/ppm", 0.0, 12.0, 0.01, 40, 20, 0.05, "H", "Proton NMR", "Shift", "Signal"
    )
    monkeypatch.setitem(MODALITIES, kind.name, kind)
    return kind


def nmr_lines(number):
    rng = np.random.default_rng(number)
    return LineSpectrum(
        "nmr_h", np.sort(rng.uniform(0.5, 11, 4)), rng.integers(1, 4, 4).astype(float), "made up"
    )


def rows():
    for number, smiles in enumerate(SMILES):
        ir = LineSpectrum("ir", np.array([900.0 + number, 2900.0]), np.array([30.0, 50.0]), "made up")
        spectra = {"ir": ir} if smiles == "O" else {"nmr_h": nmr_lines(number), "ir": ir}
        yield Row(from_smiles(smiles, name=smiles), spectra, {})


@pytest.fixture
def store(nmr, tmp_path):
    metadata = Metadata(source="made up", licence="CC0", lines={"ir": "made up", "nmr_h": "made up"})
    write_store(tmp_path / "nmr.arrow", rows(), metadata)
    return Store(tmp_path / "nmr.arrow")


def test_a_store_holds_its_lines_and_samples(store, nmr, tmp_path):
    assert store.metadata.modalities == ("ir", "nmr_h")
    assert store.has("nmr_h").sum() == len(SMILES) - 1
    spectrum = store.spectrum(3, "nmr_h")
    assert isinstance(spectrum, LineSpectrum)
    np.testing.assert_allclose(spectrum.position, nmr_lines(3).position, rtol=1e-6)
    batch = store.batch([2, 3], modalities=["nmr_h"])
    assert batch.spectra["nmr_h"].shape == (2, 1201)
    # a Lorentzian's height is 2/(π·width); bands may lie on each other
    assert float(batch.spectra["nmr_h"].max()) > 0.9 * 2 / (np.pi * nmr.fwhm)
    samples = [SampledSpectrum("nmr_h", values.double().numpy()) for values in batch.spectra["nmr_h"]]
    rows = [Row(store.molecule(row), {"nmr_h": samples[row - 2]}) for row in (2, 3)]
    metadata = Metadata("made up", "none", samples={"nmr_h": "none"}, sample_dtype="float16")
    write_store(tmp_path / "samples.arrow", rows, metadata)
    copy = Store(tmp_path / "samples.arrow")
    assert isinstance(copy.spectrum(1, "nmr_h"), SampledSpectrum)
    again = copy.batch([0, 1], modalities=["nmr_h"]).spectra["nmr_h"]
    torch.testing.assert_close(again, batch.spectra["nmr_h"], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("mask", ["random", "block"])
def test_stage_2_trains_and_searches_with_it(store, tmp_path, mask):
    config = PretrainConfig(
        model=ModelConfig(
            EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8),
            SpecFormerConfig(modalities=("ir", "nmr_h"), width=8, heads=2, layers=1, feed_forward=8),
        ),
        data=DataConfig(store=str(store.path), fractions=(0.5, 0.2, 0.3)),
        loop=LoopConfig(steps=2, batch_size=8, validate_every=2, save_every=0),
        reconstruction=ReconstructionConfig(mask=mask),
        spectra=SpectraConfig(dropout=0.3, shift=0.5, noise=0.01, width=(0.5, 2.0)),
    )
    result = pretrain(config, tmp_path / "run", show=False)
    assert {"reconstruction_ir", "reconstruction_nmr_h", "alignment"} <= set(result.metrics)
    found = evaluate(tmp_path / "run", disturbances=True)
    assert list(found["retrieval"]["subsets"]) == ["ir", "nmr_h", "ir + nmr_h"]
    assert found["disturbances"]["table"][0]["similarity"]["recall"]["1"] == 1.0


def test_a_measured_one_is_prepared_and_drawn(nmr):
    axis = np.linspace(-1.0, 14.0, 3000)
    values = np.exp(-(((axis - 7.2) / 0.02) ** 2)) + 0.1
    measured = MeasuredSpectrum(axis, values, "ppm", "intensity", "nmr_h")
    found = prepare_measured(measured, Preparation(baseline="als", normalisation="maximum")).spectrum
    assert found.axis[found.values.argmax()] == pytest.approx(7.2, abs=0.011)
    assert found.values.max() == pytest.approx(1.0)
    figure, axes = plt.subplots()
    plot_spectrum(axes, found)
    assert axes.get_xlabel() == "Shift / ppm"
    assert axes.get_ylabel() == "Signal / (H/ppm)"
    plt.close(figure)


def test_declaring(monkeypatch):
    monkeypatch.setattr(declared, "MODALITIES", dict(MODALITIES))
    kind = replace(IR, name="far_ir", start=10.0, stop=500.0)
    assert declare(kind) is kind
    assert declared.modality("far_ir") is kind
    declare(replace(kind))  # once more
    with pytest.raises(InputError, match="another modality"):
        declare(replace(kind, step=0.5))
    with pytest.raises(InputError, match="another modality"):
        declare(replace(IR, fwhm=1.0))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"name": "Far IR"}, "cannot be called"),
        ({"step": 0.0}, "whole steps"),
        ({"stop": 400.0}, "whole steps"),
        ({"stop": 4000.5}, "whole steps"),
        ({"patch": 4000}, "patches"),
        ({"stride": 0}, "stride"),
        ({"fwhm": float("nan")}, "width"),
    ],
)
def test_what_is_no_modality_is_refused(wrong, word):
    with pytest.raises(InputError, match=word):
        replace(IR, **wrong)
