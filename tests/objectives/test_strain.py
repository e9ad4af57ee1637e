"""Bond lengths, angles, torsions, the energy of their deviations, and its gradient."""

import math

import numpy as np
import pytest
import torch
from rdkit.Chem import rdMolTransforms as transforms

from molspectra.objectives.strain import (
    MIN_SINE,
    bend_angles,
    dihedrals,
    energies,
    gradient,
    lengths,
    points,
    wrapped,
)

ROWS = list(range(8))


def test_coordinates_as_rdkit_measures_them(take, mols):
    for number, mol in enumerate(mols):
        batch, conformer = take([number]), mol.GetConformer()
        internal = batch.internal
        for name, ours, theirs in (
            ("bonds", lengths, transforms.GetBondLength),
            ("angles", bend_angles, transforms.GetAngleRad),
            ("torsions", lambda chain: dihedrals(chain)[0], transforms.GetDihedralRad),
        ):
            atoms = getattr(internal, name).atoms
            expected = [theirs(conformer, *row) for row in atoms.tolist()]
            np.testing.assert_allclose(ours(batch.positions[atoms]).numpy(), expected, atol=1e-9)


def test_dihedral_by_hand():
    """Seen along the axis, from the second point to the third: the last point lies clockwise of the first."""
    chain = torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]], dtype=torch.float64)
    mirror = chain * torch.tensor([1.0, 1.0, -1.0])
    values, good = dihedrals(torch.stack([chain, mirror]))
    assert good.all()
    assert torch.rad2deg(values).tolist() == pytest.approx([90.0, -90.0])


def moved_batch(take, scale=0.05, seed=0, rows=ROWS):
    batch = take(rows)
    noise = torch.randn(batch.positions.shape, generator=torch.Generator().manual_seed(seed))
    return batch, batch.positions + scale * noise.double()


def energy(batch, positions):
    parts = energies(
        points(batch.positions, batch.internal), points(positions, batch.internal), batch.internal
    )
    return torch.stack([part.sum() for part in parts]).sum()


@pytest.mark.parametrize("scale", [0.05, 0.2])
def test_force_against_finite_differences(take, scale):
    batch, positions = moved_batch(take, scale, rows=[3, 4])
    force = gradient(batch.positions, positions, batch.internal)
    step, numerical = 1e-5, torch.zeros_like(positions)
    for atom in range(len(positions)):
        for axis in range(3):
            shift = torch.zeros_like(positions)
            shift[atom, axis] = step
            numerical[atom, axis] = (
                (energy(batch, positions + shift) - energy(batch, positions - shift)) / 2 / step
            )
    torch.testing.assert_close(force, numerical, rtol=1e-5, atol=1e-4)


def test_energy_by_hand(take):
    """One bond of water longer by 0.1 Å: ½(0.1/σ)² with σ = 1/√1087.1; the other coordinates stay."""
    batch = take([3])
    bond = batch.internal.bonds.atoms[0]
    arm = batch.positions[bond[1]] - batch.positions[bond[0]]
    positions = batch.positions.clone()
    positions[bond[1]] += 0.1 * arm / arm.norm()
    assert float(energy(batch, positions)) == pytest.approx(0.5 * 0.1**2 * 1087.1, rel=1e-6)
    force = gradient(batch.positions, positions, batch.internal)
    torch.testing.assert_close(force[bond[1]], 0.1 * 1087.1 * arm / arm.norm(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(force.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)


def test_no_force_at_the_reference(take):
    batch = take(ROWS)
    assert gradient(batch.positions, batch.positions, batch.internal).abs().max() < 1e-9


def test_forces_sum_to_zero_and_have_no_torque(take):
    batch, positions = moved_batch(take)
    force = gradient(batch.positions, positions, batch.internal)
    for part, place in zip(
        *(rows.split(batch.ptr.diff().tolist()) for rows in (force, positions)), strict=True
    ):
        assert part.sum(0).abs().max() < 1e-9
        assert torch.linalg.cross(place, part).sum(0).abs().max() < 1e-9


def test_the_energy_falls_along_the_negative_force(take):
    batch, positions = moved_batch(take)
    for _ in range(5):
        force = gradient(batch.positions, positions, batch.internal)
        before, positions = energy(batch, positions), positions - 1e-5 * force
        assert energy(batch, positions) < before


def test_force_turns_with_the_structure(take):
    batch, positions = moved_batch(take)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())
    for matrix in (rotation, -rotation):  # one of them is a reflection
        turned = gradient(batch.positions @ matrix + 3.0, positions @ matrix - 1.0, batch.internal)
        torch.testing.assert_close(turned, gradient(batch.positions, positions, batch.internal) @ matrix)


def test_force_does_not_depend_on_the_batch(take):
    batch, positions = moved_batch(take)
    whole = gradient(batch.positions, positions, batch.internal).split(batch.ptr.diff().tolist())
    parts = positions.split(batch.ptr.diff().tolist())
    for number, part in enumerate(parts):
        alone = take([number])
        assert torch.equal(gradient(alone.positions, part, alone.internal), whole[number])


def test_torsions_differ_by_less_than_half_a_turn():
    angles = torch.tensor([3.0, -3.0, 6.2, 0.1], dtype=torch.float64)
    torch.testing.assert_close(
        wrapped(angles),
        torch.tensor([3.0, -3.0, 6.2 - math.tau, 0.1], dtype=torch.float64),
        atol=1e-12,
        rtol=0,
    )
    assert wrapped(torch.tensor(3.1 + 3.1)).abs() < math.pi


@pytest.mark.parametrize(
    "chain",
    [
        [[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0]],  # in line
        [[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [2, 1, 0]],  # the inner atoms coincide
        [[1.0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0]],  # the first two do
        [[0.0, 0, 0], [1, 0.05, 0], [2, 0, 0], [2, 1, 0]],  # nearly in line
    ],
)
def test_undefined_torsions_have_no_slope(chain):
    corners = torch.tensor([chain], dtype=torch.float64, requires_grad=True)
    value, good = dihedrals(corners)
    assert not good.any()
    (slope,) = torch.autograd.grad(value.sum(), corners)
    assert torch.equal(slope, torch.zeros_like(slope))


def test_torsions_count_up_to_the_limit():
    for sine, counted in ((0.9 * MIN_SINE, False), (1.1 * MIN_SINE, True)):
        first = [-math.sqrt(1 - sine**2), sine, 0.0]
        chain = torch.tensor([[first, [0, 0, 0], [1, 0, 0], [1, 0, 1]]], dtype=torch.float64)
        assert bool(dihedrals(chain)[1]) == counted


@pytest.mark.parametrize(
    "corner", [[[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[0.0, 0, 0], [0, 0, 0], [1, 0, 0]], [[1.0, 0, 0]] * 3]
)
def test_straight_and_coincident_points_give_finite_slopes(corner):
    corners = torch.tensor([corner], dtype=torch.float64, requires_grad=True)
    for measure in (bend_angles, lambda corners: lengths(corners[:, :2])):
        (slope,) = torch.autograd.grad(measure(corners).sum(), corners)
        assert slope.isfinite().all()
