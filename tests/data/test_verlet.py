"""A list with a skin gives the edges of a search at every call."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data.neighbours import neighbour_edges, offsets_of
from molspectra.data.verlet import VerletList
from molspectra.errors import SettingError


def same(ours, expected):
    for each in fields(ours):
        assert torch.equal(getattr(ours, each.name), getattr(expected, each.name)), each.name


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    skin=st.sampled_from([0.0, 0.05, 0.5, 4.0]),
    pace=st.sampled_from([1e-3, 0.03, 0.3]),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_equal_to_a_search_at_every_call(counts, skin, pace, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    ptr = offsets_of(torch.tensor(counts))
    positions = 1.5 * torch.randn(int(ptr[-1]), 3, generator=generator, dtype=dtype)
    verlet = VerletList(2.0, skin)
    for _ in range(12):
        same(verlet.edges(positions, ptr), neighbour_edges(positions, ptr, 2.0))
        positions = positions + pace * torch.randn(positions.shape, generator=generator, dtype=dtype)


def pair(distance):
    return torch.tensor([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], dtype=torch.float64)


def test_searches_only_when_an_atom_has_moved_half_the_skin():
    verlet, ptr = VerletList(5.0, 1.0), torch.tensor([0, 2])
    for distance, searches, edges in (
        (5.6, 1, 2),
        (5.2, 1, 2),  # moved by 0.4
        (4.99, 2, 4),  # by 0.61
        (5.01, 2, 2),
        (4.97, 2, 4),
    ):
        assert len(verlet.edges(pair(distance), ptr)) == edges
        assert verlet.searches == searches


def test_the_same_edges_while_the_same_pairs_are_inside():
    verlet, ptr = VerletList(5.0, 1.0), torch.tensor([0, 2])
    first = verlet.edges(pair(4.0), ptr)
    assert verlet.edges(pair(4.1), ptr) is first
    assert VerletList(5.0, 0.0).edges(pair(4.0), ptr) is not first


def test_both_atoms_may_move_towards_each_other():
    """From beyond cutoff + skin, each by just less than half the skin: still beyond the cutoff."""
    verlet, ptr = VerletList(5.0, 1.0), torch.tensor([0, 2])
    start = pair(6.001)
    assert len(verlet.edges(start, ptr)) == 2
    near = start + torch.tensor([[0.4994, 0, 0], [-0.4994, 0, 0]], dtype=torch.float64)
    assert len(verlet.edges(near, ptr)) == 2
    assert verlet.searches == 1
    nearer = start + torch.tensor([[0.501, 0, 0], [-0.501, 0, 0]], dtype=torch.float64)
    assert len(verlet.edges(nearer, ptr)) == 4


def test_other_molecules_are_searched_anew():
    verlet = VerletList(5.0, 1.0)
    verlet.edges(pair(4.0), torch.tensor([0, 2]))
    apart = torch.tensor([0, 1, 2])
    same(verlet.edges(pair(4.0), apart), neighbour_edges(pair(4.0), apart, 5.0))
    same(verlet.edges(pair(4.0).float(), apart), neighbour_edges(pair(4.0).float(), apart, 5.0))
    assert verlet.searches == 3


def test_what_is_not_a_number_stays_visible():
    verlet, ptr = VerletList(5.0, 1.0), torch.tensor([0, 2])
    verlet.edges(pair(4.0), ptr)
    assert len(verlet.edges(pair(torch.nan), ptr)) == 4
    assert len(verlet.edges(pair(6.5), ptr)) == 2


@pytest.mark.parametrize("skin", [-0.1, float("nan"), float("inf")])
def test_a_skin_is_a_length(skin):
    with pytest.raises(SettingError, match="skin"):
        VerletList(5.0, skin)
