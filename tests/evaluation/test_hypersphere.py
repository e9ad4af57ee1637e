"""Alignment and uniformity of points on a circle, computed by hand."""

import math

import pytest
import torch

from molspectra.errors import ValueRangeError
from molspectra.evaluation import hypersphere
from molspectra.evaluation.hypersphere import alignment, uniformity


def on_circle(*degrees):
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_alignment_by_hand():
    """Squared chords of 0, 60, 90 and 180 degrees are 0, 1, 2 and 4; lengths do not matter."""
    one, other = 3.0 * on_circle(10, 10, 10, 10), 0.2 * on_circle(10, 70, 100, 190)
    assert alignment(one, other) == pytest.approx(7 / 4)
    assert alignment(one[:2], one[:2]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("chunk", [1024, 3])
def test_uniformity_of_a_square_by_hand(monkeypatch, chunk):
    """Every corner has two neighbours at a squared distance of 2 and one at 4."""
    monkeypatch.setattr(hypersphere, "CHUNK", chunk)
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert uniformity(5.0 * on_circle(0, 90, 180, 270)) == pytest.approx(expected)


def test_uniformity_is_zero_of_one_point_and_minus_four_at_right_angles():
    assert uniformity(on_circle(20, 20, 20)) == pytest.approx(0.0, abs=1e-12)
    assert uniformity(torch.eye(5, dtype=torch.float64)) == pytest.approx(-4.0)


def test_spread_points_are_more_uniform():
    assert uniformity(on_circle(0, 120, 240)) < uniformity(on_circle(0, 10, 20)) < 0


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueRangeError, match="pair"):
        alignment(torch.empty(0, 2), torch.empty(0, 2))
    with pytest.raises(ValueRangeError, match="two"):
        uniformity(torch.ones(1, 2))
