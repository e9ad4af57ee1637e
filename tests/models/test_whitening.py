import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from molspectra.models.equivariant_transformer import VectorWhitening
from molspectra.models.formulas import diagonalised, inverse_square_root

EPS = 1e-5


def orthogonal(seed):
    return torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double())[0]


def symmetric(values, seed=0):
    basis = orthogonal(seed)
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


def vectors_of_rank(rank, scale=1.0, channels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.randn(2, 3, rank, generator=generator),
        torch.randn(2, rank, channels, generator=generator),
    )
    return (left.double() @ right.double()) * scale


EIGENVALUES = [(1.0, 2.0, 3.0), (2.0, 2.0, 5.0), (4.0, 4.0, 4.0), (1e-5, 1e-5, 1.0), (1e-5, 1e-5, 1e-5)]


@pytest.mark.parametrize("values", EIGENVALUES)
def test_inverse_square_root(values):
    matrix = symmetric(values)
    root = inverse_square_root(matrix.unsqueeze(0))[0]
    torch.testing.assert_close(root @ matrix @ root, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(root, root.T, rtol=0, atol=1e-12 * float(root.abs().max()))


@pytest.mark.parametrize("values", EIGENVALUES[:3])
def test_inverse_square_root_derivatives_where_eigenvalues_coincide(values):
    # an argument that is not symmetric stands for its symmetric part
    def function(matrix):
        return inverse_square_root(0.5 * (matrix + matrix.mT))

    matrix = torch.stack([symmetric(values, seed) for seed in range(2)]).requires_grad_(True)
    assert gradcheck(function, matrix)
    assert gradgradcheck(function, matrix)


def test_reference_form_is_the_inverse_square_root():
    layer = VectorWhitening(6, "reference").double()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2.0, 6))
    vectors = vectors_of_rank(3)
    for own, whitened in zip(vectors, layer(vectors), strict=True):
        centred = own - own.mean(1, keepdim=True)
        matrix = centred @ centred.T / 6 + EPS * torch.diag(
            torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
        )
        values, basis = torch.linalg.eigh(matrix)
        expected = basis @ torch.diag(values**-0.5) @ basis.T @ centred * layer.weight
        torch.testing.assert_close(whitened, expected, rtol=1e-9, atol=1e-9)


def test_default_form_by_its_singular_values():
    """v = U s Wᵀ becomes U g(λ) s Wᵀ with λ = s²/C and g(λ) = λ/(λ + ε)^(3/2)."""
    vectors = vectors_of_rank(3, scale=0.01)
    centred = vectors - vectors.mean(-1, keepdim=True)
    left, singular, right = torch.linalg.svd(centred, full_matrices=False)
    eigenvalue = singular**2 / 6
    expected = left @ torch.diag_embed(eigenvalue * (eigenvalue + EPS) ** -1.5 * singular) @ right
    torch.testing.assert_close(VectorWhitening(6).double()(vectors), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 0.01), (1e3, 1e-8)])
def test_covariance_becomes_the_unit_matrix(scale, tolerance):
    whitened = VectorWhitening(6).double()(vectors_of_rank(3, scale))
    unit = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    torch.testing.assert_close(whitened @ whitened.mT / 6, unit, rtol=0, atol=tolerance)
    torch.testing.assert_close(whitened.mean(-1), torch.zeros(2, 3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_rotates_with_the_vectors():
    vectors, matrix = vectors_of_rank(3), orthogonal(5)
    layer = VectorWhitening(6).double()
    torch.testing.assert_close(layer(matrix @ vectors), matrix @ layer(vectors), rtol=0, atol=1e-12)


def test_rounding_outside_a_plane_stays_rounding():
    plane = vectors_of_rank(2)
    noise = 1e-12 * torch.randn(plane.shape, generator=torch.Generator().manual_seed(1)).double()
    layer = VectorWhitening(6).double()
    once = layer(plane + noise)
    assert torch.linalg.svdvals(once)[:, 2].max() < 1e-12
    assert torch.linalg.svdvals(once)[:, 1].min() > 0.5


@pytest.mark.parametrize("regulariser", ["isotropic", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e-3, 1.0, 1e5, 1e12])
def test_any_scale_and_rank_is_finite(regulariser, dtype, rank, scale):
    layer = VectorWhitening(6, regulariser).to(dtype)
    vectors = vectors_of_rank(rank, scale).to(dtype).requires_grad_(True)
    out = layer(vectors)
    (gradient,) = torch.autograd.grad(out.square().sum(), vectors, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), vectors, materialize_grads=True)
    assert out.dtype == dtype
    assert out.abs().max() < 10
    assert torch.isfinite(gradient).all()
    if 1e-8 < scale < 1e5:  # beyond, the second derivative itself leaves the range of float32
        assert torch.isfinite(second).all()
    if rank == 0:
        assert not out.any()
        assert not gradient.any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_in_its_row(bad):
    layer, vectors = VectorWhitening(6).double(), vectors_of_rank(3)
    expected = layer(vectors)
    vectors[1, 0, 2] = bad
    vectors.requires_grad_(True)
    out = layer(vectors)
    out[0].sum().backward()
    assert torch.equal(out[0], expected[0])
    assert out[1].isnan().all()
    assert torch.isfinite(vectors.grad[0]).all()


@pytest.mark.parametrize("regulariser", ["isotropic", "reference"])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_derivatives(regulariser, rank):
    layer = VectorWhitening(4, regulariser, eps=1e-2).double()
    vectors = vectors_of_rank(rank, 0.3, channels=4).requires_grad_(True)
    assert gradcheck(layer, vectors)
    assert gradgradcheck(layer, vectors)


def test_derivatives_for_equal_eigenvalues():
    layer = VectorWhitening(4, eps=1e-2).double()
    octahedron = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1], [0.5, 0.5, -0.5, -0.5]]).double()
    octahedron[2] *= 2**0.5
    values = torch.linalg.eigvalsh(octahedron @ octahedron.T)
    assert values.max() - values.min() < 1e-12
    vectors = octahedron.unsqueeze(0).requires_grad_(True)
    assert gradcheck(layer, vectors)
    assert gradgradcheck(layer, vectors)


@pytest.mark.parametrize(
    "values",
    [
        (1, 2, 3),
        (1e-5, 1e-5, 1),
        (1e-5, 1, 1),
        (1, 1, 1),
        (1e-5, 1e-3, 1e6),
        (0, 0, 0),
        (1, 1 + 1e-9, 1 - 1e-9),
    ],
)
def test_closed_form_agrees_with_the_eigen_solver(values):
    basis = torch.linalg.qr(torch.randn(50, 3, 3, dtype=torch.float64)).Q
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.mT
    matrix = 0.5 * (matrix + matrix.mT)
    found, vectors = diagonalised(matrix)
    rounding = 1e-14 * max(values)
    torch.testing.assert_close(
        found.sort(-1).values, torch.linalg.eigh(matrix).eigenvalues, rtol=0, atol=rounding
    )
    torch.testing.assert_close(vectors @ torch.diag_embed(found) @ vectors.mT, matrix, rtol=0, atol=rounding)
    one = torch.eye(3, dtype=torch.float64).expand(50, 3, 3)
    torch.testing.assert_close(vectors.mT @ vectors, one, rtol=0, atol=1e-14)
