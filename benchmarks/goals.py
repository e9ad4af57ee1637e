"""What the figures are compared with: the reference implementation's efficiency, and goals.

The reference was measured side by side with this package on 28 November 2026: the same molecules and batches
by turns, 2 cores, 2 threads, float32, its allocator tuned. It does not run here. What can be compared later
and on another machine is the efficiency, in which the machine's own matrix rate cancels: that of this package
over that of the reference is how many times faster it is. The reference's efficiency is this package's of the
paired runs, times its seconds over those of the reference, for the same operations at the same rate.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What is asked of a kind of step."""

    batch: int
    """Molecules of a step."""
    reference: float
    """Efficiency of the reference implementation in the paired runs."""
    times: float
    """How many times faster a step should be, in its mode `reference`."""
    default_times: float | None = None
    """The same with this package's own defaults; None where that is not asked for."""
    memory_gb: float | None = None
    """Largest resident set allowed."""
    seconds: float | None = None
    """Longest time allowed, on two cores of the kind that the goals were set on."""
    missed: str = ""
    """What limits it and what to try next, told where a goal is missed."""


_ALL_PRODUCTS = (
    "the efficiency is near 1: the step takes about as long as the plain algorithm's matrix products alone; "
    "only fewer products help (fewer grid rows of filters, bf16-mixed)"
)

STEPS = {
    "qm9-stage1": Goal(128, 0.306, 4.0, None, 3.0, missed=_ALL_PRODUCTS),
    "qm9-stage2": Goal(
        64,
        0.254,
        3.0,
        4.0,
        4.0,
        missed=(
            "half is attention among 347 tokens; next: patches side by side (`stride: patch`), 1.5 times "
            "faster again, at a loss with 100 labels (docs/benchmarks.md); or bf16-mixed"
        ),
    ),
    "qm9-finetune": Goal(128, 0.290, 4.0, None, 3.0, missed=_ALL_PRODUCTS),
    "md17-finetune": Goal(
        8,
        0.125,
        4.0,
        missed=(
            "thin products (32 radial functions, 168 atoms) at half of the rate, and 30 ms that do not "
            "depend on the batch; next: a layer with its second derivative in one kernel"
        ),
    ),
    "qm9-inference": Goal(
        128,
        0.281,
        5.0,
        None,
        1.0,
        missed="what is left are matrix products; next: bf16, filters of pairs once",
    ),
    "md17-force": Goal(
        1,
        0.0635,
        5.0,
        seconds=0.005,
        missed=(
            "matrix products of 21 rows, a fifth in edge kernels on one thread, and some 200 calls from "
            "Python; next: fewer and larger calls, such as one product for query, key and value"
        ),
    ),
}
"""Kinds of steps of `benchmarks.steps`."""

CALCULATOR = 0.006
"""Longest time, seconds, of aspirin's energy and forces through the ASE calculator."""

EXACT, APPROXIMATE, RECALL = 45.0, 2.0, 0.98
"""Longest times of a query among a million vectors of width 256, ms of one core; recall of the second."""

LOADER = {"structures alone": 100_000, "with 3 spectra": 8_000}
"""Molecules per second on one core that are asked for."""

LOADER_SHARE = 0.03
"""Largest share of a step that making its batch may take."""

SIMULATION = {"IR and Raman": 1.0, "IR, Raman and UV-Vis": 8.0}
"""Largest number of CPU-seconds for C7H10O2."""

STARTUP = 0.5
"""Largest number of CPU-seconds until a command has told its help or what is mistyped."""

MISSED = {
    "calculator": (
        "the raw call is the larger part, and in float64 its products and kernels take twice as long; next: "
        "fewer and larger calls"
    ),
    "exact search": (
        "a query reads the whole gigabyte of vectors, so memory bounds it; next: several queries at once, "
        "or a first pass over vectors in half precision"
    ),
    "approximate search": (
        "the time is that of the lists which the stated recall needs; next: more and shorter lists where "
        "vectors cluster"
    ),
    "startup": (
        "a command imports what its help does not need; next: the largest import of "
        "`python -X importtime -m molspectra COMMAND --help` moves to where it is used"
    ),
}
"""The same for calculator, search and startup."""
