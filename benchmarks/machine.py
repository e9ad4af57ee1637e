"""What a figure needs to be understood: the machine, the versions, and the rate of its matrix products."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from molspectra.training.record import commit, machine, versions

SIDE = 1024
"""Rows and columns of the matrices whose product is timed."""


def facts() -> dict[str, Any]:
    """Commit, machine, versions, threads and date."""
    found = versions()
    return {
        "commit": commit(),
        "machine": machine(),
        "torch": found["torch"],
        "numba": found["numba"],
        "torch_threads": torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
    }


def synchronise(device: torch.device) -> None:
    """Wait for what was started on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall time of a call."""
    device = device or torch.device("cpu")
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def median_of(work: Callable[[], object], repeats: int, device: torch.device | None = None) -> float:
    """Median wall time of a call, after one that does not count."""
    work()
    return statistics.median(seconds(work, device) for _ in range(repeats))


class MatrixRate:
    """Measures GFLOP/s of a float32 product of two square matrices."""

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32, side: int = SIDE) -> None:
        self.device, self.side = device, side
        self.left, self.right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        self.out = torch.empty_like(self.left)
        self()

    def __call__(self, repeats: int = 3) -> float:
        """The median rate of a few products."""
        times = [
            seconds(lambda: torch.mm(self.left, self.right, out=self.out), self.device)
            for _ in range(repeats)
        ]
        return 2 * self.side**3 / statistics.median(times) / 1e9


def spread(times: Sequence[float]) -> float:
    """Interquartile range over median; 0 for a single value."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle


def usage() -> tuple[float, float, float]:
    """Processor seconds of this process so far, those in the system among them, and page faults."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_stime, float(used.ru_minflt)


def peak_memory_gb() -> float:
    """The largest resident set that this process has had, in 10⁹ bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
