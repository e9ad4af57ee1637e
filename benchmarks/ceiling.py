"""What the machine can do: matrix products, copies, exponentials, thin products of attention.

    python -m benchmarks.ceiling --threads 2

Prints rates, and JSON as the last line. Medians; other work on the machine lowers them.
"""

import argparse
import json
from typing import Any

import torch

from benchmarks.machine import MatrixRate, facts, median_of

MATRIX_SIDES = (512, 1024, 2048)
COPIED = 64 * 2**20
"""Floats that are copied: far more than any cache holds."""

EXPONENTIALS = 2**22
THIN = (512, 347, 8)
"""Heads × molecules, tokens and head width of SpecFormer's scores."""


def ceilings(device: torch.device, repeats: int = 7) -> dict[str, float]:
    """Rates by name; the unit ends the name."""
    found = {}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        for side in MATRIX_SIDES:
            found[f"{name} product of {side}², GFLOP/s"] = MatrixRate(device, dtype, side)(repeats)
    source = torch.randn(COPIED, device=device)
    target = torch.empty_like(source)
    # read once and written once
    found["copy, GB/s"] = 2 * 4 * COPIED / median_of(lambda: target.copy_(source), repeats, device) / 1e9
    small, out = source[:EXPONENTIALS], target[:EXPONENTIALS]
    exponentials = median_of(lambda: torch.exp(small, out=out), repeats, device)
    found["exponentials, 10⁹/s"] = EXPONENTIALS / exponentials / 1e9
    batch, tokens, width = THIN
    query, key = (torch.randn(batch, tokens, width, device=device) for _ in range(2))
    scores = torch.empty(batch, tokens, tokens, device=device)
    thin = median_of(lambda: torch.bmm(query, key.mT, out=scores), repeats, device)
    found["thin products (width 8), GFLOP/s"] = 2 * batch * tokens**2 * width / thin / 1e9
    return found


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.ceiling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = ceilings(torch.device(options.device))
    for name, rate in result.items():
        print(f"{name:36} {rate:8.1f}")
    print(json.dumps({"ceilings": result, **facts()}))


if __name__ == "__main__":
    main()
