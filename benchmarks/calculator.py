"""Energy and forces of aspirin through the ASE calculator, as molecular dynamics asks for them.

    python -m benchmarks.calculator

The paper's encoder for MD17, untrained; every atom moves by a thousandth of an Å between calls. Wall times,
medians; the last line is JSON.
"""

import argparse
import json
import statistics
import time
from typing import Any

from molspectra.apps.process import prepare_process


def measure(calls: int) -> dict[str, float]:
    """Median seconds of a call by precision."""
    import numpy as np
    import torch

    from benchmarks.cases import CASES, Options, configuration
    from benchmarks.molecules import aspirins
    from molspectra.apps.calculator import Calculator
    from molspectra.chem.readers import to_ase
    from molspectra.models.model import MolSpectra

    torch.manual_seed(0)
    model = MolSpectra(configuration(CASES["md17-force"], Options(1)).model)
    generator, found = np.random.default_rng(0), {}
    for dtype in ("float64", "float32"):
        atoms = to_ase(aspirins(1)[0])
        atoms.calc = Calculator((model, {"target": "energy", "unit": "kcal/mol"}), dtype=dtype)
        times = []
        for _ in range(calls + 3):
            atoms.positions += generator.normal(0, 1e-3, atoms.positions.shape)
            began = time.perf_counter()
            atoms.get_forces()
            times.append(time.perf_counter() - began)
        found[dtype] = statistics.median(times[3:])
    return found


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.calculator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    prepare_process()
    import torch

    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"seconds": measure(options.calls)}
    from benchmarks.machine import facts

    for dtype, each in result["seconds"].items():
        print(f"{dtype}: {1e3 * each:.1f} ms")
    print(json.dumps(result | facts()))


if __name__ == "__main__":
    main()
