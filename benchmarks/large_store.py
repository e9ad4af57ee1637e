"""Time to open a store of 3.4 million structures the size of PCQM4Mv2's, and to take random batches from it.

    python benchmarks/large_store.py                        # in a temporary folder, 1.8 GB
    python benchmarks/large_store.py --keep build/large     # written once, measured again at each call
    python benchmarks/large_store.py --rows 1000000 --shards 1 10 100   # in folders of so many shards
    python benchmarks/large_store.py --json result.json

Structures are made up (random elements and coordinates, 8 to 52 atoms, 30 on average) but written by the
store's own writer, in parts of 50,000 rows as `molspectra prepare` writes them. The file is read once, so
that it lies in the page cache, then opened, all offsets checked, and 1,000 batches of 128 random rows are
taken by one thread. A store in shards is opened by its manifest alone, and checks each shard when it is first
needed: that is in the time of the first batch, measured on nine stores opened anew. Nothing waits for a disk,
so that the aims are compared with processor time, which a busy machine does not change much; wall time is
shown beside it. Prints text and JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from molspectra.data.store.schema import Metadata, schema_of
from molspectra.data.store.shard_writer import add_shards
from molspectra.data.store.store import Store
from molspectra.data.store.writer import write_batches

ROWS = 3_400_000
PART = 50_000
BATCH = 128
BATCHES = 1_000
METADATA = Metadata("made up", "CC0-1.0", level="none")
OPEN_SECONDS, BATCH_MS = 1.0, 2.0
"""What is aimed at."""


def made_up(rows: int, schema: pa.Schema, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Record batches of random structures."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, PART):
        count = min(PART, rows - start)
        sizes = np.clip(rng.normal(30, 6, count), 8, 52).astype(np.int64)
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]))
        atoms = int(sizes.sum())
        numbers = rng.choice(np.array([1, 6, 7, 8, 9], np.uint8), atoms)
        positions = rng.normal(0, 3, 3 * atoms).astype(np.float32)
        types = {name: schema.field(name).type for name in schema.names}
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(positions), type=types["positions"].value_type)
        names = range(start, start + count)
        columns = {
            "identity": pa.array([f"MADEUP{k:08d}" for k in names], types["identity"]),
            "smiles": pa.nulls(count, types["smiles"]),
            "name": pa.array([f"pcqm4m-v2 {k}" for k in names], types["name"]),
            "charge": pa.array(np.zeros(count, np.int32)),
            "geometry_id": pa.array(rng.integers(-(2**63), 2**63 - 1, count)),
            "numbers": pa.LargeListArray.from_arrays(offsets, pa.array(numbers), type=types["numbers"]),
            "positions": pa.LargeListArray.from_arrays(offsets, vectors, type=types["positions"]),
        }
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor time of a call, s."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def summary(times: list[tuple[float, float]], scale: float, digits: int) -> dict[str, float]:
    """Median wall and processor time, and the processor time that 95 % stay below."""
    wall, processor = ([scale * each[k] for each in times] for k in (0, 1))
    return {
        "processor": round(statistics.median(processor), digits),
        "processor_95": round(sorted(processor)[int(0.95 * len(processor))], digits),
        "wall": round(statistics.median(wall), digits),
    }


def warm(path: Path) -> None:
    """Read a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def measure(path: Path) -> dict[str, object]:
    """Time the opening, the first batch and the batches."""
    files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    for file in files:
        warm(file)
    opening = [timed(lambda: Store(path)) for _ in range(9)]
    store = Store(path)
    rng = np.random.default_rng(1)
    chosen = [rng.integers(0, len(store), BATCH) for _ in range(BATCHES)]
    first = [timed(lambda store=store: store.batch(chosen[0])) for store in [Store(path) for _ in range(9)]]
    store.batch(np.arange(0, len(store), len(store) // 1000))  # of every shard
    opened = summary(opening, 1.0, 5)
    batch = summary([timed(lambda rows=rows: store.batch(rows)) for rows in chosen], 1e3, 2)
    return {
        "rows": len(store),
        "shards": len(files) if path.is_dir() else None,
        "gigabytes": round(sum(file.stat().st_size for file in files) / 1e9, 2),
        "atoms_per_structure": round(float(store.atom_counts[:100_000].mean()), 1),
        "open_s": opened,
        "first_batch_s": summary(first, 1.0, 5),
        "batch_ms": batch,
        "aims": {"open_s": OPEN_SECONDS, "batch_ms": BATCH_MS},
        "met": opened["processor"] < OPEN_SECONDS and batch["processor"] <= BATCH_MS,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "torch": torch.__version__,
    }


def run(folder: Path, rows: int, shards: int | None) -> dict[str, object]:
    """Write the store unless it is there, and measure it."""
    path = folder / (f"made-up-{rows}.arrow" if shards is None else f"made-up-{rows}-{shards}")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        schema = schema_of(METADATA)
        if shards is None:
            writing, _ = timed(lambda: write_batches(path, made_up(rows, schema), schema))
        else:
            sizes = (len(part) for part in np.array_split(np.arange(rows), shards))
            groups = (made_up(size, schema, seed) for seed, size in enumerate(sizes))
            writing, _ = timed(lambda: add_shards(path, groups, METADATA))
        print(f"written in {writing:.0f} s: {path}")
    return measure(path)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="folder where the store stays for the next time")
    parser.add_argument("--rows", type=int, default=ROWS, help="structures of the store")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--shards", type=int, nargs="+", help="folders of so many shards, not one file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = [run(options.keep or Path(folder), options.rows, n) for n in options.shards or [None]]
    text = json.dumps(results if options.shards else results[0], indent=1)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    for result in results:
        opened, first, batch = result["open_s"], result["first_batch_s"], result["batch_ms"]
        where = f"{result['shards']} shards" if result["shards"] else "one file"
        print(f"{result['rows']:,} structures, {result['gigabytes']} GB, {where}")
        print(
            f"opened in {opened['processor']} s of processor time, {opened['wall']} s "
            f"(aim: {OPEN_SECONDS:g} s), first batch in {first['processor']} s, {first['wall']} s"
        )
        print(f"batch of {BATCH} in {batch['processor']} ms, {batch['wall']} ms (aim: {BATCH_MS:g} ms)")
    print(text)


if __name__ == "__main__":
    main()
