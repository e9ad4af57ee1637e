"""Predicted against computed spectra of molecules that a model has not seen, beside simple predictors.

    python -m benchmarks.predicted_spectra [--train STORE] [--test STORE] [--modalities ir raman]

The molecules tested are those of STORE (`bundled` by default) that no training of the model has seen. The
floors learn from molecules of the store `--train` whose spectra the model itself was trained on:

- mean: the mean spectrum;
- nearest: the spectrum of the molecule with the most similar Morgan fingerprint (Tanimoto, two bonds, 2048
  bits);
- ridge: linear regression on RDKit's descriptors, its penalty chosen on a tenth of the molecules.

Medians over the molecules of: the cosine; the spectral information similarity 1 / (1 + SID); the error of the
area under the spectrum, as a share of the computed area. "structure" is the store's, "SMILES" a conformer by
force field, where the store has SMILES.
"""

import argparse
from collections.abc import Callable

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from molspectra.apps.model import Model, load
from molspectra.apps.predict_spectra import predict_spectra, spectra_of
from molspectra.data.store.store import Store
from molspectra.evaluation.floors import morgan_fingerprints, rdkit_descriptors
from molspectra.search.score import information
from molspectra.search.vectors import Floats
from molspectra.training.data import open_store
from molspectra.training.seen import SPECTRUM, Seen, hashes_of, seen_by

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10000.0)
MEASURES = ("cosine", "information", "area error")


def computed(store: Store, rows: np.ndarray, name: str) -> Floats:
    """Spectra [n, points] of rows, lines broadened by the default width."""
    blocks = [
        store.batch(part, modalities=(name,)).spectra[name].numpy() for part in np.array_split(rows, 20)
    ]
    return np.concatenate(blocks)


def measures(predicted: Floats, true: Floats) -> dict[str, np.ndarray]:
    """Each of `MEASURES` [n] of spectra [n, points]."""
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    cosine = (predicted * true).sum(1) / np.maximum(lengths, 1e-30)
    alike = [information(one[None], two[None])[0, 0] for one, two in zip(predicted, true, strict=True)]
    areas = predicted.sum(1, dtype=np.float64), true.sum(1, dtype=np.float64)
    return dict(zip(MEASURES, (cosine, np.array(alike), np.abs(areas[0] / areas[1] - 1)), strict=True))


def nearest(known: Floats, asked: Floats) -> np.ndarray:
    """For each of the fingerprints `asked` the index of the most similar one of `known`, by Tanimoto."""
    known, asked = (known > 0).astype(np.float32), (asked > 0).astype(np.float32)
    both = asked @ known.T
    return np.argmax(both / (asked.sum(1)[:, None] + known.sum(1) - both), axis=1)


def ridge(known: Floats, spectra: Floats, seed: int = 0) -> Callable[[Floats], Floats]:
    """Ridge regression of spectra on descriptors, never negative; the penalty by held-out squared error."""
    order = np.random.default_rng(seed).permutation(len(known))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]

    def fitted(rows: np.ndarray, penalty: float) -> Callable[[Floats], Floats]:
        model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), Ridge(penalty))
        model.fit(known[rows], spectra[rows])
        # a descriptor far outside of what was learnt from must not decide alone
        low, high = np.nanmin(known[rows], axis=0), np.nanmax(known[rows], axis=0)
        return lambda asked: np.maximum(model.predict(np.clip(asked, low, high)), 0).astype(np.float32)

    losses = [np.square(fitted(rest, one)(known[held]) - spectra[held]).mean() for one in PENALTIES]
    return fitted(order, PENALTIES[int(np.argmin(losses))])


def unseen(store: Store, seen: Seen) -> np.ndarray:
    """Rows of the molecules that the model has not seen in any way."""
    return np.flatnonzero(seen.flags_of(hashes_of(store.identities)) == 0)


def compare(
    model: Model, test: Store, train: Store, name: str, seen: Seen
) -> dict[str, dict[str, np.ndarray]]:
    """The measures of the model and of the floors for a modality, by the name of the predictor."""
    rows = unseen(test, seen)
    true = computed(test, rows[test.has(name)[rows]], name)
    rows = rows[test.has(name)[rows]][true.any(1)]
    true = true[true.any(1)]
    learnt = (seen.flags_of(hashes_of(train.identities)) & SPECTRUM > 0) & train.has(name)
    sources = np.flatnonzero(learnt)  # and so not tested
    spectra = computed(train, sources, name)
    sources, spectra = sources[spectra.any(1)], spectra[spectra.any(1)]  # some excitations are all dark
    asked, known = (
        [store.molecule(int(row)) for row in part] for store, part in ((test, rows), (train, sources))
    )
    predictions = {
        "model, structure": predict_spectra(asked, model, modalities=[name]).intensities[name],
        "mean": np.repeat(spectra.mean(0, keepdims=True), len(rows), axis=0),
        "nearest": spectra[nearest(morgan_fingerprints(known), morgan_fingerprints(asked))],
        "ridge": ridge(rdkit_descriptors(known), spectra)(rdkit_descriptors(asked)),
    }
    found = {label: measures(values, true) for label, values in predictions.items()}
    places = [index for index, one in enumerate(asked) if one.smiles]
    print(f"{name}: {len(rows)} molecules, {len(places)} by SMILES; floors learn from {len(sources)}")
    if not places:
        return found
    smiles = [asked[index].smiles for index in places]
    by_smiles = predict_spectra(smiles, model, modalities=[name]).intensities[name]
    return {"model, SMILES": measures(by_smiles, true[places]), **found}


def main() -> None:
    """Parse the command line, compare and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.predicted_spectra",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--train", default="bundled", help="store that the floors learn from")
    parser.add_argument("--test", default="bundled", help="store with the molecules to test")
    parser.add_argument("--model", default="base")
    parser.add_argument("--modalities", nargs="+", help="all of the model if not given")
    options = parser.parse_args()
    model, seen = load(options.model), seen_by(options.model)
    for reason in seen.unknown:
        print(f"not known what it has seen: {reason}")
    test, train = open_store(options.test), open_store(options.train)
    for name in options.modalities or spectra_of(model.model):
        levels = [
            {**store.metadata.lines, **store.metadata.samples}.get(name, "none") for store in (test, train)
        ]
        found = compare(model, test, train, name, seen)
        print(f"levels: tested {levels[0]}; floors {levels[1]}")
        print(f"| {name} | " + " | ".join(MEASURES) + " |\n|---|" + "---|" * len(MEASURES))
        for label, values in found.items():
            cells = (f"{np.median(values[one]):.3f}" for one in MEASURES)
            print(f"| {label} | {' | '.join(cells)} |")
        print(flush=True)


if __name__ == "__main__":
    main()
