"""The loss of predicted spectra: by hand, parts of a batch, and spectra that are not there."""

from dataclasses import replace

import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch, CleanSpectra, batch_of
from molspectra.objectives.spectrum import FLOOR, SpectrumPrediction, relative_errors


def batch_with(spectra: torch.Tensor, present: list[bool]) -> Batch:
    atoms = [Molecule([1], [[0.0, 0.0, 0.0]])] * len(spectra)
    return replace(batch_of(atoms), spectra={"ir": spectra}, present={"ir": torch.tensor(present)})


def test_by_hand() -> None:
    """In log10(s + 1): 1, 2 against 0, 2, and nothing against nothing."""
    found = relative_errors(torch.tensor([[9.0, 99.0], [0.0, 0.0]]), torch.tensor([[0.0, 99.0], [0.0, 0.0]]))
    assert found.tolist() == pytest.approx([0.5 / (2.0 + FLOOR), 0.0])


def test_nothing_predicted_costs_about_one() -> None:
    assert float(relative_errors(torch.zeros(1, 3), torch.tensor([[9.0, 0.5, 3.0]]))) == pytest.approx(
        1, abs=0.01
    )


def test_a_pass_in_half_precision_is_compared_in_single() -> None:
    spectrum, prediction = torch.rand(2, 50), torch.rand(2, 50).bfloat16()
    found = relative_errors(prediction, spectrum)
    assert found.dtype == torch.float32
    assert torch.equal(found, relative_errors(prediction.float(), spectrum))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"predictions \(1, 2\), but spectra \(2, 2\)"):
        relative_errors(torch.zeros(1, 2), torch.zeros(2, 2))


def test_the_parts_add_up_to_the_whole_and_absent_spectra_do_not_count() -> None:
    torch.manual_seed(0)
    spectra, predicted = torch.rand(5, 4), torch.rand(5, 4).requires_grad_()
    present = [True, False, True, True, False]
    objective = SpectrumPrediction(["ir"])
    whole = objective({"ir": predicted}, batch_with(spectra, present))["ir"]
    parts = [
        objective({"ir": predicted[part]}, batch_with(spectra[part], present[part]))["ir"]
        for part in (slice(0, 2), slice(2, 5))
    ]
    assert whole.count == sum(part.count for part in parts) == 3.0
    torch.testing.assert_close(whole.sum, parts[0].sum + parts[1].sum)
    whole.sum.backward()
    assert predicted.grad is not None
    assert predicted.grad.abs().sum(1).gt(0).tolist() == present


def test_the_target_is_the_spectrum_before_augmentation() -> None:
    clean = torch.rand(2, 4)
    batch = batch_with(torch.zeros(2, 4), [False, True])
    batch = replace(batch, clean=CleanSpectra({"ir": clean}, {"ir": torch.tensor([True, True])}))
    found = SpectrumPrediction(["ir"])({"ir": clean}, batch.to("cpu", torch.float64))["ir"]
    assert found.count == 2
    assert float(found.sum) == pytest.approx(0, abs=1e-9)
