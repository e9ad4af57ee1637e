"""Learning rates as pure functions of the optimizer step, so that resuming needs no scheduler state."""

import math
from dataclasses import dataclass
from typing import Literal

from molspectra.errors import InputError


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then constant, one cosine, or a cosine with warm restarts."""

    kind: Literal["constant", "cosine", "restarts"] = "cosine"
    """Shape after the warm-up."""
    warmup: int = 0
    """Steps of linear warm-up."""
    length: int = 0
    """Cosine: step of the minimum; restarts: length of the first period; 0 takes the steps of the run."""
    factor: int = 2
    """Restarts: each period is this many times longer than the one before."""
    floor: float = 1e-7
    """Smallest learning rate."""

    def __post_init__(self) -> None:
        """Refuse what is no schedule.

        Raises:
            InputError: a negative length or rate, or periods that shrink to nothing.
        """
        if min(self.warmup, self.length, self.floor) < 0 or self.factor < 1:
            raise InputError("schedule: warmup, length and floor must not be negative, factor at least 1")


def learning_rate(config: ScheduleConfig, peak: float, step: int, total: int = 0) -> float:
    """Learning rate of optimizer step `step` (counted from 0).

    The cosine counts its angle from step 0 and starts from the peak when the warm-up ends; beyond its minimum
    it rises again, as the published schedule does.

    Args:
        config: the schedule.
        peak: learning rate at the end of the warm-up.
        step: optimizer step.
        total: steps of the whole run, used where `config.length` is 0.
    """
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    length = max(config.length or total, 1)
    span = peak - config.floor
    if config.kind == "constant":
        return peak
    if config.kind == "restarts":
        start, period = 0, length
        while step >= start + period:
            start, period = start + period, period * config.factor
        return config.floor + span * 0.5 * (1.0 + math.cos(math.pi * (step - start) / period))
    amplitude = 2.0
    if 0 < config.warmup <= length and step <= length:  # continue from the peak, reached in step warmup - 1
        amplitude = 1.0 + math.cos(math.pi * (config.warmup - 1) / length)
    return config.floor + span * (1.0 + math.cos(math.pi * step / length)) / amplitude
