"""What it costs to make batches, on one core, and which share of a paper-size step that is.

    python -m benchmarks.loader                              # the bundled store, and as samples
    python -m benchmarks.loader --store qm9.arrow            # any other store
    python -m benchmarks.loader --step-seconds 2.5           # seconds of a step of 128, from benchmarks.steps

Prints medians, and JSON as the last line. `benchmarks/large_store.py` does it for 3.4 million structures.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import facts, seconds
from molspectra.data.neighbours import neighbour_edges
from molspectra.data.random import Purpose, normal
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store, write_store
from molspectra.spectra.spectrum import SampledSpectrum

CUTOFF = 5.0


def rates(store: Store, batch: int, repeats: int = 50) -> dict[str, float]:
    """Median seconds of the parts of a batch."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(store), batch) for _ in range(repeats + 3)]
    one = store.batch(rows[0])
    counts, ids = one.ptr.diff(), one.geometry_id
    modalities = store.metadata.modalities
    found = {"structures alone": _median(lambda k: store.batch(rows[k]), repeats)}
    if modalities:
        spectra = _median(lambda k: store.batch(rows[k], modalities=modalities), repeats)
        found[f"with {len(modalities)} spectra"] = spectra
    found["neighbour list (apart)"] = _median(
        lambda k: neighbour_edges(one.positions, one.ptr, CUTOFF), repeats
    )
    found["noise for all atoms (apart)"] = _median(
        lambda k: normal(0, k, ids, Purpose.NOISE, counts, 3), repeats
    )
    return found


def as_samples(store: Store, path: Path) -> Store:
    """Write a copy of a store of lines that holds float16 samples instead."""
    levels = store.metadata.lines

    def rows() -> Iterator[Any]:
        for number in range(len(store)):
            batch = store.batch([number], modalities=tuple(levels))
            spectra = {
                name: SampledSpectrum(name, batch.spectra[name][0].double().numpy(), level)
                for name, level in levels.items()
                if batch.present[name][0]
            }
            row = store.row(number)
            yield replace(row, spectra={**row.spectra, **spectra})

    samples = {**store.metadata.samples, **levels}
    write_store(path, rows(), replace(store.metadata, lines={}, samples=samples, sample_dtype="float16"))
    return Store(path)


def _median(work: Any, repeats: int) -> float:
    times = [seconds(lambda k=k: work(k)) for k in range(repeats + 3)]
    return float(np.median(times[3:]))


def measure(path: Path | None, batch: int, step_seconds: float | None, repeats: int = 50) -> dict[str, Any]:
    """Rates of a store, of its copy with samples, and the share of a step."""
    stores: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(path) if path else bundled()
        kinds = {"as it is": store}
        if store.metadata.lines:
            kinds["spectra as samples"] = as_samples(store, Path(folder) / "samples.arrow")
        for name, each in kinds.items():
            found = rates(each, batch, repeats)
            stores[name] = {
                part: {"milliseconds": 1e3 * time, "molecules_per_second": batch / time}
                for part, time in found.items()
            }
            for part in found if step_seconds else ():
                stores[name][part]["share_of_a_step"] = found[part] / step_seconds
    return {"batch": batch, "stores": stores}


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.loader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", type=Path, help="a store to take batches from")
    parser.add_argument("--batch", type=int, default=128, help="molecules of a batch")
    parser.add_argument("--step-seconds", type=float, help="seconds of a step with such a batch")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(options.store, options.batch, options.step_seconds)
    for name, parts in result["stores"].items():
        print(f"batches of {options.batch}, {name}")
        for part, found in parts.items():
            ms, rate = found["milliseconds"], found["molecules_per_second"]
            share = f", {found['share_of_a_step']:.2%} of a step" if "share_of_a_step" in found else ""
            print(f"  {part + ':':30} {ms:7.2f} ms  ({rate:,.0f} molecules/s{share})")
    print(json.dumps(result | facts()))


if __name__ == "__main__":
    main()
