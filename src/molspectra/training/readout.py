"""Numbers of a step on their way from the device to the host."""

from dataclasses import dataclass

import torch
from torch import Tensor

from molspectra.training.data import Micro


class Readout:
    """A copy of a few numbers that is under way, so that the device goes on with the next step meanwhile.

    Args:
        values: [n] on any device; on a GPU the copy waits its turn there, and nobody waits for it here.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers, as soon as they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found: list[float] = self._values.tolist()
        return found


@dataclass(frozen=True)
class Launched:
    """A step that the device was told to do, and what has to be known of it when its numbers are there."""

    step: int
    """Its number, from 1."""
    micros: list[Micro]
    """Its molecules, to name those that are to blame."""
    numbers: Readout
    """Sums of the losses, then the gradient's norm."""
    counts: dict[str, float]
    """Items of the losses."""
    rate: float
    """Learning rate."""
