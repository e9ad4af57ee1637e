"""What the figures are compared with: times of the reference implementation, floors and goals.

The reference's seconds were measured elsewhere, on 2 cores of the same kind of machine, in float32, with the
models of the paper and QM9 molecules of 16.6 atoms; they say where this project started. On another machine
only the efficiency, and the ratio to plain torch in the same run, can be compared.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What is asked of a kind of step."""

    reference_seconds: float
    """Seconds of the reference implementation at `batch`, with a tuned allocator."""
    batch: int
    """Molecules of a step."""
    floor: float
    """How many times faster a step must be at least."""
    goal: float
    """How many times faster it should be."""
    efficiency: tuple[float, float] | None = None
    """Floor and goal of the efficiency."""
    memory_gb: float | None = None
    """Largest resident set allowed."""


STEPS = {
    "qm9-stage1": Goal(6.4, 128, 2.0, 3.0, (0.6, 0.8), 3.0),
    "qm9-stage2": Goal(17.4, 128, 1.8, 3.0, (0.5, 0.75), 4.0),
    "qm9-finetune": Goal(6.8, 128, 2.0, 3.0),
    "md17-finetune": Goal(0.72, 8, 2.5, 4.0, (0.3, 0.45)),
    "qm9-inference": Goal(2.6, 128, 2.0, 3.0, None, 1.0),
    "md17-force": Goal(0.060, 1, 4.0, 8.0),
}
"""Kinds of steps of `benchmarks.steps`. A force evaluation of the reference took 57 to 68 ms."""

BFLOAT = (3.0, 5.0)
"""Floor and goal of the speed-up over the reference's float32 with bf16, stages 1 and 2."""

DEFAULT_ALLOCATOR = (18.0, 6.0)
"""Seconds of the reference's stage 1 with glibc's own settings, and the floor of the speed-up over that."""

LOADER = {"structures alone": 100_000, "with 3 spectra": 8_000}
"""Molecules per second on one core that are asked for."""

LOADER_SHARE = 0.03
"""Largest share of a step that making its batch may take."""

SIMULATION = {"IR and Raman": 1.0, "IR, Raman and UV-Vis": 8.0}
"""Largest number of CPU-seconds for C7H10O2."""

STARTUP = 0.5
"""Largest number of CPU-seconds until a command has told its help or what is mistyped."""
