"""Whitening and the update of a layer by compiled kernels, against plain torch."""

import pytest
import torch

pytest.importorskip("numba")

from molspectra.compiled import use
from molspectra.models.equivariant_transformer import VectorWhitening
from molspectra.models.formulas import plain_update
from molspectra.models.kernels.update import update

DTYPES = [torch.float64, torch.float32]


def vectors_of(channels, dtype):
    """Generic, thin, flat, vanishing, huge and equal-sided ones."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(200, 3, channels, generator=generator).to(dtype)
    vectors[:50] *= torch.tensor([1.0, 0.5, 1e-3], dtype=dtype).view(1, 3, 1)
    vectors[0] = 0
    vectors[1, 2] = 0
    vectors[2, 1:] = 0
    vectors[3] *= 1e-4
    vectors[4] *= 1e2
    vectors[5] = torch.eye(3, channels, dtype=dtype)
    return vectors


@pytest.mark.parametrize("regulariser", ["isotropic", "reference"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [4, 12, 63])
def test_whitening(regulariser, dtype, channels):
    module = VectorWhitening(channels, regulariser).to(dtype)
    generator = torch.Generator().manual_seed(1)
    module.weight.data += 0.3 * torch.randn(channels, generator=generator).to(dtype)
    weighting = torch.randn(200, 3, channels, generator=generator).to(dtype)
    results = []
    for choice in ("plain", "compiled"):
        with use(choice):
            vectors = vectors_of(channels, dtype).requires_grad_(True)
            out = module(vectors)
            results.append([out, *torch.autograd.grad(out, (vectors, module.weight), weighting)])
    for plain, ours in zip(*results, strict=True):
        scale = float(plain.detach().abs().max())
        tolerance = 3e-6 if dtype == torch.float32 else 1e-9
        torch.testing.assert_close(ours, plain, rtol=0, atol=tolerance * scale)


def test_whitening_has_exact_derivatives():
    module = VectorWhitening(4).double()
    vectors = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    vectors.requires_grad_(True)
    with use("compiled"):
        assert torch.autograd.gradcheck(module, (vectors,))
        assert torch.autograd.gradgradcheck(module, (vectors,), atol=1e-4)


def test_layout_of_vectors_does_not_matter():
    module = VectorWhitening(4).double()
    turned = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    turned.requires_grad_(True)
    with use("compiled"):
        assert torch.autograd.gradcheck(lambda transposed: module(transposed.mT), (turned,))
        assert torch.autograd.gradgradcheck(lambda transposed: module(transposed.mT), (turned,), atol=1e-4)


def test_not_a_number_stays_with_its_atom():
    vectors = vectors_of(8, torch.float32)
    vectors[7, 1, 2] = torch.nan
    vectors[8, 0, 0] = torch.inf
    with use("compiled"):
        out = VectorWhitening(8)(vectors)
    assert out[7:9].isnan().all()
    rest = torch.ones(200, dtype=torch.bool)
    rest[7:9] = False
    assert out[rest].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [5, 32])
def test_update(dtype, channels):
    generator = torch.Generator().manual_seed(0)
    shapes = [(70, channels), (70, 3, channels), (70, 3, 3 * channels), (70, 3 * channels), (70, 3, channels)]
    inputs = [torch.randn(shape, generator=generator).to(dtype).requires_grad_(True) for shape in shapes]
    ours, plain = update(*inputs), plain_update(*inputs)
    weights = [torch.randn(tensor.shape, generator=generator).to(dtype) for tensor in plain]
    torch.testing.assert_close(ours, plain)
    gradients = [torch.autograd.grad(outputs, inputs, weights) for outputs in (ours, plain)]
    torch.testing.assert_close(*gradients)
    if dtype == torch.float64 and channels == 5:
        small = [tensor[:2].detach().requires_grad_(True) for tensor in inputs]
        assert torch.autograd.gradgradcheck(update, small, fast_mode=True)
