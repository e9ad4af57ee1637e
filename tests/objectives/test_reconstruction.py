from dataclasses import replace

import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import SettingError
from molspectra.models.specformer import gather_rows
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import (
    MaskedReconstruction,
    ReconstructionConfig,
    block_masks,
    covered,
    kept_patches,
    patch_errors,
    random_masks,
    runs_of_patches,
)
from molspectra.spectra.modality import IR, RAMAN, UV_VIS

KINDS = {kind.name: kind for kind in (UV_VIS, IR, RAMAN)}
WATERS = [
    Molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, y, 0.0]]) for y in (0.9, 0.92, 0.94, 0.96)
]


def batch_with_spectra(molecules=WATERS, present=None, seed=0):
    random = np.random.default_rng(seed)
    batch = batch_of(molecules, dtype=torch.float64)
    everywhere = torch.ones(len(molecules), dtype=torch.bool)
    spectra = {
        molecule.geometry_id: {name: random.random(kind.points) for name, kind in KINDS.items()}
        for molecule in WATERS
    }
    rows = {
        name: torch.from_numpy(np.stack([spectra[molecule.geometry_id][name] for molecule in molecules]))
        for name in KINDS
    }
    return replace(batch, spectra=rows, present=present or dict.fromkeys(KINDS, everywhere))


def key(batch, seed=0, epoch=0):
    return NoiseKey(seed, torch.full((len(batch),), epoch))


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"), [(69, 0.1, 62), (139, 0.1, 125), (69, 0.3, 48), (10, 0.05, 9), (4, 0.9, 0)]
)
def test_counts(patches, ratio, kept):
    assert kept_patches(patches, ratio) == kept
    masks = random_masks(torch.rand(5, patches), ratio)
    assert masks.sum(1).tolist() == [patches - kept] * 5


def test_the_highest_scores_are_masked():
    scores = torch.tensor([[0.1, 0.9, 0.4, 0.8], [0.7, 0.2, 0.7, 0.1]])
    assert random_masks(scores, 0.5).tolist() == [[False, True, False, True], [True, False, True, False]]


def test_equal_scores_are_kept_in_order():
    assert random_masks(torch.full((1, 5), 0.5), 0.4).tolist() == [[False, False, False, True, True]]


def test_masks_do_not_depend_on_the_batch():
    objective = MaskedReconstruction(ReconstructionConfig(), KINDS)
    batch = batch_with_spectra()
    masks = objective.masks(batch, key(batch))
    assert {name: mask.sum(1).unique().tolist() for name, mask in masks.items()} == {
        "uv_vis": [7],
        "ir": [14],
        "raman": [14],
    }
    for index, molecule in enumerate(WATERS):
        alone = batch_with_spectra([molecule])
        for name, mask in objective.masks(alone, key(alone)).items():
            assert torch.equal(mask[0], masks[name][index])


def test_masks_depend_on_seed_epoch_molecule_and_modality():
    objective = MaskedReconstruction(ReconstructionConfig(), KINDS)
    batch = batch_with_spectra()
    drawn = [objective.masks(batch, key(batch, seed, epoch)) for seed, epoch in ((0, 0), (1, 0), (0, 1))]
    different = [masks["ir"][index] for masks in drawn for index in range(len(WATERS))]
    different.append(drawn[0]["raman"][0])
    for index, one in enumerate(different):
        assert not any(torch.equal(one, two) for two in different[:index])


def test_every_patch_is_masked_as_often():
    objective = MaskedReconstruction(ReconstructionConfig(), {"uv_vis": UV_VIS})
    batch = batch_with_spectra(WATERS[:1])
    often = sum(objective.masks(batch, key(batch, epoch=epoch))["uv_vis"][0].double() for epoch in range(400))
    share = 7 / 69
    assert ((often / 400 - share).abs() < 5 * (share * (1 - share) / 400) ** 0.5).all()


def test_errors_by_hand():
    kind = replace(UV_VIS, stop=1.1, patch=2, stride=2)  # 6 points, 3 patches
    spectrum = torch.tensor([[0.0, 9.0, 99.0, 0.0, 9.0, 9.0]])  # log10(s + 1): 0 1 2 0 1 1
    prediction = torch.tensor([[[1.0, 1.0], [0.0, 0.0], [3.0, 1.0]]])
    mask = torch.tensor([[True, False, True]])
    assert patch_errors(prediction, spectrum, kind, mask).tolist() == [[0.5, 0.0, 2.0]]


def predictions_for(batch):
    generator = torch.Generator().manual_seed(3)
    shapes = {name: (len(WATERS), kind.patches, kind.patch) for name, kind in KINDS.items()}
    drawn = {name: torch.randn(shape, generator=generator).double() for name, shape in shapes.items()}
    rows = [
        [water.geometry_id for water in WATERS].index(identity) for identity in batch.geometry_id.tolist()
    ]
    return {name: values[rows] for name, values in drawn.items()}


def at_all(predictions, places):
    return {name: gather_rows(values, places[name]) for name, values in predictions.items()}


def test_places_of_masked_patches_by_hand():
    objective = MaskedReconstruction(ReconstructionConfig(0.5), {"uv_vis": replace(UV_VIS, stop=2.0)})
    assert objective.kinds["uv_vis"].patches == 4
    masks = {"uv_vis": torch.tensor([[True, False, True, False], [False, False, True, True]])}
    places = objective.masked_index(masks)
    assert places["uv_vis"].tolist() == [[0, 2], [2, 3]]
    rows = torch.arange(16.0).view(2, 4, 2)
    assert gather_rows(rows, places["uv_vis"]).tolist() == [[[0, 1], [4, 5]], [[12, 13], [14, 15]]]


def test_absent_spectra_and_kept_patches_do_not_count():
    present = {
        "uv_vis": torch.tensor([True, False, True, True]),
        "ir": torch.tensor([False, False, False, False]),
        "raman": torch.tensor([True, True, True, True]),
    }
    objective = MaskedReconstruction(ReconstructionConfig(), KINDS)
    batch = batch_with_spectra(present=present)
    masks, predictions = objective.masks(batch, key(batch)), predictions_for(batch)
    places = objective.masked_index(masks)
    losses = objective(at_all(predictions, places), batch, places)
    assert {name: loss.count for name, loss in losses.items()} == {"uv_vis": 21, "ir": 0, "raman": 56}
    assert all(objective.count(batch, name) == loss.count for name, loss in losses.items())
    total = 0.0
    for molecule in (0, 2, 3):
        for patch in masks["uv_vis"][molecule].nonzero().flatten().tolist():
            wanted = torch.log10(batch.spectra["uv_vis"][molecule, 10 * patch : 10 * patch + 20] + 1)
            total += float((predictions["uv_vis"][molecule, patch] - wanted).square().mean())
    assert losses["uv_vis"].sum.item() == pytest.approx(total, rel=1e-12)
    assert losses["ir"].sum.item() == 0.0
    assert losses["ir"].mean.item() == 0.0


def test_micro_batches_add_up():
    objective = MaskedReconstruction(ReconstructionConfig(0.2), KINDS)

    def losses(molecules):
        batch = batch_with_spectra(molecules)
        places = objective.masked_index(objective.masks(batch, key(batch)))
        return objective(at_all(predictions_for(batch), places), batch, places)

    whole, parts = losses(WATERS), [losses(WATERS[:1]), losses(WATERS[1:])]
    for name, loss in whole.items():
        torch.testing.assert_close(parts[0][name].sum + parts[1][name].sum, loss.sum)
        assert parts[0][name].count + parts[1][name].count == loss.count


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, float("nan")])
def test_mask_ratio_must_be_a_share(ratio):
    with pytest.raises(SettingError, match=r"mask_ratio.* 0 and 1"):
        MaskedReconstruction(ReconstructionConfig(ratio), {"ir": IR})


def test_points_of_chosen_patches_by_hand():
    kind = replace(UV_VIS, stop=1.12, patch=3, stride=2)  # 7 points, patches 0-2, 2-4, 4-6
    chosen = torch.tensor([[True, False, False], [False, False, True], [True, False, True]])
    assert covered(chosen, kind).int().tolist() == [
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 1],
    ]


def runs_in(mask):
    """Lengths of the runs of True."""
    return [len(run) for run in "".join("x" if masked else " " for masked in mask).split()]


@pytest.mark.parametrize(
    ("patches", "ratio", "block"), [(69, 0.1, 7), (139, 0.1, 7), (139, 0.3, 5), (10, 0.5, 1)]
)
def test_block_masks_are_runs_of_the_same_number_of_patches(patches, ratio, block):
    lengths = runs_of_patches(patches, ratio, block)
    assert sum(lengths) == patches - kept_patches(patches, ratio)
    assert max(lengths) == block
    scores = torch.rand(200, len(lengths), generator=torch.Generator().manual_seed(0))
    masks = block_masks(scores, patches, ratio, block)
    assert masks.sum(1).unique().tolist() == [sum(lengths)]
    for mask in masks:
        merged = runs_in(mask.tolist())
        assert min(merged) >= min(lengths)
        assert len(merged) <= len(lengths)
    assert masks.any(0).all()  # every patch is masked now and then


def test_block_masks_by_hand():
    """Five patches, three masked in runs of two and one; the scores place them among the two kept patches."""
    scores = torch.tensor([[0.0, 0.0], [0.99, 0.0], [0.99, 0.99], [0.5, 0.5]])
    assert block_masks(scores, 5, 0.6, 2).int().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1],
        [0, 0, 1, 1, 1],
        [0, 1, 1, 1, 0],
    ]


def many_masks(mask):
    objective = MaskedReconstruction(ReconstructionConfig(mask=mask), KINDS)
    batch = batch_with_spectra(WATERS[:1])
    drawn = [objective.masks(batch, key(batch, epoch=epoch)) for epoch in range(300)]
    return objective, {name: torch.cat([masks[name] for masks in drawn]) for name in KINDS}


def test_how_much_of_what_is_asked_for_can_be_seen():
    objective, masks = many_masks("random")
    for name in KINDS:
        leakage = objective.leakage(name, masks[name])
        assert leakage.patches == pytest.approx(0.81, abs=0.03)  # both neighbours are kept
        assert leakage.points == pytest.approx(0.90, abs=0.02)
    objective, masks = many_masks("block")
    assert [objective.leakage(name, masks[name]) for name in KINDS] == [(0.0, 0.0)] * 3


def test_block_masks_hide_their_points_in_every_patch():
    """The masked pass gives the same, whatever stands at the masked points."""
    objective = MaskedReconstruction(ReconstructionConfig(mask="block"), KINDS)
    batch = batch_with_spectra()
    masks = objective.masks(batch, key(batch))
    seen = objective.visible(batch.spectra, masks)
    for name, kind in KINDS.items():
        hidden = covered(masks[name], kind)
        changed = torch.where(hidden, 7.0, batch.spectra[name])
        assert torch.equal(objective.visible({name: changed}, masks)[name], seen[name])
        assert torch.equal(seen[name][~hidden], batch.spectra[name][~hidden])
        assert hidden.any(1).all()
        alone = batch_with_spectra(WATERS[1:2])
        assert torch.equal(objective.masks(alone, key(alone))[name][0], masks[name][1])


def test_random_masks_see_the_spectra_as_they_are():
    objective = MaskedReconstruction(ReconstructionConfig(), KINDS)
    batch = batch_with_spectra()
    seen = objective.visible(batch.spectra, objective.masks(batch, key(batch)))
    assert all(seen[name] is batch.spectra[name] for name in KINDS)


def test_a_run_needs_a_patch():
    with pytest.raises(SettingError, match=r"block.*at least 1"):
        ReconstructionConfig(block=0)
