import numpy as np
import pytest
import torch

from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.errors import InputError, MismatchError, MolspectraError, ValueRangeError
from molspectra.evaluation.predict import predict_rows
from molspectra.models.model import ModelConfig, MolSpectra


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    made = MolSpectra(ModelConfig(tiny.pretrain_model.encoder, property="scalar"))
    made.property_head.standardise(7.0, 0.5)
    return made


def test_predictions_come_in_the_order_of_the_rows_in_any_batch(tiny, model):
    rows = np.array([7, 3, 12, 3, 20])
    predictions = predict_rows(model, tiny.store, rows, ["gap"], batch_size=2)
    assert predictions.force_target is predictions.force_prediction is None
    assert predictions.identities == tuple(tiny.store.identities[row] for row in rows)
    np.testing.assert_array_equal(predictions.target[:, 0], tiny.store.column("gap")[rows])
    whole = predict_rows(model, tiny.store, rows, ["gap"]).prediction
    np.testing.assert_allclose(predictions.prediction, whole, rtol=1e-5)
    assert predictions.prediction[1] == pytest.approx(predictions.prediction[3], rel=1e-5)
    with torch.no_grad():
        alone = model(tiny.store.batch([12]))
    assert predictions.prediction[2] == pytest.approx(float(alone), rel=1e-5)


def test_a_molecule_without_a_value_keeps_its_prediction(tiny, model):
    predictions = predict_rows(model, tiny.store, np.array([tiny.row("ammonia")]), ["gap"])
    assert np.isnan(predictions.target[0])
    assert np.isfinite(predictions.prediction[0])


def test_forces_are_the_negative_gradient(tmp_path, model):
    molecules = [from_smiles("CO"), from_smiles("O")]
    rows = [
        Row(molecule, properties={"energy": 1.0}, forces=np.full((len(molecule), 3), 0.5))
        for molecule in molecules
    ]
    metadata = Metadata(
        source="",
        licence="",
        properties={"energy": Quantity("eV")},
        forces=Quantity("eV/Å"),
        position_dtype="float64",
    )
    write_store(tmp_path / "f.arrow", rows, metadata)
    store = Store(tmp_path / "f.arrow")
    model = model.double()
    predictions = predict_rows(model, store, np.array([0, 1]), ["energy"], forces=True)
    assert predictions.force_target.shape == predictions.force_prediction.shape == (9, 3)
    batch, step = store.batch([1], dtype=torch.float64), 1e-4
    energies = []
    for sign in (1, -1):
        moved = batch.positions.clone()
        moved[2, 1] += sign * step
        with torch.no_grad():
            energies.append(float(model(batch.with_positions(moved))))
    assert predictions.force_prediction[8, 1] == pytest.approx(
        -(energies[0] - energies[1]) / (2 * step), rel=1e-4
    )


def test_what_cannot_be_predicted_is_refused(tiny, model):
    with pytest.raises(MismatchError, match="no property head"):
        predict_rows(MolSpectra(ModelConfig(tiny.pretrain_model.encoder)), tiny.store, np.array([0]), ["gap"])
    with pytest.raises(ValueRangeError, match="no molecules"):
        predict_rows(model, tiny.store, np.array([], np.int64), ["gap"])
    with pytest.raises(InputError, match="'nope'"):
        predict_rows(model, tiny.store, np.array([0]), ["nope"])
    with torch.no_grad():
        model.property_head.std.fill_(torch.nan)
    with pytest.raises(MolspectraError, match="is not finite"):
        predict_rows(model, tiny.store, np.array([0]), ["gap"])
