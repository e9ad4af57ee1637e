import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molspectra.data.loader import batches
from molspectra.data.stream import BatchStream, permutation
from molspectra.errors import InputError, SettingError, ValueRangeError


@given(n=st.integers(1, 40), batch_size=st.integers(1, 90), seed=st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_one_permutation(n, batch_size, seed):
    stream = BatchStream(n, batch_size, seed)
    steps = -(-3 * n // batch_size)
    rows, epochs = (
        torch.cat(parts) for parts in zip(*(stream.indices(step) for step in range(steps)), strict=True)
    )
    assert rows.shape == (steps * batch_size,)
    assert epochs.tolist() == [place // n for place in range(len(rows))]
    for epoch in range(3):
        assert sorted(rows[epochs == epoch].tolist()) == list(range(n))


@given(batch_size=st.integers(1, 30), world_size=st.integers(1, 30), step=st.integers(0, 1000))
@settings(deadline=None)
def test_ranks_share_the_batch_of_one_process(batch_size, world_size, step):
    stream = BatchStream(17, batch_size, 3)
    if world_size > batch_size:
        with pytest.raises(SettingError, match=f"{batch_size}.*{world_size}"):
            stream.indices(step, world_size, 0)
        return
    parts = [stream.indices(step, world_size, rank) for rank in range(world_size)]
    for whole, pieces in zip(stream.indices(step), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(pieces), whole)
    sizes = [len(rows) for rows, _ in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_step_is_a_pure_function_of_its_number():
    ahead = [BatchStream(50, 8, 1).indices(step)[0] for step in (40, 3, 17)]
    stream = BatchStream(50, 8, 1)
    in_order = [stream.indices(step)[0] for step in range(41)]
    assert all(torch.equal(a, in_order[step]) for a, step in zip(ahead, (40, 3, 17), strict=True))


def test_published_order_never_changes():
    assert permutation(8, 0, 0).tolist() == [5, 6, 0, 4, 7, 1, 3, 2]
    assert permutation(8, 0, 1).tolist() == [1, 5, 3, 2, 7, 4, 6, 0]


def test_permutations_differ_and_are_unbiased():
    orders = torch.stack([permutation(200, seed, epoch) for seed in range(5) for epoch in range(40)])
    assert len({tuple(order) for order in orders.tolist()}) == 200
    first = orders.double().mean(0)  # mean row number at each place: 99.5 up to chance
    assert (first - 99.5).abs().max() < 5 * 57.7 / 200**0.5


def test_long_permutation_spans_chunks():
    assert torch.equal(permutation(150_001, 0, 0).sort().values, torch.arange(150_001))


@pytest.mark.parametrize(
    ("n", "batch_size", "kind", "reason"),
    [(0, 4, ValueRangeError, "rows"), (4, 0, SettingError, "batch size .* 0")],
)
def test_nothing_to_draw(n, batch_size, kind, reason):
    with pytest.raises(kind, match=reason):
        BatchStream(n, batch_size)


@pytest.mark.parametrize(("step", "world_size", "rank"), [(-1, 1, 0), (0, 2, 2), (0, 2, -1)])
def test_out_of_range(step, world_size, rank):
    with pytest.raises(ValueError, match="no step"):
        BatchStream(4, 4).indices(step, world_size, rank)


def square(step):
    if step == 9:
        raise InputError("row 9 is damaged")
    return torch.tensor(step * step)


def test_loader_is_the_same_with_workers_and_resumes_anywhere():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = [int(value) for value in batches(square, 3, 9)]
    assert alone == [9, 16, 25, 36, 49, 64]
    ahead = batches(square, 3, 11, workers=1)
    assert [int(next(ahead)) for _ in alone] == alone
    with pytest.raises(InputError) as raised:
        next(ahead)
    assert str(raised.value) == "row 9 is damaged"  # its traceback is kept, the workers are not
    assert not multiprocessing.active_children()
    assert [int(value) for value in batches(square, 6, 9)] == alone[3:]
    assert torch.equal(torch.get_rng_state(), before)
