"""Batch norm over several ranks against torch's over all rows at once; threads stand for the ranks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from molspectra.models.shared import gathering
from molspectra.models.transformer_layer import NormOverRanks, PresentBatchNorm

SIZES = [3, 0, 5, 1]
WIDTH = 4


def on_ranks(task: Callable[[int, Callable[[Tensor], Tensor]], Any]) -> list[Any]:
    """Results of task(rank, all_gather), all ranks at once."""
    world = len(SIZES)
    slots: list[Tensor] = [torch.empty(0)] * world
    barrier = threading.Barrier(world, timeout=60)

    def run(rank: int) -> Any:
        def all_gather(values: Tensor) -> Tensor:
            slots[rank] = values
            barrier.wait()
            gathered = torch.stack(slots)
            barrier.wait()
            return gathered

        return task(rank, all_gather)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


def norm_of(dtype: torch.dtype) -> PresentBatchNorm:
    norm = PresentBatchNorm(WIDTH).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, -1.0, 3.0, 0.2]))
        norm.running_mean.copy_(torch.tensor([0.3, 0.1, 7.0, 0.0]))
    return norm.train()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_ranks_normalise_as_one(dtype: torch.dtype, rtol: float) -> None:
    torch.manual_seed(1)
    parts = [torch.randn(size, WIDTH, dtype=dtype) * 3 + 2 for size in SIZES]
    factors = [torch.randn(size, WIDTH, dtype=dtype) for size in SIZES]
    whole = norm_of(dtype)
    rows = torch.cat(parts).requires_grad_()
    expected = whole(rows.unsqueeze(0))[0]
    (expected * torch.cat(factors)).sum().backward()

    def rank_of(rank: int, all_gather: Any) -> tuple[PresentBatchNorm, Tensor, Tensor]:
        norm, tokens = norm_of(dtype), torch.full((1, 6, WIDTH), 9.0, dtype=dtype)
        present = torch.arange(6).unsqueeze(0) < SIZES[rank]  # the rest is absent
        index = present.flatten().nonzero().squeeze(1)
        tokens[present] = parts[rank]
        tokens.requires_grad_()
        with gathering(norm, all_gather):
            normed = norm(tokens, index)
            assert norm(tokens, index, track=False).equal(normed)
            assert not normed[~present].any()
            (normed[present] * factors[rank]).sum().backward()
        assert norm.all_gather is None
        assert tokens.grad is not None
        assert not tokens.grad[~present].any()
        return norm, normed.detach()[present], tokens.grad[present]

    norms, normed, grads = zip(*on_ranks(rank_of), strict=True)

    def close(ours: Tensor, wanted: Tensor | None) -> None:
        torch.testing.assert_close(ours, wanted, rtol=rtol, atol=rtol)

    close(torch.cat(normed), expected.detach())
    close(torch.cat(grads), rows.grad)
    for name in ("weight", "bias"):
        close(sum(getattr(norm, name).grad for norm in norms), getattr(whole, name).grad)  # type: ignore[arg-type]
    for norm in norms:
        close(norm.running_mean, whole.running_mean)
        close(norm.running_var, whole.running_var)
        assert norm.num_batches_tracked == 1
        assert torch.equal(norm.running_var, norms[0].running_var)  # bit for bit on all


def test_far_from_zero_nothing_cancels() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(size, WIDTH, dtype=torch.float64) + 1e8 for size in SIZES]
    wanted = torch.cat(parts).var(0, correction=0)

    def rank_of(rank: int, all_gather: Any) -> Tensor:
        ones = torch.ones(WIDTH, dtype=torch.float64)
        variance: Tensor = NormOverRanks.apply(parts[rank], ones, ones, 1e-5, all_gather)[2]
        return variance

    for variance in on_ranks(rank_of):
        torch.testing.assert_close(variance, wanted, rtol=1e-7, atol=0.0)


def test_without_any_rows_statistics_stay() -> None:
    norm = norm_of(torch.float64)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with gathering(norm, lambda values: values.unsqueeze(0)):
        normed = norm(torch.ones(2, 3, WIDTH, dtype=torch.float64), torch.zeros(0, dtype=torch.int64))
    assert not normed.any()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_a_second_derivative_is_refused() -> None:
    norm, tokens = norm_of(torch.float64), torch.randn(2, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    with gathering(norm, lambda values: values.unsqueeze(0)):
        (gradient,) = torch.autograd.grad(norm(tokens).square().sum(), tokens, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()


def test_in_evaluation_ranks_do_not_matter() -> None:
    norm, tokens = norm_of(torch.float64).eval(), torch.randn(2, 3, WIDTH, dtype=torch.float64)
    expected = norm(tokens)
    with gathering(norm, None):
        assert torch.equal(norm(tokens), expected)

    def never(values: Tensor) -> Tensor:
        raise AssertionError("asked the other ranks")

    with gathering(norm, never):
        assert torch.equal(norm(tokens), expected)
