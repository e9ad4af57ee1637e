import math

import pytest
import torch

from molspectra.objectives.supervised import Smoothed, auroc, class_loss, regression_loss

NAN = math.nan


@pytest.mark.parametrize(
    ("prediction", "target", "scale", "error", "total", "count"),
    [
        ([1.0, 2.0], [0.0, 4.0], 1.0, "mse", 5.0, 2),
        ([1.0, 2.0], [0.0, 4.0], 1.0, "mae", 3.0, 2),
        ([1.0, 2.0], [0.0, 4.0], 2.0, "mse", 1.25, 2),
        ([1.0, 2.0], [0.0, 4.0], 2.0, "mae", 1.5, 2),
        ([1.0, 2.0, 3.0], [NAN, 4.0, NAN], 1.0, "mse", 4.0, 1),
        ([1.0, 2.0], [NAN, NAN], 1.0, "mse", 0.0, 0),
        ([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [3.0, NAN, 0.0]], 1.0, "mse", 14.0, 5),
        ([], [], 1.0, "mse", 0.0, 0),
    ],
)
def test_regression_by_hand(prediction, target, scale, error, total, count):
    loss = regression_loss(torch.tensor(prediction), torch.tensor(target), scale, error)
    assert loss.sum.item() == pytest.approx(total)
    assert loss.count == count


def test_missing_labels_give_no_gradient():
    prediction = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    regression_loss(prediction, torch.tensor([NAN, 4.0, 3.5]), torch.tensor(0.5)).sum.backward()
    assert prediction.grad.tolist() == [0.0, -16.0, -4.0]


def test_a_prediction_that_is_not_a_number_is_not_hidden():
    assert math.isnan(regression_loss(torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0])).sum.item())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"predictions \(3,\), but targets \(3, 1\)"):
        regression_loss(torch.zeros(3), torch.zeros(3, 1))


@pytest.mark.parametrize("error", ["mse", "mae"])
def test_micro_batches_add_up(error):
    prediction, target = torch.randn(7, 3).double(), torch.randn(7, 3).double()
    target[2, 1] = NAN
    whole = regression_loss(prediction, target, 0.7, error)
    parts = [regression_loss(prediction[rows], target[rows], 0.7, error) for rows in (slice(3), slice(3, 7))]
    assert sum(part.sum.item() for part in parts) == pytest.approx(whole.sum.item(), rel=1e-12)
    assert sum(part.count for part in parts) == whole.count == 20


def test_smoothing_by_hand():
    """The first value is the start; then 0.25·new + 0.75·previous, with gradients of the new loss only."""
    smooth, weight = Smoothed(0.25), torch.tensor(1.0, requires_grad=True)
    values = []
    for factor in (8.0, 4.0, 0.0):
        result = smooth(weight * factor)
        (gradient,) = torch.autograd.grad(result, weight)
        values.append((result.item(), gradient.item()))
    assert values == [(8.0, 2.0), (7.0, 1.0), (5.25, 0.0)]


def test_smoothing_continues_from_its_state():
    first, second = Smoothed(0.5), Smoothed(0.5)
    first(torch.tensor(8.0))
    second.load_state_dict(first.state_dict())
    assert second(torch.tensor(2.0)).item() == first(torch.tensor(2.0)).item() == 5.0


def test_no_smoothing():
    smooth, loss = Smoothed(1.0), torch.tensor(3.0)
    smooth(torch.tensor(9.0))
    assert smooth(loss) is loss


def test_cross_entropy_by_hand():
    """Of labels 1, 0 and none with logits ln 3, 0 and anything: -ln 3/4 - ln 1/2; none has no gradient."""
    logit = torch.tensor([math.log(3.0), 0.0, 7.0], requires_grad=True)
    loss = class_loss(logit, torch.tensor([1.0, 0.0, NAN]))
    loss.sum.backward()
    assert loss.count == 2
    assert loss.sum.item() == pytest.approx(math.log(4 / 3) + math.log(2))
    assert logit.grad.tolist() == pytest.approx([-0.25, 0.5, 0.0])
    assert class_loss(torch.tensor([200.0, -200.0]), torch.tensor([0.0, 1.0])).sum.item() == 400.0
    assert class_loss(torch.zeros(2), torch.full((2,), NAN)).count == 0
    with pytest.raises(ValueError, match=r"logits \(3,\), but labels \(3, 1\)"):
        class_loss(torch.zeros(3), torch.zeros(3, 1))


@pytest.mark.parametrize(
    ("score", "label", "area"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 1.0),
        ([0.1, 0.2, 0.3, 0.4], [1, 1, 0, 0], 0.0),
        ([0.1, 0.4, 0.3, 0.35], [0, 0, 1, 1], 0.5),
        ([2.0, 2.0, 2.0], [0, 1, 1], 0.5),
        ([-1.0, 3.0, 3.0, 5.0], [0, 0, 1, 1], 3.5 / 4),
    ],
)
def test_area_by_hand(score, label, area):
    assert auroc(score, label) == area


def test_one_class_has_no_area():
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))
    assert math.isnan(auroc([], []))
