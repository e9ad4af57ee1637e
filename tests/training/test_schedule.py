"""Learning rates by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molspectra.errors import InputError
from molspectra.training.schedule import Plateau, ScheduleConfig, learning_rate


def rates(config: ScheduleConfig, steps: int, total: int = 0) -> list[float]:
    return [learning_rate(config, 1.0, step, total) for step in range(steps)]


def test_warm_up_then_constant() -> None:
    assert rates(ScheduleConfig(kind="constant", warmup=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates(ScheduleConfig(kind="constant"), 2) == [1.0, 1.0]


def test_cosine_over_the_run() -> None:
    config = ScheduleConfig(kind="cosine", floor=0.0)
    assert rates(config, 5, total=4) == pytest.approx(
        [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]
    )
    assert rates(ScheduleConfig(kind="cosine", length=2, floor=0.2), 3) == pytest.approx([1.0, 0.6, 0.2])


def test_cosine_continues_from_the_peak_after_the_warm_up() -> None:
    config = ScheduleConfig(kind="cosine", warmup=2, length=6, floor=0.0)
    scale = 1.0 + math.cos(math.pi / 6)
    after = [(1.0 + math.cos(math.pi * step / 6)) / scale for step in range(2, 7)]
    assert rates(config, 7) == pytest.approx([0.5, 1.0, *after])
    assert after == sorted(after, reverse=True)
    assert after[0] < 1.0
    assert after[-1] == pytest.approx(0.0)


def test_restarts() -> None:
    config = ScheduleConfig(kind="restarts", length=2, factor=2, floor=0.0)
    half = 0.5 * (1 + math.cos(math.pi / 4))
    assert rates(config, 7) == pytest.approx([1.0, 0.5, 1.0, half, 0.5, 1 - half, 1.0])
    assert rates(ScheduleConfig(kind="restarts", length=2, factor=1, floor=0.0), 4) == [1.0, 0.5, 1.0, 0.5]


def plateaus(config: ScheduleConfig, losses: list[float]) -> list[Plateau]:
    states = [Plateau()]
    for loss in losses:
        states.append(states[-1].after(loss, config))
    return states[1:]


def test_a_plateau_shrinks_the_rate_after_patience() -> None:
    config = ScheduleConfig(kind="plateau", warmup=2, patience=1, shrink=0.5, floor=0.2, threshold=0.1)
    states = plateaus(config, [1.0, 0.95, 1.2, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4])
    assert [state.reductions for state in states] == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert [state.bad for state in states] == [0, 1, 0, 0, 1, 0, 1, 0, 0]
    assert states[1].best == 1.0  # 0.95 is not better by a tenth
    assert [learning_rate(config, 1.0, 5, reductions=r) for r in range(4)] == [1.0, 0.5, 0.25, 0.2]
    assert learning_rate(config, 1.0, 0, reductions=1) == 0.5  # the warm-up is not shrunk


@given(
    losses=st.lists(st.sampled_from([0.1, 0.5, 0.99995, 1.0, 1.00005, 2.0]), max_size=30),
    patience=st.integers(0, 4),
)
def test_the_plateau_is_that_of_torch(losses: list[float], patience: int) -> None:
    config = ScheduleConfig(kind="plateau", patience=patience, floor=0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.8, patience=patience)
    for loss, state in zip(losses, plateaus(config, losses), strict=True):
        theirs.step(loss)
        ours = learning_rate(config, 1.0, 3, reductions=state.reductions)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)


@pytest.mark.parametrize("bad", [{"shrink": 1.0}, {"shrink": 0.0}, {"patience": -1}, {"threshold": -0.1}])
def test_what_is_no_plateau_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="0 < shrink < 1"):
        ScheduleConfig(kind="plateau", **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["constant", "cosine", "restarts", "plateau"])
@pytest.mark.parametrize(("warmup", "length"), [(0, 0), (3, 0), (3, 3), (5, 3), (10, 10), (1, 1)])
def test_every_rate_lies_between_nothing_and_the_peak(kind: str, warmup: int, length: int) -> None:
    config = ScheduleConfig(kind=kind, warmup=warmup, length=length)  # type: ignore[arg-type]
    assert all(0.0 < rate <= 1.0 + 1e-12 for rate in rates(config, 40, total=40))


@pytest.mark.parametrize("bad", [{"warmup": -1}, {"length": -1}, {"factor": 0}, {"floor": -1e-9}])
def test_what_is_no_schedule_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="schedule: "):
        ScheduleConfig(**bad)  # type: ignore[arg-type]
