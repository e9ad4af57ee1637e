import pytest
import torch

from molspectra.data.store.sampled import sampled_copy
from molspectra.data.store.store import Broadening, Store, write_store
from molspectra.errors import NotFoundError


@pytest.fixture
def store(tmp_path, make_row, metadata):
    write_store(tmp_path / "lines.arrow", [make_row(i) for i in range(20)], metadata)
    return Store(tmp_path / "lines.arrow")


def test_a_copy_gives_the_same_batches_within_float16(store, tmp_path):
    options = {"ir": Broadening("gaussian", 20.0, 0.97)}
    copy = sampled_copy(store, tmp_path / "cache", options)
    copy.verify()
    assert copy.identities == store.identities
    assert copy.metadata.modalities == store.metadata.modalities
    assert copy.metadata.samples["ir"] == "harmonic; gaussian, FWHM 20 cm⁻¹, positions × 0.97"
    assert copy.metadata.properties == store.metadata.properties
    rows, names = [7, 0, 3, 19, 12], store.metadata.modalities
    found = copy.batch(rows, modalities=names, targets=("gap",))
    expected = store.batch(rows, modalities=names, targets=("gap",), broadening=options)
    assert torch.equal(found.positions, expected.positions)
    assert torch.equal(found.geometry_id, expected.geometry_id)
    for name in names:
        assert torch.equal(found.present[name], expected.present[name])
        assert found.spectra[name].dtype == torch.float32
        torch.testing.assert_close(found.spectra[name], expected.spectra[name], rtol=2**-11, atol=1e-7)


def test_a_copy_is_made_once_per_data_and_width(store, tmp_path, make_row, metadata):
    first = sampled_copy(store, tmp_path / "cache")
    made = first.path.stat().st_mtime_ns
    assert sampled_copy(store, tmp_path / "cache").path.stat().st_mtime_ns == made
    wide = sampled_copy(store, tmp_path / "cache", {"raman": Broadening(fwhm=13.0)})
    write_store(tmp_path / "other.arrow", [make_row(i) for i in range(19)], metadata)
    other = sampled_copy(Store(tmp_path / "other.arrow"), tmp_path / "cache")
    assert len({first.path, wide.path, other.path}) == 3


def test_there_must_be_lines(store, tmp_path):
    copy = sampled_copy(store, tmp_path)
    with pytest.raises(NotFoundError, match="no lines"):
        sampled_copy(copy, tmp_path)
