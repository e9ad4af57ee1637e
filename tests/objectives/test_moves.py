"""Moves along internal coordinates, against RDKit's own and against each other."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdMolTransforms as transforms

from molspectra.objectives.moves import bend, rotate, stretch, twist
from molspectra.objectives.strain import bend_angles, dihedrals, lengths

ROWS = list(range(8))


def aligned(one, other):
    """Root mean square deviation of two structures after the best rotation and translation."""
    one, other = one - one.mean(0), other - other.mean(0)
    u, _, v = np.linalg.svd(one.T @ other)
    flip = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    return np.sqrt(((one @ (u @ flip @ v) - other) ** 2).sum(1).mean())


def split(batch, positions):
    return [part.numpy() for part in positions.split(batch.ptr.diff().tolist())]


def drawn(n, seed=0, scale=1.0):
    return scale * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def local(batch, terms, molecule):
    """The terms of one molecule, with atoms counted from 0, and their places in the batch."""
    stop = torch.cumsum(terms.counts, 0)
    places = range(int(stop[molecule] - terms.counts[molecule]), int(stop[molecule]))
    return [(place, (terms.atoms[place] - batch.ptr[molecule]).tolist()) for place in places]


def test_stretching_sets_every_bond_as_rdkit_does(take, mols):
    batch = take(ROWS)
    internal = batch.internal
    by = drawn(len(internal.bonds.sigma), scale=0.05)
    moved = stretch(batch.positions, internal, by)
    before, after = (lengths(positions[internal.bonds.atoms]) for positions in (batch.positions, moved))
    torch.testing.assert_close(after, before + by)
    for number, (mol, ours) in enumerate(zip(mols, split(batch, moved), strict=False)):
        theirs = Chem.Mol(mol).GetConformer()
        for place, (inner, outer) in local(batch, internal.bonds, number):
            length = transforms.GetBondLength(theirs, inner, outer)
            transforms.SetBondLength(theirs, inner, outer, length + float(by[place]))
        assert aligned(ours, theirs.GetPositions()) < 1e-6


def test_bending_sets_every_angle_in_turn_as_rdkit_does(take, mols):
    batch = take(ROWS)
    internal = batch.internal
    by = drawn(len(internal.angles.sigma), scale=0.1)
    moved = bend(batch.positions, internal, by)
    for number, (mol, ours) in enumerate(zip(mols, split(batch, moved), strict=False)):
        theirs = Chem.Mol(mol).GetConformer()
        for place, (fixed, centre, end) in local(batch, internal.angles, number):
            angle = transforms.GetAngleRad(theirs, fixed, centre, end)
            transforms.SetAngleRad(theirs, fixed, centre, end, angle + float(by[place]))
        assert aligned(ours, theirs.GetPositions()) < 1e-6


@pytest.mark.parametrize("kind", ["twist", "rotate"])
def test_turning_sets_every_dihedral_as_rdkit_does(take, mols, kind):
    batch = take(ROWS)
    internal = batch.internal
    if kind == "twist":
        by = drawn(len(internal.torsions.sigma))
        moved = twist(batch.positions, internal, by)
        turns = {tuple(internal.torsions.atoms[k, 1:3].tolist()): float(by[k]) for k in range(len(by))}
    else:
        by = drawn(len(internal.rotatable))
        moved = rotate(batch.positions, internal, by)
        bonds = internal.bonds.atoms[internal.rotatable].tolist()
        turns = {tuple(bond): float(value) for bond, value in zip(bonds, by, strict=True)}
    for number, (mol, ours) in enumerate(zip(mols, split(batch, moved), strict=False)):
        theirs, start = Chem.Mol(mol).GetConformer(), int(batch.ptr[number])
        for _, (first, inner, outer, last) in local(batch, internal.torsions, number):
            turn = turns.get((inner + start, outer + start), 0.0)
            angle = transforms.GetDihedralRad(theirs, first, inner, outer, last)
            transforms.SetDihedralRad(theirs, first, inner, outer, last, angle + turn)
        assert aligned(ours, theirs.GetPositions()) < 1e-6


def test_a_turn_changes_its_own_torsion_alone(take):
    batch = take([0])
    internal = batch.internal
    (place,) = (k for k, atoms in enumerate(internal.torsions.atoms.tolist()) if set(atoms) == {0, 1, 2, 3})
    by = torch.zeros(len(internal.torsions.sigma), dtype=torch.float64)
    by[place] = 0.7
    moved = twist(batch.positions, internal, by)
    before, after = (
        dihedrals(positions[internal.torsions.atoms])[0] for positions in (batch.positions, moved)
    )
    change = torch.remainder(after - before + torch.pi, 2 * torch.pi) - torch.pi
    torch.testing.assert_close(change, by)
    for measure, terms in ((lengths, internal.bonds), (bend_angles, internal.angles)):
        torch.testing.assert_close(measure(moved[terms.atoms]), measure(batch.positions[terms.atoms]))


@pytest.mark.parametrize(("move", "terms"), [(stretch, "bonds"), (bend, "angles"), (twist, "torsions")])
def test_rings_stay_as_they_are(take, mols, move, terms):
    batch = take(ROWS)
    moved = move(batch.positions, batch.internal, drawn(len(getattr(batch.internal, terms).sigma), scale=0.1))
    for number in (2, 5, 6):
        ring = [list(bonded) for bonded in mols[number].GetRingInfo().AtomRings()]
        atoms = sorted({atom for bonded in ring for atom in bonded}) if number != 6 else ring[0]
        before, after = (split(batch, positions)[number][atoms] for positions in (batch.positions, moved))
        distances = [
            np.linalg.norm(positions[:, None] - positions[None], axis=-1) for positions in (before, after)
        ]
        np.testing.assert_allclose(*distances, atol=1e-9)


@pytest.mark.parametrize(("move", "terms"), [(stretch, "bonds"), (bend, "angles"), (twist, "torsions")])
def test_moves_do_not_depend_on_the_batch(take, move, terms):
    whole = take(ROWS)
    by = drawn(len(getattr(whole.internal, terms).sigma), scale=0.1)
    parts = split(whole, move(whole.positions, whole.internal, by))
    for number, own in enumerate(by.split(getattr(whole.internal, terms).counts.tolist())):
        alone = take([number])
        np.testing.assert_array_equal(move(alone.positions, alone.internal, own).numpy(), parts[number])


def test_an_angle_that_is_straight_at_its_turn_stays():
    """There is no plane to turn in."""
    from molspectra.data.coordinates import Moves
    from molspectra.objectives.moves import _turned

    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    one = Moves(torch.tensor([0]), torch.tensor([2]), torch.tensor([0]), (1,), (1,))
    none = torch.zeros(1, 3, dtype=torch.float64)
    moved = _turned(line, one, torch.tensor([0.3]).double(), lambda now, terms: (now[1:2], none))
    torch.testing.assert_close(moved, line)
