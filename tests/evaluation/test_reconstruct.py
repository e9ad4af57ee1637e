import numpy as np
import pytest
import torch

from molspectra.errors import MismatchError, ValueRangeError
from molspectra.evaluation.reconstruct import ReconstructedSpectrum, reconstruct, reconstruction_errors
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction, ReconstructionConfig
from molspectra.spectra.modality import IR


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return MolSpectra(tiny.pretrain_model).eval()


@pytest.fixture(scope="module")
def objective(model):
    return MaskedReconstruction(ReconstructionConfig(0.2), model.spectrum_encoder.kinds)


def test_errors_are_those_of_the_objective(tiny, model, objective):
    rows = np.arange(20, 30)  # water is among them, without a Raman spectrum
    result = reconstruction_errors(model, tiny.store, rows, objective, batch_size=3)
    batch = tiny.store.batch(rows, modalities=tuple(objective.kinds))
    masks = objective.masks(batch, NoiseKey(0, torch.zeros(10, dtype=torch.int64)))
    places = objective.masked_index(masks)
    with torch.no_grad():
        output = model.spectrum_encoder(batch.spectra, batch.present, masks)
        losses = objective(model.spectrum_encoder.reconstruct(output.tokens, index=places), batch, places)
    assert result.mean == {name: pytest.approx(float(loss.mean), rel=1e-4) for name, loss in losses.items()}
    assert result.per_row.shape == (10,)
    assert np.isfinite(result.per_row).all()


def test_the_mean_spectrum_is_a_perfect_guess_for_one_molecule(tiny, model, objective):
    result = reconstruction_errors(model, tiny.store, np.array([3]), objective)
    assert result.flat == {name: pytest.approx(0.0, abs=1e-12) for name in objective.kinds}
    assert min(result.mean.values()) > 0
    assert result.per_row[0] == pytest.approx(np.mean(list(result.mean.values())))


def test_one_molecule_is_masked_as_in_the_errors(tiny, model, objective):
    row = 3
    spectra = reconstruct(model, tiny.store, row, objective)
    assert list(spectra) == ["uv_vis", "ir", "raman"]
    errors = reconstruction_errors(model, tiny.store, np.array([1, row, 5]), objective)
    assert errors.per_row[1] == pytest.approx(
        np.mean([spectrum.error for spectrum in spectra.values()]), rel=1e-4
    )
    ir = spectra["ir"]
    assert ir.mask.sum() == ir.kind.patches - int(ir.kind.patches * 0.8)
    assert ir.predicted.shape == (ir.mask.sum(), ir.kind.patch)
    raw = tiny.store.batch([row], modalities=["ir"]).spectra["ir"][0].numpy()
    np.testing.assert_allclose(ir.values, np.log10(raw + 1), rtol=1e-5)
    assert "raman" not in reconstruct(model, tiny.store, tiny.row("water"), objective)


def test_the_error_of_a_spectrum_made_by_hand():
    values = np.zeros(IR.points, np.float32)
    values[25:75] = 2.0  # patch 1 of the patches 0:50, 25:75, 50:100 ...
    mask = np.zeros(IR.patches, bool)
    mask[[1, 5]] = True
    predicted = np.stack([np.full(50, 1.0), np.zeros(50)]).astype(np.float32)
    assert ReconstructedSpectrum(IR, values, mask, predicted).error == pytest.approx(0.5)


def test_a_lone_masked_patch_is_seen_through_its_neighbours_and_two_are_not():
    values = np.zeros(IR.points, np.float32)
    mask = np.zeros(IR.patches, bool)
    mask[[4, 10, 11]] = True
    spectrum = ReconstructedSpectrum(IR, values, mask, np.zeros((3, 50), np.float32))
    masked = np.flatnonzero(spectrum.masked_points)
    assert masked.tolist() == [*range(100, 150), *range(250, 325)]
    assert np.flatnonzero(spectrum.hidden_points).tolist() == list(range(275, 300))


def test_a_model_without_spectra_and_no_rows_are_refused(tiny, objective):
    with pytest.raises(MismatchError, match="no spectrum encoder"):
        reconstruct(MolSpectra(ModelConfig(tiny.pretrain_model.encoder)), tiny.store, 0, objective)
    model = MolSpectra(tiny.pretrain_model)
    with pytest.raises(ValueRangeError, match="no molecules"):
        reconstruction_errors(model, tiny.store, np.array([], np.int64), objective)
