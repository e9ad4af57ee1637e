import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data import neighbours
from molspectra.data.neighbours import neighbour_edges, offsets_of


def brute_force(positions, ptr, cutoff):
    """The documented edge list, by loops."""
    edges, pairs = [], []
    for begin, end in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        for target in range(begin, end):
            for source in range(begin, end):
                near = ((positions[source] - positions[target]) ** 2).sum() < cutoff**2
                if near or source == target:
                    edges.append((target, source))
                if near and target < source:
                    pairs.append((target, source))
    return edges, pairs


def assert_consistent(edges, positions, ptr, cutoff):
    expected, pairs = brute_force(positions, ptr, cutoff)
    found = list(zip(edges.target.tolist(), edges.source.tolist(), strict=True))
    assert found == expected
    assert len(edges) == len(expected)
    place = {edge: index for index, edge in enumerate(expected)}
    assert edges.reverse.tolist() == [place[source, target] for target, source in expected]
    assert list(zip(edges.pair_first.tolist(), edges.pair_second.tolist(), strict=True)) == pairs
    number = {pair: index + 1 for index, pair in enumerate(pairs)}
    wanted = [number[min(edge), max(edge)] if edge[0] != edge[1] else 0 for edge in expected]
    assert edges.pair.tolist() == wanted
    assert [expected[edge] for edge in edges.loop.tolist()] == [(i, i) for i in range(len(positions))]
    assert [expected[edge] for edge in edges.pair_edge.tolist()] == pairs
    atoms = positions.shape[0]
    targets = [target for target, _ in expected]
    assert edges.ptr.tolist() == [sum(target < atom for target in targets) for atom in range(atoms + 1)]


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    cutoff=st.sampled_from([0.5, 1.5, 5.0, 1e3]),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_against_loops(counts, cutoff, seed, dtype):
    ptr = offsets_of(torch.tensor(counts))
    positions = torch.randn(int(ptr[-1]), 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert_consistent(neighbour_edges(positions, ptr, cutoff), positions, ptr, cutoff)


@pytest.mark.parametrize("chunk", [1, 2, 7, 40])
def test_chunks_change_nothing(monkeypatch, chunk):
    ptr = offsets_of(torch.tensor([1, 12, 1, 1, 9, 2]))
    positions = torch.randn(26, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    assert_consistent(neighbour_edges(positions, ptr, 1.2), positions, ptr, 1.2)


def test_positions_need_not_be_contiguous():
    positions = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).T
    ptr = torch.tensor([0, 5, 12])
    found, expected = (neighbour_edges(each, ptr, 1.5) for each in (positions, positions.contiguous()))
    assert torch.equal(found.source, expected.source)


def test_single_atoms_have_their_self_edge_only():
    edges = neighbour_edges(torch.zeros(3, 3), torch.tensor([0, 1, 2, 3]), 5.0)
    assert edges.source.tolist() == edges.target.tolist() == edges.reverse.tolist() == [0, 1, 2]
    assert edges.pair.tolist() == [0, 0, 0]
    assert edges.pair_first.numel() == edges.pair_second.numel() == 0
    assert edges.ptr.tolist() == [0, 1, 2, 3]


def test_the_cutoff_itself_is_outside():
    positions = torch.tensor([[0.0, 0, 0], [5.0, 0, 0], [0, 4.999, 0]])
    edges = neighbour_edges(positions, torch.tensor([0, 3]), 5.0)
    assert list(zip(edges.pair_first.tolist(), edges.pair_second.tolist(), strict=True)) == [(0, 2)]


def test_nothing_is_truncated_in_a_dense_molecule():
    positions = torch.rand(300, 3, generator=torch.Generator().manual_seed(0))
    assert len(neighbour_edges(positions, torch.tensor([0, 300]), 5.0)) == 300 * 300


def test_result_does_not_depend_on_the_batch():
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([3, 8, 5])
    ptr = offsets_of(counts)
    positions = 2 * torch.randn(16, 3, generator=generator)
    whole = neighbour_edges(positions, ptr, 3.0)
    for begin, end in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        alone = neighbour_edges(positions[begin:end], torch.tensor([0, end - begin]), 3.0)
        mine = (whole.target >= begin) & (whole.target < end)
        assert torch.equal(whole.source[mine] - begin, alone.source)
        assert torch.equal(whole.target[mine] - begin, alone.target)


def test_a_position_that_is_not_a_number_stays_visible():
    positions = torch.zeros(3, 3)
    positions[1, 0] = float("nan")
    positions[2, 0] = 100.0
    edges = neighbour_edges(positions, torch.tensor([0, 3]), 5.0)
    assert list(zip(edges.pair_first.tolist(), edges.pair_second.tolist(), strict=True)) == [(0, 1), (1, 2)]


def test_no_gradient_flows_into_the_list_and_bad_cutoffs_are_refused():
    positions = torch.randn(4, 3, requires_grad=True)
    assert not neighbour_edges(positions, torch.tensor([0, 4]), 5.0).source.requires_grad
    for cutoff in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="cutoff"):
            neighbour_edges(positions, torch.tensor([0, 4]), cutoff)


def test_large_molecule_equals_a_dense_search():
    positions = 20 * torch.rand(1500, 3, generator=torch.Generator().manual_seed(0))
    edges = neighbour_edges(positions, torch.tensor([0, 1500]), 4.0)
    near = (positions[:, None] - positions).square().sum(-1) < 16.0
    target, source = torch.nonzero(near, as_tuple=True)
    assert torch.equal(edges.target, target)
    assert torch.equal(edges.source, source)
