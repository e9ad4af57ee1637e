"""Frad and SliDe as objectives: what is moved, what is to be predicted, and what it depends on."""

import numpy as np
import pytest
import torch
from rdkit import Chem

from molspectra.data.batch import batch_of
from molspectra.errors import MismatchError
from molspectra.objectives.denoising import DenoisingConfig, denoising_objective
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.moves import rotate
from molspectra.objectives.strain import dihedrals, energies, gradient, points

ROWS = list(range(8))
ROTATABLE = [1, 2, 0, 0, 2, 1, 0, 0]
"""Rotatable bonds of the molecules."""


def objective(kind, **config):
    return denoising_objective(DenoisingConfig(kind=kind, **config))


def key(batch, seed=0, epoch=0):
    return NoiseKey(seed, torch.full((len(batch),), epoch))


def parts(batch, values):
    return values.split(batch.ptr.diff().tolist())


def test_rotatable_bonds_of_the_batch(take, mols):
    pattern = Chem.MolFromSmarts("[!$(*#*)&!D1]-&!@[!$(*#*)&!D1]")
    expected = [len(Chem.RemoveHs(mol).GetSubstructMatches(pattern)) for mol in mols]
    assert take(ROWS).internal.rotatable_counts.tolist() == [*expected, 0] == ROTATABLE


@pytest.mark.parametrize("kind", ["frad", "slide"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moves_and_targets_do_not_depend_on_the_batch(internal_store, kind, dtype):
    batch = internal_store.batch(ROWS, dtype=dtype)
    noised = objective(kind).perturb(batch, key(batch))
    backwards = internal_store.batch(ROWS[::-1], dtype=dtype)
    turned = objective(kind).perturb(backwards, key(backwards))
    for row in ROWS:
        alone = internal_store.batch([row], dtype=dtype)
        own = objective(kind).perturb(alone, key(alone))
        pairs = [("positions", noised.batch.positions, turned.batch.positions, own.batch.positions)]
        pairs.append(("target", noised.target, turned.target, own.target))
        if kind == "slide":
            pairs.append(("force", noised.force, turned.force, own.force))
        for _, one, two, three in pairs:
            assert torch.equal(parts(batch, one)[row], three)
            assert torch.equal(parts(backwards, two)[len(ROWS) - 1 - row], three)


@pytest.mark.parametrize("kind", ["frad", "slide"])
def test_moves_depend_on_seed_and_epoch(take, kind):
    batch = take([0])
    drawn = [
        objective(kind).perturb(batch, key(batch, seed, epoch)).batch.positions
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    again = objective(kind).perturb(batch, key(batch)).batch.positions
    assert torch.equal(drawn[0], again)
    for index, one in enumerate(drawn):
        assert not any(torch.equal(one, two) for two in drawn[:index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frad_without_rotatable_bonds_is_coord(internal_store, dtype):
    batch = internal_store.batch(ROWS, dtype=dtype)
    frad, coord = (objective(kind).perturb(batch, key(batch)) for kind in ("frad", "coord"))
    assert torch.equal(frad.target, coord.target)  # the target is the Gaussian noise in any case
    same = [
        torch.equal(one, other)
        for one, other in zip(
            *(parts(batch, noised.batch.positions) for noised in (frad, coord)), strict=True
        )
    ]
    assert same == [count == 0 for count in ROTATABLE]


def test_frad_predicts_the_gaussian_noise_alone(take):
    batch = take(ROWS)
    frad = objective("frad", rotation=20.0)
    noised = frad.perturb(batch, key(batch))
    turned = noised.batch.positions - noised.target
    torsions = batch.internal.torsions.atoms
    change = dihedrals(turned[torsions])[0] - dihedrals(batch.positions[torsions])[0]
    change = torch.remainder(change + torch.pi, 2 * torch.pi) - torch.pi
    bonds = set(map(tuple, batch.internal.bonds.atoms[batch.internal.rotatable].tolist()))
    rotatable = torch.tensor([tuple(torsion[1:3]) in bonds for torsion in torsions.tolist()])
    assert (change[rotatable].abs() > 1e-4).all()
    assert change[~rotatable].abs().max() < 1e-9
    perfect = frad({"denoising": noised.target / 0.04}, noised)
    assert list(perfect) == ["denoising"]
    assert float(perfect["denoising"].sum) == 0.0


def test_turns_have_the_published_size(take):
    batch = take([0])
    torsion = next(atoms for atoms in batch.internal.torsions.atoms.tolist() if set(atoms) == {0, 1, 2, 3})
    turns = []
    for epoch in range(200):
        noised = objective("frad").perturb(batch, key(batch, epoch=epoch))
        chains = torch.stack([batch.positions, noised.batch.positions - noised.target])[:, torsion]
        turns.append(dihedrals(chains)[0].diff())
    assert torch.rad2deg(torch.stack(turns)).std().item() == pytest.approx(2.0, rel=0.2)


def test_the_force_is_that_of_the_structure_that_is_seen(take):
    batch = take(ROWS)
    noised = objective("slide").perturb(batch, key(batch))
    expected = gradient(batch.positions, noised.batch.positions, batch.internal)
    torch.testing.assert_close(noised.force, expected)
    assert noised.force[-1].tolist() == [0.0, 0.0, 0.0]  # argon


def test_force_is_found_without_gradients_too(take):
    batch = take(ROWS)
    with torch.no_grad():
        noised = objective("slide").perturb(batch, key(batch))
    assert not noised.force.requires_grad
    assert torch.equal(noised.force, objective("slide").perturb(batch, key(batch)).force)


def test_deviations_are_as_large_as_they_should_be(take):
    """Bonds and torsions exactly N(0, σ²); angles at one atom move each other, so that theirs is larger."""
    batch = take(ROWS)
    means = [0.0, 0.0, 0.0]
    draws = 30
    for epoch in range(draws):
        noised = objective("slide", sigma=1e-12).perturb(batch, key(batch, epoch=epoch))
        both = (points(positions, batch.internal) for positions in (batch.positions, noised.batch.positions))
        for index, energy in enumerate(energies(*both, batch.internal)):
            means[index] += 2 * energy.mean().item() / draws
    assert means[0] == pytest.approx(1.0, abs=0.1)
    assert 1.0 < means[1] < 2.0
    assert means[2] == pytest.approx(1.0, abs=0.25)


def test_rings_are_moved_by_the_gaussian_noise_alone(take, mols):
    batch = take([2])
    noised = objective("slide").perturb(batch, key(batch))
    (ring,) = (list(atoms) for atoms in mols[2].GetRingInfo().AtomRings())
    bare = noised.batch.positions - noised.target
    before, after = (torch.cdist(positions[ring], positions[ring]) for positions in (batch.positions, bare))
    torch.testing.assert_close(before, after)


def test_targets_turn_with_the_structure(take):
    """The moves of a turned structure are the turned moves, given the same random numbers."""
    batch = take(ROWS)
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).double())
    matrix = matrix * torch.linalg.det(matrix)  # a rotation
    turned = batch.with_positions(batch.positions @ matrix + 5.0)
    slide = objective("slide", sigma=1e-9)
    one, other = (slide.perturb(molecules, key(molecules)) for molecules in (batch, turned))
    torch.testing.assert_close(one.batch.positions @ matrix + 5.0, other.batch.positions, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.force @ matrix, other.force, atol=1e-3, rtol=1e-5)


def test_a_mirror_image_turns_the_other_way(take):
    batch = take([0])
    mirror = batch.with_positions(-batch.positions)
    by = torch.tensor([0.4], dtype=torch.float64)
    one, other = rotate(batch.positions, batch.internal, by), rotate(mirror.positions, mirror.internal, -by)
    torch.testing.assert_close(one, -other)


def test_losses_by_hand(take):
    batch = take([3, 7])  # water and argon, which has no force to learn
    slide = objective("slide", force_unit=10.0)
    noised = slide.perturb(batch, key(batch))
    zero = torch.zeros_like(noised.target)
    losses = slide({"denoising": zero, "slide": zero}, noised)
    assert list(losses) == ["denoising", "slide"]
    assert {name: loss.count for name, loss in losses.items()} == slide.counts(batch)
    assert slide.counts(batch) == {"denoising": 12.0, "slide": 9.0}
    assert losses["slide"].sum.item() == pytest.approx((noised.force[:3] / 10).square().sum().item())
    assert losses["denoising"].sum.item() == pytest.approx((noised.target / 0.04).square().sum().item())
    wrong = zero.clone()
    wrong[3] = 99.0
    assert slide({"denoising": zero, "slide": wrong}, noised)["slide"].sum == losses["slide"].sum


def test_micro_batches_add_up(take):
    slide = objective("slide")

    def losses(rows):
        batch = take(rows)
        noised = slide.perturb(batch, key(batch))
        prediction = batch.positions.sin()
        return slide({"denoising": prediction, "slide": prediction}, noised)

    whole, *several = losses(ROWS), losses(ROWS[:3]), losses(ROWS[3:])
    for name, loss in whole.items():
        torch.testing.assert_close(sum(micro[name].sum for micro in several), loss.sum)
        assert sum(micro[name].count for micro in several) == loss.count


@pytest.mark.parametrize("kind", ["frad", "slide"])
def test_internal_coordinates_are_needed(take, kind):
    from molspectra.chem.molecule import Molecule

    bare = batch_of([Molecule([1, 1], np.eye(2, 3))])
    with pytest.raises(MismatchError, match=r"internal coordinates.*with_internal"):
        objective(kind).perturb(bare, key(bare))
