"""Gathers and sums over edges against loops, and their first and second derivatives."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from molspectra.data.batch import to_device
from molspectra.data.neighbours import neighbour_edges, offsets_of
from molspectra.models.segments import (
    gather_pair,
    gather_source,
    gather_target,
    segment_sum,
    spread_to_atoms,
    sum_by_molecule,
    sum_by_target,
)

COUNTS = {"several": [3, 1, 4], "single atoms": [1, 1], "one": [5]}


def edges_of(counts, dtype=torch.float64):
    ptr = offsets_of(torch.tensor(counts))
    generator = torch.Generator().manual_seed(sum(counts))
    positions = 2.5 * torch.rand(int(ptr[-1]), 3, generator=generator, dtype=dtype)
    return neighbour_edges(positions, ptr, 2.0), ptr


def rows(count, *shape):
    values = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    return values.requires_grad_(True)


@pytest.fixture(params=COUNTS)
def case(request):
    edges, ptr = edges_of(COUNTS[request.param])
    if request.param == "several":
        assert 0 < len(edges.pair_first) < 3 + 6  # some pairs are out of reach
    return edges, ptr


def both_derivatives(function, values):
    return gradcheck(function, values, fast_mode=True) and gradgradcheck(function, values, fast_mode=True)


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_gathers(case, shape):
    edges, ptr = case
    values = rows(int(ptr[-1]), *shape)
    source, target = gather_source(values, edges), gather_target(values, edges)
    for edge in range(len(edges)):
        assert torch.equal(source[edge], values[edges.source[edge]])
        assert torch.equal(target[edge], values[edges.target[edge]])
    assert both_derivatives(lambda x: gather_source(x, edges) ** 2, values)
    assert both_derivatives(lambda x: gather_target(x, edges) ** 2, values)


@pytest.mark.parametrize("shape", [(), (2,), (3, 2)])
def test_sum_by_target(case, shape):
    edges, ptr = case
    values = rows(len(edges), *shape)
    expected = torch.zeros(int(ptr[-1]), *shape, dtype=torch.float64)
    for edge in range(len(edges)):
        expected[edges.target[edge]] += values[edge].detach()
    torch.testing.assert_close(sum_by_target(values, edges), expected)
    assert both_derivatives(lambda x: sum_by_target(x, edges) ** 2, values)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_pairs_reach_both_directions_and_the_self_edges(case, shape):
    edges, _ = case
    values = rows(1 + len(edges.pair_first), *shape)
    gathered = gather_pair(values, edges)
    for edge in range(len(edges)):
        assert torch.equal(gathered[edge], values[edges.pair[edge]])
        assert (int(edges.pair[edge]) == 0) == (int(edges.source[edge]) == int(edges.target[edge]))
    assert both_derivatives(lambda x: gather_pair(x, edges) ** 2, values)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_molecules(case, shape):
    _, ptr = case
    molecule = torch.repeat_interleave(ptr.diff())
    atoms, molecules = rows(int(ptr[-1]), *shape), rows(len(ptr) - 1, *shape)
    sums = sum_by_molecule(atoms, molecule, ptr)
    for index in range(len(ptr) - 1):
        torch.testing.assert_close(sums[index], atoms[ptr[index] : ptr[index + 1]].sum(0))
    assert torch.equal(spread_to_atoms(molecules, molecule, ptr), molecules[molecule])
    assert both_derivatives(lambda x: sum_by_molecule(x, molecule, ptr) ** 2, atoms)
    assert both_derivatives(lambda x: spread_to_atoms(x, molecule, ptr) ** 2, molecules)


def test_segments_may_be_empty():
    index, ptr = torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2, 3])
    values = torch.tensor([[1.0, 2.0], [10.0, 20.0], [5.0, 6.0]])
    assert segment_sum(values, index, ptr).tolist() == [[11.0, 22.0], [0.0, 0.0], [5.0, 6.0]]


def test_chained_operations_have_second_derivatives(case):
    """The form that a message-passing layer has: gather both ends, weigh by pair, sum."""
    edges, ptr = case
    atoms, pairs = rows(int(ptr[-1]), 2), rows(1 + len(edges.pair_first), 2)

    def layer(atoms, pairs):
        messages = gather_source(atoms, edges) * gather_target(atoms, edges) * gather_pair(pairs, edges)
        return sum_by_target(torch.sin(messages), edges)

    assert both_derivatives(layer, (atoms, pairs))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_sums_equal_those_of_the_cpu_and_repeat():
    edges, _ = edges_of([40, 1, 60], torch.float32)
    values = torch.randn(len(edges), 3, 8)
    expected = sum_by_target(values, edges)
    there = to_device(edges, "cuda")
    first, second = (sum_by_target(values.cuda(), there) for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first.cpu(), expected, rtol=1e-5, atol=1e-5)
    empty = segment_sum(values[:1].cuda(), torch.tensor([1]).cuda(), torch.tensor([0, 0, 1]).cuda())
    assert not empty[0].any()
