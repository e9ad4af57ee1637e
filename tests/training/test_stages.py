"""What the stages compute: which pass feeds what, which spectra take part, and what needs a gradient."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.data.store.store import Store
from molspectra.models.model import MolSpectra
from molspectra.objectives.loss import NoiseKey
from molspectra.training.stages import FinetuneStage, PretrainStage, has_spectrum

Make = Callable[..., Any]
NAMES = ("uv_vis", "ir", "raman")


def pretraining(config: Any) -> PretrainStage:
    torch.manual_seed(0)
    return PretrainStage(MolSpectra(config.model), config)


def batch_and_key(store: Store, rows: list[int], **options: Any) -> tuple[Any, NoiseKey]:
    batch = store.batch(np.array(rows), **options)
    return batch, NoiseKey(0, torch.zeros(len(rows), dtype=torch.int64))


def running_mean(stage: PretrainStage) -> torch.Tensor:
    assert stage.model.spectrum_encoder is not None
    layer = stage.model.spectrum_encoder.layers[0]
    return layer.attention_norm.running_mean.clone()  # type: ignore[no-any-return]


@pytest.mark.parametrize("masked", [True, False])
def test_running_statistics_are_fed_once_per_step(stage2: Make, store: Store, masked: bool) -> None:
    """By the pass over whole spectra, or by the masked one where it is the only one."""
    batch, key = batch_and_key(store, [0, 1, 2, 4], modalities=NAMES)
    stage = pretraining(stage2(alignment__masked=masked)).train()
    before = running_mean(stage)
    assert stage.reconstruction is not None
    masks = stage.reconstruction.masks(batch, key)
    stage(batch, key)
    after = running_mean(stage)

    other = pretraining(stage2()).train()
    encoder = other.model.spectrum_encoder
    assert encoder is not None
    if masked:
        encoder.reference_forward(batch.spectra, masks, batch.present)
    else:
        encoder(batch.spectra, batch.present)
    assert not torch.equal(after, before)
    assert torch.equal(after, running_mean(other))


def test_evaluation_feeds_nothing_and_is_repeatable(stage2: Make, store: Store) -> None:
    batch, key = batch_and_key(store, [0, 1, 2, 4], modalities=NAMES)
    stage = pretraining(stage2(denoising__normalise="running")).train()
    stage(batch, key)
    stage.eval()
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    first, second = stage(batch, key), stage(batch, key)
    assert all(torch.equal(first[name].sum, second[name].sum) for name in first)
    assert all(torch.equal(before[name], value) for name, value in stage.state_dict().items())


def test_molecules_without_spectra_are_only_denoised(stage2: Make, store: Store) -> None:
    stage = pretraining(stage2()).train()
    batch, key = batch_and_key(store, [3, 11, 12], modalities=NAMES)
    assert not has_spectrum(batch).any()
    assert list(stage(batch, key)) == ["denoising"]
    batch, key = batch_and_key(store, [3, 1, 2], modalities=NAMES)
    losses = stage(batch, key)
    assert losses["alignment"].count == 2
    assert losses["denoising"].count == 3 * len(batch.numbers)


def test_the_alignment_can_take_clean_structures(stage2: Make, store: Store) -> None:
    batch, key = batch_and_key(store, [0, 1, 2, 4], modalities=NAMES)
    found = {}
    for sigma in (0.04, 0.4):
        for structure in ("noised", "clean"):
            stage = pretraining(stage2(denoising__sigma=sigma, alignment__structure=structure)).train()
            found[structure, sigma] = float(stage(batch, key)["alignment"].sum.detach())
    assert found["clean", 0.04] == found["clean", 0.4]
    assert found["noised", 0.04] != found["noised", 0.4]


def fine_tuning(config: Any) -> FinetuneStage:
    torch.manual_seed(0)
    return FinetuneStage(MolSpectra(config.model), config)


def test_noisy_nodes_in_training_only(gap: Make, store: Store) -> None:
    batch, key = batch_and_key(store, [0, 1, 5], targets=("gap",))
    noisy, clean = fine_tuning(gap()), fine_tuning(gap(denoising_weight=0.0))
    assert list(noisy.train()(batch, key)) == ["gap", "denoising"]
    assert list(noisy.eval()(batch, key)) == ["gap"]
    assert list(clean.train()(batch, key)) == ["gap"]
    assert noisy.eval()(batch, key)["gap"].count == 2  # row 5 has no gap
    values = [float(stage.train()(batch, key)["gap"].sum.detach()) for stage in (noisy, clean)]
    assert values[0] != values[1]
    assert noisy.eval()(batch, key)["gap"].sum == clean.eval()(batch, key)["gap"].sum


def test_forces_are_learnt_and_validated(gap: Make, store: Store) -> None:
    batch, key = batch_and_key(store, [0, 1, 7], targets=("gap", "forces"))
    stage = fine_tuning(gap(forces=True, force_weight=0.8, energy_weight=0.2))
    assert stage.weights() == {"gap": 0.2, "forces": 0.8, "denoising": 0.1}
    losses = stage.train()(batch, key)
    assert losses["forces"].count == 3 * int((batch.molecule < 2).sum())  # row 7 has none
    losses["forces"].sum.backward()
    assert stage.model.encoder.embedding.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert stage.eval()(batch, key)["forces"].count == losses["forces"].count


def test_the_loss_has_no_unit_unless_asked_for(gap: Make, store: Store) -> None:
    batch, key = batch_and_key(store, [0, 1, 2], targets=("gap",))
    sums = []
    for standardised in (True, False):
        stage = fine_tuning(gap(supervised__standardised=standardised)).eval()
        assert stage.model.property_head is not None
        stage.model.property_head.standardise(6.0, 0.5)
        sums.append(float(stage(batch, key)["gap"].sum.detach()))
    assert sums[0] == pytest.approx(sums[1] / 0.25)
