"""Learning rates by hand."""

import math

import pytest

from molspectra.errors import InputError
from molspectra.training.schedule import ScheduleConfig, learning_rate


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


@pytest.mark.parametrize("kind", ["constant", "cosine", "restarts"])
@pytest.mark.parametrize(("warmup", "length"), [(0, 0), (3, 0), (3, 3), (5, 3), (10, 10), (1, 1)])
def test_every_rate_lies_between_nothing_and_the_peak(kind: str, warmup: int, length: int) -> None:
    config = ScheduleConfig(kind=kind, warmup=warmup, length=length)  # type: ignore[arg-type]
    assert all(0.0 < rate <= 1.0 + 1e-12 for rate in rates(config, 40, total=40))


@pytest.mark.parametrize("bad", [{"warmup": -1}, {"length": -1}, {"factor": 0}, {"floor": -1e-9}])
def test_what_is_no_schedule_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="schedule: "):
        ScheduleConfig(**bad)  # type: ignore[arg-type]
