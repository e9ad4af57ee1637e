"""Whether confidences can be trusted: expected against observed, and molecules that are missing.

    python -m benchmarks.confidence --out DIR [--library bundled-library bundled] [--queries 1000]
    python -m benchmarks.confidence --out DIR --strength 0.75        # spectra that are less disturbed
    python -m benchmarks.confidence --out DIR --window 500 2500      # infrared of a part of the axis
    python -m benchmarks.confidence --out DIR --bands BANDS.csv      # measured spectra and disturbed ones

Measured-like spectra (`molspectra.search.calibrate.measured_like`, another seed than the calibration's) of
molecules of a library are searched in it, without and with their formula, by the way that `search` takes
where none is named. By fifths: the mean confidence of the first answers and the share that is right. For the
verdict "not in this library", the right entry is left out, where it is not the only one of the formula; "at
most" is what no statistic of the first answer can exceed: where the right molecule is not first, leaving it
out changes nothing. With `--bands` (see `benchmarks.identify`) measured spectra are compared with 20
disturbed ones of the same molecules. Indices are made in DIR and used again.
"""

import argparse
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from benchmarks.identify import queries as measured_spectra
from molspectra.chem.identity import identity_from_smiles
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store
from molspectra.search import network, score
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


def way_of(names: tuple[str, ...]) -> str:
    """The way to score that a search takes for these spectra where none is named."""
    return "match" if network.MODALITY in names else "shape"


def scores_of(
    library: Library,
    spectra: dict[str, np.ndarray],
    strength: float = 1.0,
    seed: int = SEED,
    window: tuple[float, float] = (-np.inf, np.inf),
    way: str | None = None,
) -> np.ndarray:
    """Scores [n, Q] of all entries, for computed spectra [Q, points] changed to measured-like ones.

    Args:
        library: of n entries in one segment.
        spectra: by modality.
        strength: see `measured_like`.
        seed: of the changes.
        window: range of infrared that is measured.
        way: None for that of `way_of`.
    """
    bands, trained = {}, None
    for name, computed in spectra.items():
        kind = modality(name)
        axis, signed = kind.axis(), measured_like(computed, name, seed, strength)
        known = np.ones(kind.points, bool)
        if name == network.MODALITY:
            known = (axis >= window[0]) & (axis <= window[1])
            signed = np.where(known, signed, 0)
            trained = network.stretched(np.maximum(signed, 0), network.SCALES)
        bands[name] = shapes(signed, known, known, kind)
    (segment,) = library.segments
    query = Query(shapes=bands, network=trained)
    return score.scores(way or way_of(tuple(spectra)), segment.arrays, query, slice(None)).astype(np.float64)


def compare(library: Library, store: Store, path: Path, strength: float) -> None:
    """Print how well measured infrared spectra fit their molecules, and disturbed spectra of these."""
    identities, formulas = (np.array(library.table[name].to_pylist()) for name in ("identity", "formula"))
    row_of = {identity: row for row, identity in enumerate(identities)}
    measured = {
        row_of[identity]: spectrum
        for smiles, spectrum in measured_spectra(path).items()
        if (identity := identity_from_smiles(smiles)) in row_of
    }
    rows = np.array(list(measured))
    computed = {"ir": np.stack([store.spectrum(int(row), "ir").broadened().values for row in rows])}
    for way in ("match", "shape"):
        searched = [
            library.scores(way, library.query({"ir": spectrum}, [way]), None)
            for spectrum in measured.values()
        ]
        disturbed = [scores_of(library, computed, strength, seed, way=way) for seed in range(100, 120)]
        for title, scores, right in (
            ("measured", np.stack(searched, 1), rows),
            ("disturbed", np.concatenate(disturbed, 1), np.tile(rows, len(disturbed))),
        ):
            own = scores[right, np.arange(len(right))]
            better = scores > own
            rank, rank_of_formula = better.sum(0), (better & (formulas[:, None] == formulas[right])).sum(0)
            print(
                f"{title}, {way}: {len(right)} queries, {np.mean(rank == 0):.2f} first, "
                f"{np.mean(rank < 10):.2f} among 10, {np.mean(rank_of_formula == 0):.2f} first of the "
                f"formula, score of the right molecule {own.mean():.3f}"
            )
        levels = store.column("b3lyp")[rows] if "b3lyp" in store.metadata.properties else np.zeros(len(rows))
        for level in np.unique(levels):
            own, best = np.array(
                [(scores[row], scores.max()) for scores, row in zip(searched, rows, strict=True)]
            )[levels == level].T
            print(f"  measured, b3lyp {level:g}: {len(own)}: {np.sum(own == best)} first, {own.mean():.3f}")
        for title, of_formula in (("", False), (", formula given", True)):
            stated = [
                library.search(
                    {"ir": spectrum}, by=way, formula=str(formulas[row]) if of_formula else None, top=1
                ).table["confidence"][0]
                for row, spectrum in measured.items()
            ]
            print(f"  confidence of the first{title}: {np.mean([each.as_py() for each in stated]):.2f}")
        limit = library.manifest.calibration.missing[key(way, ("ir",))][0]
        alarms, found = [], []
        for scores, row in zip(searched, rows, strict=True):
            same = formulas == formulas[row]
            alarms.append(scores[same].max() - reference(scores) < limit)
            same[row] = False
            if same.any():
                found.append(scores[same].max() - reference(np.delete(scores, row)) < limit)
        print(
            f"  told to be missing: {sum(alarms)} of {len(alarms)} that are there, "
            f"{sum(found)} of {len(found)} that are left out"
        )


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
    parser.add_argument("--strength", type=float, default=1.0, help="of the differences, see measured_like")
    parser.add_argument("--window", type=float, nargs=2, default=(-np.inf, np.inf), help="cm⁻¹")
    parser.add_argument("--bands", type=Path, help="measured spectra, see benchmarks.identify")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.library:
        folder = options.out / name
        library = Library(folder) if folder.exists() else Library.build(folder, name, options.model)
        calibration, store = library.manifest.calibration, bundled(name)
        if options.bands is not None:
            compare(library, store, options.bands, options.strength)
            continue
        rows = np.random.default_rng(SEED).permutation(len(library))[: options.queries]
        formulas = np.array(library.table["formula"].to_pylist())
        same = formulas[:, None] == formulas[rows]
        queries = np.arange(len(rows))
        modalities = library.manifest.modalities
        for count in range(1, len(modalities) + 1):
            for names in combinations(modalities, count):
                which = key(way_of(names), names)
                computed = {
                    name: np.stack([store.spectrum(int(row), name).broadened().values for row in rows])
                    for name in names
                }
                every = scores_of(library, computed, options.strength, window=options.window)
                for filtered in (False, True):
                    scores = np.where(same, every, -np.inf) if filtered else every
                    kept = (same.sum(0) > 1) | (not filtered)
                    first = scores.argmax(0)
                    scaled = scores / calibration.temperature[which]
                    mixture = calibration.mixture.get(which)
                    stated = np.array([confidences(each, mixture).max() for each in scaled.T])[kept]
                    right = (first == rows)[kept]
                    title = f"{name} {which}{', formula given' if filtered else ''}"
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
                    exact = np.mean(margins[1] < np.quantile(margins[0], FALSE_ALARMS))
                    print(
                        f"  not in the library: {found:.0%} found, {wrong:.0%} false alarms; {told}; "
                        f"at {FALSE_ALARMS:.0%} false alarms {exact:.0%}, "
                        f"at most {min(1.0, right.mean() + FALSE_ALARMS):.0%}",
                        flush=True,
                    )
                    if filtered:
                        others = same.sum(0)[kept] - 1
                        cells = [
                            f"{low} to {high - 1}: {np.mean(margins[1][part] < limit):.0%} ({part.sum()})"
                            for low, high in pairwise((1, 2, 5, 15, 40, len(library)))
                            if (part := (others >= low) & (others < high)).any()
                        ]
                        print(f"  … found by number of others of the formula (queries)  {'  '.join(cells)}")


if __name__ == "__main__":
    main()
