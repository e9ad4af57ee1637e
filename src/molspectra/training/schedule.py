"""Learning rates as pure functions of the optimizer step and, for the plateau, of the validations so far.

What is remembered of those is a `Plateau`, which a checkpoint holds; nothing else has a state.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from molspectra.errors import SettingError


@dataclass(frozen=True)
class ScheduleConfig:
    """Linear warm-up, then constant, one cosine, a cosine with warm restarts, or lower at each plateau."""

    kind: Literal["constant", "cosine", "restarts", "plateau"] = "cosine"
    """Shape after the warm-up; "plateau" shrinks the rate when the validation loss has stopped falling."""
    warmup: int = 0
    """Steps of linear warm-up."""
    length: int = 0
    """Cosine: step of the minimum; restarts: length of the first period; 0 takes the steps of the run."""
    factor: int = 2
    """Restarts: each period is this many times longer than the one before."""
    floor: float = 1e-7
    """Smallest learning rate."""
    shrink: float = 0.8
    """Plateau: factor on the learning rate."""
    patience: int = 30
    """Plateau: validations in a row without a better loss that are waited for before the rate shrinks."""
    threshold: float = 1e-4
    """Plateau: a loss is better if it is lower than the best by this share of it."""

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        if min(self.warmup, self.length, self.floor) < 0 or self.factor < 1:
            raise SettingError("schedule: warmup, length and floor must not be negative, factor at least 1")
        if not 0 < self.shrink < 1 or self.patience < 0 or not 0 <= self.threshold < 1:
            raise SettingError(
                "schedule: 0 < shrink < 1, patience >= 0 and 0 <= threshold < 1 are needed for a plateau"
            )


class Plateau(NamedTuple):
    """What the plateau schedule remembers of the validations so far."""

    best: float = math.inf
    """Lowest validation loss."""
    bad: int = 0
    """Validations in a row that were not better."""
    reductions: int = 0
    """How often the learning rate was shrunk."""

    def after(self, loss: float, config: ScheduleConfig) -> "Plateau":
        """The state after one more validation with this loss, as torch's ReduceLROnPlateau does."""
        if loss < self.best * (1.0 - config.threshold):
            return Plateau(loss, 0, self.reductions)
        if self.bad < config.patience:
            return self._replace(bad=self.bad + 1)
        return Plateau(self.best, 0, self.reductions + 1)


def learning_rate(
    config: ScheduleConfig, peak: float, step: int, total: int = 0, reductions: int = 0
) -> float:
    """Learning rate of optimizer step `step` (counted from 0).

    The cosine counts its angle from step 0 and starts from the peak when the warm-up ends; beyond its minimum
    it rises again, as the published schedule does.

    Args:
        config: the schedule.
        peak: learning rate at the end of the warm-up.
        step: optimizer step.
        total: steps of the whole run, used where `config.length` is 0.
        reductions: how often a plateau was met (`Plateau.reductions`).
    """
    if step < config.warmup:
        return peak * (step + 1) / config.warmup
    length = max(config.length or total, 1)
    span = peak - config.floor
    if config.kind == "constant":
        return peak
    if config.kind == "plateau":
        return max(peak * config.shrink**reductions, config.floor)
    if config.kind == "restarts":
        start, period = 0, length
        while step >= start + period:
            start, period = start + period, period * config.factor
        return config.floor + span * 0.5 * (1.0 + math.cos(math.pi * (step - start) / period))
    amplitude = 2.0
    if 0 < config.warmup <= length and step <= length:  # continue from the peak, reached in step warmup - 1
        amplitude = 1.0 + math.cos(math.pi * (config.warmup - 1) / length)
    return config.floor + span * (1.0 + math.cos(math.pi * step / length)) / amplitude
