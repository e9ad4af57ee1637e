"""Processor time to compute the spectra of C7H10O2, one of QM9's larger molecules, on one core.

    python -m benchmarks.simulation                    # 4-methyl-4-vinyl-dihydrofuran-2-one
    python -m benchmarks.simulation --smiles CCO --repeats 5

Imports and a first, small molecule come before and do not count. Prints JSON as the last line.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

SMILES = "C=CC1(C)COC(=O)C1"
"""C7H10O2, 19 atoms."""

WHAT = {"IR and Raman": ("ir", "raman"), "IR, Raman and UV-Vis": ("ir", "raman", "uv_vis")}


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process, all its threads, in a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(smiles: str = SMILES, repeats: int = 3) -> dict[str, Any]:
    """Median processor seconds by kind of simulation."""
    from molspectra.chem.readers import from_smiles
    from molspectra.simulation.api import simulate

    molecule = from_smiles(smiles)
    simulate(from_smiles("O"))
    times = {
        name: statistics.median(
            processor_seconds(lambda kinds=kinds: simulate(molecule, kinds)) for _ in range(repeats)
        )
        for name, kinds in WHAT.items()
    }
    return {"molecule": molecule.formula, "atoms": len(molecule), "cpu_seconds": times}


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--smiles", default=SMILES, help="molecule")
    parser.add_argument("--repeats", type=int, default=3, help="simulations of each kind")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the libraries behind read it when they are loaded
    result = measure(options.smiles, options.repeats)
    from benchmarks.machine import facts

    for name, time_ in result["cpu_seconds"].items():
        print(f"{result['molecule']}, {name}: {time_:.2f} CPU-seconds")
    print(json.dumps(result | facts()))


if __name__ == "__main__":
    main()
