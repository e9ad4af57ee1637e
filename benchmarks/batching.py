"""Time to make one batch of 128 molecules, and to open and sample a very large store, on one core.

    python benchmarks/batching.py                          # the bundled store, or a made-up one where it is missing
    python benchmarks/batching.py --store qm9.arrow        # any other store
    python benchmarks/batching.py --rows 3400000           # the made-up large store of so many structures

Prints medians in milliseconds. The large store repeats one record batch, so that it is made in a minute; it has the
size and layout of a real one.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.bundled import bundled, bundled_path
from molspectra.data.random import Purpose, normal
from molspectra.data.schema import schema_of
from molspectra.data.store import Metadata, Row, Store, write_store
from molspectra.spectra.spectrum import LineSpectrum

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


def made_up_rows(n: int, atoms: tuple[int, int], spectra: bool) -> list[Row]:
    """Structures of random atoms on a grid, with as many lines as molecules of that size have."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(n):
        size = int(rng.integers(*atoms))
        molecule = Molecule(rng.integers(1, 10, size), GRID[:size] + rng.normal(0, 0.05, (size, 3)))
        lines = {}
        for name, low, high, count in (("uv_vis", 4, 16, 138), ("ir", 50, 4e3, 51), ("raman", 50, 4e3, 51)):
            position = np.sort(rng.uniform(low, high, count))
            lines[name] = LineSpectrum(name, position, rng.uniform(0, 1, count) ** 4)
        rows.append(Row(molecule, lines if spectra else {}, identity=f"MADEUP{k:08d}"))
    return rows


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
    edges = median_ms(lambda k: batch.with_edges(CUTOFF))
    print(f"neighbour list (apart):        {edges:7.2f} ms  ({len(batch.with_edges(CUTOFF).edges)} edges)")
    noise = median_ms(lambda k: normal(0, k + 3, ids, Purpose.NOISE, counts, 3))
    print(f"noise for all atoms (apart):   {noise:7.2f} ms")


def large(n: int, folder: Path) -> None:
    """Make, open and sample a store of n structures."""
    part = folder / "part.arrow"
    write_store(part, made_up_rows(min(n, 8192), (20, 40), spectra=False), Metadata("made up", "CC0-1.0"))
    chunks = pa.ipc.open_file(part).read_all().combine_chunks().to_batches()
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
        if options.store:
            store = Store(options.store)
        elif bundled_path().is_file():
            store = bundled()
        else:
            lines = dict.fromkeys(("uv_vis", "ir", "raman"), "")
            path = Path(folder) / "made-up.arrow"
            write_store(
                path, made_up_rows(2000, (9, 23), spectra=True), Metadata("made up", "CC0-1.0", lines=lines)
            )
            store = Store(path)
        batches(store)
        if options.rows:
            large(options.rows, Path(folder))


if __name__ == "__main__":
    main()
