import pytest
import torch

from molspectra.objectives.loss import Loss


@pytest.mark.parametrize(("total", "count", "mean"), [(6.0, 4.0, 1.5), (6.0, 1.0, 6.0), (0.0, 0.0, 0.0)])
def test_mean(total, count, mean):
    assert Loss(torch.tensor(total), count).mean.item() == mean
