"""GFN2-xTB orbital energies of many QM9 geometries, for pre-training with the density of states.

    python scripts/compute_levels.py --data DIR --out DIR [--processes N]

`--data` holds qm9/qm9_geometries.npz; the geometries are not optimised. `--out` gets levels-NNNNN.npz per
thousand molecules, in the layout of qm9_levels_gfn2.npz: `gdb_idx`, `n_occupied`, `n_levels`, and `energy` in
eV, concatenated, ascending, occupied levels first. Interrupted, the same command continues.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy core take ten times as long

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.data.atomic import atomic_file
from molspectra.errors import SimulationError
from molspectra.simulation.units import BOHR, HARTREE

CHUNK = 1000


def main() -> None:
    """Compute the chunks that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of qm9/qm9_geometries.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    count = len(np.load(options.data / "qm9/qm9_geometries.npz")["gdb_idx"])
    chunks = [
        (options.data, options.out / f"levels-{number:05d}.npz", start)
        for number, start in enumerate(range(0, count, CHUNK))
    ]
    missing = [chunk for chunk in chunks if not chunk[1].exists()]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, failed in enumerate(pool.imap(compute, missing), len(chunks) - len(missing) + 1):
            note = f", without convergence: {failed}" if failed else ""
            print(f"{done} of {len(chunks)} chunks{note}", flush=True)


def compute(chunk: tuple[Path, Path, int]) -> list[int]:
    """Write the levels of a chunk; return the QM9 indices of molecules whose SCF did not converge."""
    from molspectra.simulation.xtb import Xtb

    data, out, start = chunk
    geometries = np.load(data / "qm9/qm9_geometries.npz")
    rows = slice(start, start + CHUNK)
    indices, counts = geometries["gdb_idx"][rows], geometries["n_atoms"]
    offsets = np.append(0, np.cumsum(counts, dtype=np.int64))[start:]
    numbers, positions = geometries["z"], geometries["pos"]
    columns: dict[str, list[Any]] = {"gdb_idx": [], "n_occupied": [], "n_levels": [], "energy": []}
    failed = []
    for index, first, last in zip(indices.tolist(), offsets, offsets[1:], strict=False):
        coordinates = positions[first:last].astype(np.float64) / BOHR
        try:
            result = Xtb(numbers[first:last].astype(np.int64), coordinates).run(coordinates)
        except SimulationError:
            failed.append(index)
            continue
        energy = np.asarray(result.get("orbital-energies")) * HARTREE
        columns["gdb_idx"].append(index)
        columns["n_occupied"].append(int((np.asarray(result.get("orbital-occupations")) > 1).sum()))
        columns["n_levels"].append(len(energy))
        columns["energy"].append(energy)
    with atomic_file(out) as file:
        np.savez_compressed(
            file,
            gdb_idx=np.array(columns["gdb_idx"], np.int32),
            n_occupied=np.array(columns["n_occupied"], np.int16),
            n_levels=np.array(columns["n_levels"], np.int16),
            energy=np.concatenate(columns["energy"]).astype(np.float32),
        )
    return failed


if __name__ == "__main__":
    main()
