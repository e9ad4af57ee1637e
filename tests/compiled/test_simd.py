"""Vectors inside numba functions against numpy."""

import numpy as np
import pytest
import torch

numba = pytest.importorskip("numba")

from molspectra.compiled.simd import (
    array_of,
    exp,
    fma,
    inline,
    larger,
    load,
    narrow,
    real_of,
    sigmoid,
    splat,
    store,
    total,
    widen,
)
from molspectra.compiled.threads import run

DTYPES = [torch.float32, torch.float64]


def applied(function, lanes, dtype, *inputs):
    """A function of vectors applied to all numbers of the inputs, `lanes` at a time."""
    reals, count = array_of(real_of(dtype)), len(inputs)

    @numba.njit(nogil=True)
    def kernel(first, last, a, b, c, out):
        a, b, c, out = reals(a), reals(b), reals(c), reals(out)
        for task in range(first, last):
            at = task * lanes
            if count == 1:
                store(out, at, function(load(a, at, lanes)))
            elif count == 2:
                store(out, at, function(load(a, at, lanes), load(b, at, lanes)))
            else:
                store(out, at, function(load(a, at, lanes), load(b, at, lanes), load(c, at, lanes)))

    arrays = [torch.as_tensor(values).to(dtype) for values in inputs]
    out = torch.empty_like(arrays[0])
    arrays += [arrays[0]] * (3 - count)
    run(kernel, len(out) // lanes, *arrays, out)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lanes", [1, 3, 16, 32])
def test_exponential(dtype, lanes):
    limit = 85.0 if dtype == torch.float32 else 700.0
    x = torch.linspace(-limit, limit, 96 * 100, dtype=dtype)
    wanted = np.exp(x.numpy().astype(np.longdouble))
    error = np.abs(applied(exp, lanes, dtype, x).numpy() / wanted - 1).max()
    assert error < (1.5e-7 if dtype == torch.float32 else 5e-16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exponential_stays_a_normal_number(dtype):
    x = torch.tensor([-1e4, 1e4, -torch.inf, torch.inf] * 4)
    values = applied(exp, 16, dtype, x)
    assert values.isfinite().all()
    assert (values > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu(dtype):
    silu = inline(lambda x: x * sigmoid(x))
    x = torch.linspace(-60, 60, 1600, dtype=dtype)
    torch.testing.assert_close(applied(silu, 16, dtype, x), torch.nn.functional.silu(x))
    assert (
        applied(silu, 4, dtype, torch.tensor([torch.nan, 1, 2, 3])).isnan().tolist() == [True] + [False] * 3
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_arithmetic(dtype):
    a, b, c = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    for function, wanted in (
        (inline(lambda a, b: a + b), a + b),
        (inline(lambda a, b: a - b), a - b),
        (inline(lambda a, b: a * b), a * b),
        (inline(lambda a, b: a / b), a / b),
        (inline(lambda a, b: larger(a, b)), torch.maximum(a, b)),
    ):
        torch.testing.assert_close(applied(function, 16, dtype, a, b), wanted, rtol=0, atol=0)
    torch.testing.assert_close(applied(fma, 8, dtype, a, b, c), a * b + c)


@pytest.mark.parametrize("dtype", DTYPES)
def test_total(dtype):
    spread = inline(lambda a: splat(total(a), 8))
    a = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = applied(spread, 8, dtype, a)
    torch.testing.assert_close(sums.view(8, 8)[:, 0], a.view(8, 8).sum(1))


def test_conversions():
    thirds = inline(lambda a: narrow(widen(a) / splat(3.0, 8)))
    a = torch.linspace(0, 1, 16)
    torch.testing.assert_close(applied(thirds, 8, torch.float32, a), a / 3)
