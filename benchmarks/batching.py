"""Time to make one batch of 128 molecules, and to open and sample a very large store, on one core.

    python benchmarks/batching.py                       # the bundled store, then a large made-up one
    python benchmarks/batching.py --store qm9.arrow     # any other store
    python benchmarks/batching.py --rows 3400000        # so many structures in the large one

Prints medians in milliseconds. The large store repeats one record batch, so that it is made quickly; it has
the size and layout of a real one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.bundled import bundled
from molspectra.data.neighbours import neighbour_edges
from molspectra.data.random import Purpose, normal
from molspectra.data.sampled import sampled_copy
from molspectra.data.schema import schema_of
from molspectra.data.store import Metadata, Row, Store, write_store

BATCH = 128
CUTOFF = 5.0
GRID = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3) * 1.4


def median_ms(work: Callable[[int], object], repeats: int = 50) -> float:
    """Median wall time of one call, after a warm-up."""
    times = []
    for k in range(-3, repeats):
        start = time.perf_counter()
        work(k)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])


def made_up_rows(n: int) -> Iterator[Row]:
    """Structures of random atoms on a grid, as large as those of PCQM4Mv2 with their hydrogens."""
    rng = np.random.default_rng(0)
    for k in range(n):
        size = int(rng.integers(20, 40))
        molecule = Molecule(rng.integers(1, 10, size), GRID[:size] + rng.normal(0, 0.05, (size, 3)))
        yield Row(molecule, identity=f"MADEUP{k:08d}")


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


def large(n: int, folder: Path) -> None:
    """Make, open and sample a store of n structures."""
    part = folder / "part.arrow"
    write_store(part, made_up_rows(4096), Metadata("made up", "CC0-1.0"))
    table = pa.ipc.open_file(part).read_all()
    chunks = pa.concat_tables([table] * 16).combine_chunks().to_batches()
    path = folder / "large.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema_of(Store(part).metadata)) as writer:
        for _ in range(-(-n // chunks[0].num_rows)):
            writer.write_batch(chunks[0])
    opening = median_ms(lambda k: Store(path), 5)
    store = Store(path)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(store), BATCH) for _ in range(400)]
    for each in rows:  # warms the page cache
        store.batch(each)
    print(f"{len(store):,} rows, {path.stat().st_size / 1e9:.2f} GB: opened in {opening:.0f} ms")
    sampling = median_ms(lambda k: store.batch(rows[k]), 300)
    print(f"random batch of {BATCH}:           {sampling:7.2f} ms")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="a store to take batches from")
    parser.add_argument("--rows", type=int, default=200_000, help="structures of the large store, 0 for none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(options.store) if options.store else bundled()
        batches(store)
        if store.metadata.lines:
            batches(sampled_copy(store, folder))
        if options.rows:
            large(options.rows, Path(folder))


if __name__ == "__main__":
    main()
