"""Time to make one batch of 128 molecules, on one core.

    python benchmarks/batching.py                       # the bundled store
    python benchmarks/batching.py --store qm9.arrow     # any other store

Prints medians in milliseconds. `benchmarks/large_store.py` does it for a store of 3.4 million structures.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from molspectra.data.bundled import bundled
from molspectra.data.neighbours import neighbour_edges
from molspectra.data.random import Purpose, normal
from molspectra.data.sampled import sampled_copy
from molspectra.data.store import Store

BATCH = 128
CUTOFF = 5.0


def median_ms(work: Callable[[int], object], repeats: int = 50) -> float:
    """Median wall time of one call, after a warm-up."""
    times = []
    for k in range(-3, repeats):
        start = time.perf_counter()
        work(k)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def batches(store: Store) -> None:
    """Print the cost of the parts of a batch."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(store), BATCH) for _ in range(60)]
    modalities = store.metadata.modalities
    batch = store.batch(rows[0])
    counts, ids = batch.ptr.diff(), batch.geometry_id
    atoms = len(batch.numbers) / BATCH
    print(f"{store}: batches of {BATCH}, {atoms:.1f} atoms per molecule")
    plain = median_ms(lambda k: store.batch(rows[k]))
    print(f"structures alone:              {plain:7.2f} ms  ({1e3 * BATCH / plain:,.0f} molecules/s)")
    if modalities:
        full = median_ms(lambda k: store.batch(rows[k], modalities=modalities))
        label = f"with {len(modalities)} spectra:"
        print(f"{label:30} {full:7.2f} ms  ({1e3 * BATCH / full:,.0f} molecules/s)")
    edges = neighbour_edges(batch.positions, batch.ptr, CUTOFF)
    search = median_ms(lambda k: neighbour_edges(batch.positions, batch.ptr, CUTOFF))
    print(f"neighbour list (apart):        {search:7.2f} ms  ({len(edges)} edges)")
    noise = median_ms(lambda k: normal(0, k + 3, ids, Purpose.NOISE, counts, 3))
    print(f"noise for all atoms (apart):   {noise:7.2f} ms")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="a store to take batches from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(options.store) if options.store else bundled()
        batches(store)
        if store.metadata.lines:
            batches(sampled_copy(store, folder))


if __name__ == "__main__":
    main()
