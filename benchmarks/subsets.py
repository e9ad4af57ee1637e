"""Retrieval by every subset of spectra, trained with and without modality dropout, paired by seed.

    python -m benchmarks.subsets --out runs/subsets --seeds 0 1 --dropout 0 0.3

Every seed has one stage 1 (recipe small-stage1), from which all its stage-2 runs start (small-stage2); runs
that are there already are not made again. Prints a table of means over the seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.evaluation.evaluate import evaluate
from molspectra.training.config import PretrainConfig
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict, read_recipe


def main() -> None:
    """Train what is missing, evaluate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--steps", type=int, default=1000, help="of each stage")
    options = parser.parse_args()
    found: dict[float, list[dict[str, Any]]] = {chance: [] for chance in options.dropout}
    for seed in options.seeds:
        loop = {"seed": seed, "steps": options.steps}
        start = options.out / f"stage1-{seed}"
        run("small-stage1", start, loop, {})
        for chance in options.dropout:
            out = options.out / f"stage2-{seed}-dropout-{chance:g}"
            run("small-stage2", out, loop, {"init": str(start), "spectra": {"dropout": chance}})
            found[chance].append(evaluate(out)["retrieval"])
    for part in ("all", "isomers"):
        print_table(found, part)


def run(name: str, out: Path, loop: dict[str, int], changes: dict[str, Any]) -> None:
    """Make a run of a recipe, or finish it, or do nothing where it is finished."""
    values = read_recipe(name)
    values["loop"] = values["loop"] | loop
    pretrain(from_dict(PretrainConfig, values | changes, name), out, resume=True)


def print_table(found: dict[float, list[dict[str, Any]]], part: str) -> None:
    """One row per subset: recall at 1, 5, 10 and 25 and the mean reciprocal rank, by dropout."""
    first = next(iter(found.values()))[0]
    print(f"\n{part}: {first['queries']} queries, {first['gallery_size']} molecules\n")
    print("| spectra | " + " | ".join(f"dropout {chance:g}: R@1, 5, 10, 25, MRR" for chance in found) + " |")
    print("|---|" + "---|" * len(found))
    for spectra in first["subsets"]:
        cells = []
        for results in found.values():
            figures = [each["subsets"][spectra] for each in results]
            figures = [each["isomers"] for each in figures] if part == "isomers" else figures
            rows = [[*each["recall"].values(), each["mrr"]] for each in figures]
            cells.append(", ".join(f"{value:.3f}" for value in np.mean(rows, axis=0)))
        print(f"| {spectra} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
