import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from molspectra.objectives.loss import Loss


@pytest.mark.parametrize(("total", "count", "mean"), [(6.0, 4.0, 1.5), (6.0, 1.0, 6.0), (0.0, 0.0, 0.0)])
def test_mean(total, count, mean):
    assert Loss(torch.tensor(total), count).mean.item() == mean


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, values):
        return {"one": Loss((self.weight * values).sum(), 2.0)}


def test_losses_pass_through_fabric():
    """Fabric looks for tensors in what a wrapped module returns."""
    module = Pair()
    fabric = Fabric(accelerator="cpu", devices=1)
    wrapped, _ = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=1.0))
    loss = wrapped(torch.tensor([1.0, 3.0]))["one"]
    fabric.backward(loss.mean)
    assert module.weight.grad.tolist() == [0.5, 1.5]
