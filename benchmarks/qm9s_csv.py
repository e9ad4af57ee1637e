"""Speed and memory of reading QM9S: tables of spectra in the published format, and the list of structures.

    python benchmarks/qm9s_csv.py                 # tables of 100, 200 and 400 MB in a temporary folder
    python benchmarks/qm9s_csv.py --sizes 50 100

For every size: (1) rows of one IR table read and turned into numbers, (2) the whole preparation of a store
from IR and Raman tables of that size with structures, and (3) the time to look up the last row, as the check
of the join does with rows all over the table. One core; each measurement in a process of its own, whose peak
memory it is.
"MB/s CPU" divides by processor time, which other programs on the machine disturb less than the wall time.
If the rate does not depend on the size, 8.2 GB take 8200 MB / rate.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molspectra.data.store.bundled import bundled
from molspectra.datasets.formats.pickled import load_pickled
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.qm9s_join import groups_of
from molspectra.datasets.published.qm9s_spectra import SpectrumTable
from molspectra.errors import FormatError
from molspectra.spectra.modality import IR

DISTINCT = 199
PUBLISHED_MB = 8_200
OTHER_TENSORS = 14
"""Tensors of an entry of the published list besides pos, z and edge_index."""


def lines(seed: int) -> list[bytes]:
    """Cells of one spectrum per molecule, with the bands of its groups; numbers in full length."""
    store, random = bundled(), np.random.default_rng(seed)
    found = []
    for row in range(DISTINCT):
        molecule = store.molecule(row)
        groups = groups_of(molecule.numbers, molecule.positions)
        bands = [(random.uniform(600, 1700), random.uniform(1, 50)) for _ in range(20)]
        for group, place in (
            ("hydroxyl", 3680.0),
            ("amine", 3420.0),
            ("triple", 2210.0),
            ("hydrogen", 2960.0),
        ):
            bands += [(place, 40.0)] * groups[group]
        values = sum(height * 6 / np.pi / ((IR.axis() - place) ** 2 + 36) for place, height in bands)
        found.append((",".join(repr(float(value)) for value in np.asarray(values)) + "\n").encode())
    return found


def write_table(path: Path, megabytes: float, seed: int) -> int:
    """Write a table of about that size and return its number of rows."""
    cells, row = lines(seed), 0
    with path.open("wb") as file:
        file.write(("," + ",".join(repr(float(each)) for each in IR.axis()) + "\n").encode())
        while file.tell() < megabytes * 1e6:
            file.write(b"%d," % row + cells[row % DISTINCT])
            row += 1
    return row


def write_list(path: Path, rows: int) -> None:
    """Write structures as a list of entries with as many tensors as the published one has."""
    store, random = bundled(), np.random.default_rng(0)
    molecules = [store.molecule(row) for row in range(DISTINCT)]
    entries = []
    for row in range(rows):
        one = molecules[row % DISTINCT]
        moved = one.positions + random.normal(0, 1e-3, one.positions.shape)
        entry = {"number": row + 1, "smile": one.smiles, "z": torch.tensor(one.numbers)}
        entry |= {"pos": torch.tensor(moved, dtype=torch.float32), "edge_index": torch.zeros(2, 40).long()}
        entry |= {f"field{k}": torch.zeros(1, 3, 3) for k in range(OTHER_TENSORS)}
        entries.append(entry)
    torch.save(entries, path)


def make(folder: Path, megabytes: float) -> None:
    """Write all files."""
    rows = write_table(folder / "ir_boraden.csv", megabytes, 0)
    write_table(folder / "raman_boraden.csv", megabytes, 0)
    write_list(folder / "qm9s.pt", rows)
    print(f"tables of {megabytes:g} MB, {rows} rows", flush=True)


def read_rows(folder: Path) -> tuple[float, str]:
    """Read one table from its first to its last row."""
    table = SpectrumTable(folder / "ir_boraden.csv", IR)
    count = sum(not isinstance(samples, FormatError) for samples in table.spectra())
    return table.path.stat().st_size, f"{count} rows"


def find_last(folder: Path) -> tuple[float, str]:
    """Find the last row."""
    table = SpectrumTable(folder / "ir_boraden.csv", IR)
    table.spectrum(table.rows - 1)
    return 0.0, ""


def prepare_all(folder: Path) -> tuple[float, str]:
    """Prepare a store."""
    report = prepare("qm9s", folder, folder / "out.arrow", overwrite=True, show=False)
    sizes = sum((folder / f"{name}_boraden.csv").stat().st_size for name in ("ir", "raman"))
    return sizes, f"{report.tally.rows} rows"


def read_list(folder: Path) -> tuple[float, str]:
    """Read all entries of the list."""
    count = sum("pos" in entry for entry in load_pickled(folder / "qm9s.pt"))
    return 0.0, f"{count} entries"


def measured(work: Callable[[Path], tuple[float, str]], folder: Path, queue: Any) -> None:
    """Run one measurement in this process and put (bytes, text, wall s, CPU s, peak MiB)."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    size, text = work(folder)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queue.put((size, text, wall, cpu, peak / 1024, before / 1024))


def run(name: str, work: Callable[[Path], tuple[float, str]], folder: Path) -> None:
    """Measure in a new process and print a line."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measured, args=(work, folder, queue))
    process.start()
    size, text, wall, cpu, peak, before = queue.get()
    process.join()
    rate = f"{size / 1e6 / wall:6.0f} MB/s wall {size / 1e6 / cpu:6.0f} MB/s CPU" if size else " " * 31
    took = f"{PUBLISHED_MB / (size / 1e6 / wall):5.0f} s for 8.2 GB" if size and work is read_rows else ""
    print(
        f"{name:22} {text:14} {wall:7.2f} s wall {cpu:7.2f} s CPU {rate}  "
        f"peak {peak:4.0f} MiB ({before:.0f} before)  {took}",
        flush=True,
    )


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description="speed and memory of reading QM9S")
    parser.add_argument("--sizes", type=float, nargs="+", default=[100, 200, 400], help="MB per table")
    parser.add_argument("--folder", default=None, help="where the files are made (in a temporary folder)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            process = multiprocessing.get_context("spawn").Process(target=make, args=(folder, size))
            process.start()  # a process of its own, so that its memory does not count in the others'
            process.join()
            run("IR table alone", read_rows, folder)
            run("find the last row", find_last, folder)
            run("list of structures", read_list, folder)
            run("store, IR + Raman", prepare_all, folder)


if __name__ == "__main__":
    main()
