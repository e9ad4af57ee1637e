"""Searching among many vectors: time per query in one thread, recall against exact search; making an index.

    python -m benchmarks.search                      # a million vectors of width 256, random and clustered
    python -m benchmarks.search --index 100000       # also an index of so many of the bundled molecules
    python -m benchmarks.search --vectors embeddings.npy

Random vectors are the hardest case: no inverted list holds what is near. Clustered ones (normal around 20,000
centres) are nearer to embeddings, where many molecules resemble each other. Queries are vectors with noise.
Queries are timed by the processor time of the one thread (set OMP_NUM_THREADS=1), building by the clock. The
last line is JSON.
"""

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import facts
from molspectra.search import approximate, score
from molspectra.search.segment import part_of, write_segment
from molspectra.search.sources import blocks
from molspectra.search.vectors import Floats, unit

TOP = approximate.NEAREST


def vectors_of(kind: str, count: int, width: int) -> Floats:
    """Unit vectors [count, width], "random" or "clustered"."""
    generator = np.random.default_rng(0)
    found = generator.standard_normal((count, width), dtype=np.float32)
    if kind == "clustered":
        centres = generator.standard_normal((20_000, width), dtype=np.float32)
        found *= 0.5
        found += centres[generator.integers(0, len(centres), count)]
    return unit(found)


def queries_of(vectors: Floats, count: int) -> Floats:
    """Unit vectors [count, width] near some of the vectors."""
    generator = np.random.default_rng(1)
    chosen = vectors[generator.integers(0, len(vectors), count)]
    return unit(chosen + approximate.NOISE * unit(generator.standard_normal(chosen.shape, dtype=np.float32)))


def exact(vectors: Floats, query: Floats) -> npt.NDArray[np.int64]:
    """The `TOP` nearest rows as `Library.search` finds them, in blocks."""
    found = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), score.BLOCK):
        block = vectors[start : start + score.BLOCK]
        found[start : start + len(block)] = score.dots(block, query[None])[:, 0]
    return np.argpartition(-found, TOP)[:TOP]


def measure(label: str, vectors: Floats, count: int) -> dict[str, float]:
    """Print and return times (ms of one thread) and recall for `count` queries."""
    approximate.faiss().omp_set_num_threads(1)
    queries = queries_of(vectors, count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "approximate.faiss"
        began = time.perf_counter()
        found = approximate.build([vectors], path)
        built = time.perf_counter() - began
        size = path.stat().st_size / 2**20
        index = approximate.load(path, found, len(vectors), vectors.shape[1])
    times: dict[str, list[float]] = {"exact": [], "approximate": []}
    recall = []
    for query in queries:
        began = time.process_time()
        true = exact(vectors, query)
        times["exact"].append(time.process_time() - began)
        began = time.process_time()
        rows = approximate.candidates(index, query, TOP)
        near = rows[np.argsort(-(vectors[rows] @ query))[:TOP]]
        times["approximate"].append(time.process_time() - began)
        recall.append(len(set(true) & set(near)) / TOP)
    result = {name: 1e3 * float(np.median(each)) for name, each in times.items()}
    result |= {"recall": float(np.mean(recall)), "lists": index.nprobe, "of": index.nlist}
    shown = ", ".join(f"{name} {result[name]:.1f} ms" for name in times)
    print(f"{label} {vectors.shape}: {shown} of processor time per query (medians of {count})")
    print(f"  recall@{TOP} {result['recall']:.3f}, {index.nprobe} of {index.nlist} lists searched")
    print(f"  built in {built:.0f} s, {size:.0f} MiB", flush=True)
    return result


class NoModel:
    """Stands for a model whose vectors cost nothing, so that only the rest of the work is timed."""

    width, modalities = 256, ("uv_vis", "ir", "raman")

    def structures(self, molecules: list[Any]) -> Floats:
        """Constant vectors."""
        return np.full((len(molecules), self.width), 1 / 16, np.float32)

    def spectra(self, spectra: dict[str, Floats]) -> Floats:
        """Constant vectors."""
        return np.full((len(next(iter(spectra.values()))), self.width), 1 / 16, np.float32)


def time_index(count: int) -> None:
    """Print the time of making a segment of `count` entries, with and without their spectra."""
    for kept in ((), NoModel.modalities):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            model: Any = NoModel()
            parts = (part_of(block, model, kept) for block in islice(_again(), count // 256))
            write_segment(Path(folder) / "segment", parts, model, kept, "float32")
            taken = time.perf_counter() - began
        what = ", ".join(kept) or "no spectra"
        print(
            f"segment of {count // 256 * 256} entries ({what}): {taken:.0f} s without embedding", flush=True
        )


def _again() -> Any:
    """Blocks of the bundled molecules, over and over."""
    while True:
        yield from (block for block in blocks("bundled") if len(block) == 256)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--kinds", nargs="*", default=["random", "clustered"])
    parser.add_argument("--vectors", type=Path, help=".npy file of vectors to search instead")
    parser.add_argument("--index", type=int, default=0, help="also time an index of so many entries")
    options = parser.parse_args()
    print(facts())
    if options.index:
        time_index(options.index)
    found = {}
    if options.vectors is not None:
        vectors = unit(np.load(options.vectors).astype(np.float32))
        found[options.vectors.name] = measure(options.vectors.name, vectors, options.queries)
    for kind in options.kinds if options.vectors is None else ():
        found[kind] = measure(kind, vectors_of(kind, options.count, options.width), options.queries)
    print(json.dumps({"count": options.count, "width": options.width, "found": found}))


if __name__ == "__main__":
    main()
