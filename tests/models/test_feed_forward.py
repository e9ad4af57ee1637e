"""The feed-forward part in chunks beside the same layers one after the other."""

import pytest
import torch

from molspectra.compiled import use
from molspectra.models import transformer_layer
from molspectra.models.transformer_layer import FeedForward


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr(transformer_layer, "CHUNK_ROWS", 4)
    torch.manual_seed(0)
    return FeedForward(3, 5).double()


def values_and_slopes(choice, layer, x):
    with use(choice):
        result = layer(x)
        return [result, *torch.autograd.grad(result.sin().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("shape", [(2, 5, 3), (8, 3), (1, 3)])
def test_equals_the_layers_one_after_the_other(layer, shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for ours, expected in zip(
        values_and_slopes("auto", layer, x), values_and_slopes("plain", layer, x), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_hidden_features_are_not_stored(layer):
    x, stored = torch.randn(20, 3, dtype=torch.float64, requires_grad=True), []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: stored.append(tensor) or tensor, lambda tensor: tensor
    )
    with use("auto"), hooks:
        layer(x)
    assert [tuple(tensor.shape) for tensor in stored] == [(20, 3), (5, 3), (5,), (3, 5), (3,)]


def test_second_derivatives(layer):
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    with use("auto"):
        assert torch.autograd.gradcheck(layer, x)
        assert torch.autograd.gradgradcheck(layer, x)


def test_second_derivatives_where_one_layer_follows_itself(layer):
    def penalty(choice):
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).requires_grad_()
        inputs = [x, *layer.parameters()]
        with use(choice):
            slopes = torch.autograd.grad(layer(layer(x)).sin().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), inputs)

    torch.testing.assert_close(penalty("auto"), penalty("plain"))


def test_autocast_and_frozen_weights(layer):
    x = torch.randn(6, 3, requires_grad=True)
    layer = layer.float().requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with use("auto"):
        (slope,) = torch.autograd.grad(layer(x).sum(), x)
        (again,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    torch.testing.assert_close(slope, again)
