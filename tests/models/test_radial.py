import math

import pytest
import torch

from molspectra.models.formulas import ExponentialNormal, cosine_cutoff


def test_cutoff_values():
    distance = torch.tensor([0.0, 1.25, 2.5, 5.0 / 3.0 * 2.0, 5.0, 7.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.5 + 2**0.5 / 4, 0.5, 0.25, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(cosine_cutoff(distance, 5.0), expected)


def test_cutoff_is_flat_at_both_ends():
    distance = torch.tensor([0.0, 5.0, 5.0 - 1e-7], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(cosine_cutoff(distance, 5.0).sum(), distance)
    assert slope.abs().max() < 1e-6


def test_basis_by_hand():
    """Three functions: centres e⁻⁵, (1 + e⁻⁵)/2, 1 and β = (2/3·(1 - e⁻⁵))⁻²."""
    basis = ExponentialNormal(3, 5.0).double()
    low = math.exp(-5)
    centres = [low, (1 + low) / 2, 1.0]
    beta = 1 / (2 / 3 * (1 - low)) ** 2
    for distance in (0.0, 0.7, 2.5, 4.9):
        phi = 0.5 * (math.cos(math.pi * distance / 5) + 1)
        expected = [phi * math.exp(-beta * (math.exp(-distance) - centre) ** 2) for centre in centres]
        row = basis(torch.tensor([distance], dtype=torch.float64))[0]
        assert row.tolist() == pytest.approx(expected, rel=1e-6)  # centres are stored in float32
    assert not basis(torch.tensor([5.0, 8.0])).any()


def test_basis_is_no_parameter():
    basis = ExponentialNormal(4, 5.0)
    assert not list(basis.parameters())
    assert set(basis.state_dict()) == {"means", "betas"}
