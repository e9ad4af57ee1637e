"""Whether confidences can be trusted: expected against observed, and molecules that are missing.

    python -m benchmarks.confidence --out DIR [--library bundled-library bundled] [--queries 1000]

Measured-like spectra (`molspectra.search.calibrate.measured_like`, another seed than the calibration's) of
molecules of a library are searched in it, without and with their formula. By fifths: the mean confidence of
the first answers and the share that is right. For the verdict "not in this library", the right entry is left
out; "at most" is what no statistic of the first answer can exceed: where the right molecule is not first,
leaving it out changes nothing. Indices are made in DIR and used again.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from molspectra.data.store.bundled import bundled
from molspectra.search import score
from molspectra.search.calibrate import (
    FALSE_ALARMS,
    USEFUL,
    confidences,
    key,
    measured_like,
    reference,
    sample,
)
from molspectra.search.library import Library
from molspectra.search.query import Query
from molspectra.search.shape import shapes
from molspectra.spectra.modality import modality

SEED = 7


def scores_of(library: Library, store, rows: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Scores [n, Q] by shape of all entries, for measured-like spectra of some rows of their store."""
    bands = {}
    for name in names:
        kind = modality(name)
        computed = np.stack([store.spectrum(int(row), name).broadened().values for row in rows])
        all_points = np.ones(kind.points, bool)
        bands[name] = shapes(measured_like(computed, name, SEED), all_points, all_points, kind)
    (segment,) = library.segments
    return score.scores("shape", segment.arrays, Query(shapes=bands), slice(None)).astype(np.float64)


def fifths(stated: np.ndarray, right: np.ndarray) -> str:
    """Mean confidence, share right and number of queries, by fifths of the queries."""
    parts = np.array_split(np.argsort(stated), 5)
    return "  ".join(f"{stated[part].mean():.2f} {right[part].mean():.2f}" for part in parts)


def bins(stated: np.ndarray, right: np.ndarray) -> str:
    """The same by confidences of 0 to 0.2, 0.2 to 0.4, …, with the number of queries."""
    places = np.minimum((5 * stated).astype(int), 4)
    cells = []
    for place in range(5):
        part = places == place
        cells.append(
            f"{stated[part].mean():.2f} {right[part].mean():.2f} ({part.sum()})" if part.any() else "none"
        )
    return "  ".join(cells)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--library", nargs="+", default=["bundled-library", "bundled"])
    parser.add_argument("--model", default="base")
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.library:
        folder = options.out / name
        library = Library(folder) if folder.exists() else Library.build(folder, name, options.model)
        calibration, store = library.manifest.calibration, bundled(name)
        rows = np.random.default_rng(SEED).permutation(len(library))[: options.queries]
        formulas = np.array(library.table["formula"].to_pylist())
        same = formulas[:, None] == formulas[rows]
        queries = np.arange(len(rows))
        modalities = library.manifest.modalities
        for count in range(1, len(modalities) + 1):
            for names in combinations(modalities, count):
                which = key("shape", names)
                every = scores_of(library, store, rows, names)
                for filtered in (False, True):
                    scores = np.where(same, every, -np.inf) if filtered else every
                    kept = (same.sum(0) > 1) | (not filtered)
                    first = scores.argmax(0)
                    scaled = scores / calibration.temperature[which]
                    mixture = calibration.mixture.get(which)
                    stated = np.array([confidences(each, mixture).max() for each in scaled.T])[kept]
                    right = (first == rows)[kept]
                    title = f"{name} {'+'.join(names)}{', formula given' if filtered else ''}"
                    print(
                        f"{title}: {kept.sum()} queries, {right.mean():.2f} right, stated {stated.mean():.2f}"
                    )
                    print(f"  stated, right by fifths of the queries    {fifths(stated, right)}")
                    print(f"  … by 0.2 of confidence (queries)          {bins(stated, right)}")
                    margins = []
                    for missing in (False, True):
                        others = every.copy()
                        if missing:
                            others[rows, queries] = -np.inf
                        best = np.where(same | (not filtered), others, -np.inf).max(0)
                        margins.append((best - reference(others[sample(len(library))]))[kept])
                        if not filtered:
                            margins[-1] = best[kept]
                    verdict = calibration.missing.get(which) if filtered else None
                    if verdict is None:
                        limit = np.quantile(margins[0], FALSE_ALARMS)
                        told = f"not told (below {USEFUL:.0%})" if filtered else "best score alone, not told"
                    else:
                        limit, told = verdict[0], f"told, said to find {verdict[1]:.0%}"
                    wrong, found = (float(np.mean(each < limit)) for each in margins)
                    print(
                        f"  not in the library: {found:.0%} found, {wrong:.0%} false alarms; {told}; "
                        f"at most {min(1.0, right.mean() + FALSE_ALARMS):.0%}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
