"""Products in registers and powers of two beside NumPy."""

import numpy as np
import pytest

pytest.importorskip("numba")

from molspectra.compiled.product import decay, product
from molspectra.compiled.simd import inline, load, store


@inline
def multiply(scratch, begin, begin_row, count):
    """C [3, 8] at 0 from A [3, count] at 100 and B [count, 8] at 200."""
    product(scratch, 0, 8, begin, begin_row, 100, count, 1, 200, 8, count, 3, 2, 4)


@inline
def powers(array):
    for place in range(0, len(array), 8):
        store(array, place, decay(load(array, place, 8)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_product(dtype, count):
    scratch = np.random.default_rng(0).random(300).astype(dtype)
    a = scratch[100 : 100 + 3 * count].reshape(3, count)
    b = scratch[200 : 200 + 8 * count].reshape(count, 8)
    row, before = scratch[50:58].copy(), scratch[:24].reshape(3, 8).copy()
    multiply(scratch, 50, 0, count)  # the same start in every row
    np.testing.assert_allclose(scratch[:24].reshape(3, 8), row + a @ b, rtol=1e-6)
    scratch[:24] = before.ravel()
    multiply(scratch, 0, 8, count)  # added to what is there
    np.testing.assert_allclose(scratch[:24].reshape(3, 8), before + a @ b, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2.5e-7), (np.float64, 5e-16)])
def test_powers_of_two(dtype, tolerance):
    numbers = np.concatenate([-(np.random.default_rng(0).random(6000) ** 2) * 120, [0, -1, -0.5, -125] * 2])
    values = numbers.astype(dtype)
    expected = np.exp2(values.astype(np.longdouble))
    powers(values)
    np.testing.assert_allclose(values, expected.astype(np.float64), rtol=tolerance)


def test_powers_far_below_are_small_and_nan_stays():
    payload = np.array([0x7FC001FF], dtype=np.uint32).view(np.float32)[0]
    values = np.array([-1e4, -np.inf, np.nan, payload, -200, 0, -1, -2], dtype=np.float32)
    powers(values)
    assert np.isnan(values[2:4]).all()
    assert values[[0, 1, 4, 5, 6, 7]] == pytest.approx([2.0**-125] * 3 + [1.0, 0.5, 0.25], rel=1e-6)
