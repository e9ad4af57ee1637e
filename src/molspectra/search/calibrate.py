"""Confidences that mean something: temperatures fitted on molecules that the model was not trained on.

A confidence is the softmax of score / T over all answers of a search, so it is the probability that an answer
is right provided that the right one is in the library. T is fitted by maximum likelihood, for every way to
score and every set of modalities: held-out molecules are searched among themselves and a sample of the
library, whose weight in the softmax is raised to that of the whole library. The queries are simulated
spectra that were disturbed (`disturbed`); a real instrument disturbs in other ways too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.subject import read_run
from molspectra.search import score
from molspectra.search.manifest import Calibration
from molspectra.search.segment import Arrays, arrays_of
from molspectra.search.sources import Block, rows_of_store
from molspectra.search.vectors import Floats, SearchModel, coarse, unit
from molspectra.spectra.modality import modality
from molspectra.training.data import Selection, open_store

QUERIES = 256
"""Held-out molecules at most."""
LEAST = 8
"""Fewer calibrate nothing."""
DISTRACTORS = 4_096
"""Entries of the library at most that they are searched among."""
SHIFT, NOISE = 0.5, 0.01
"""Standard deviations of shift (in default line widths) and noise (in parts of the largest value)."""

_BOUNDS = (np.log(1e-4), np.log(1e2))
_SEED = 20_250_101


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Molecules with spectra that a model was not trained on: some rows of a store."""

    store: Store
    rows: npt.NDArray[np.int64]
    source: str

    def block(self, modalities: tuple[str, ...]) -> Block | None:
        """Up to `QUERIES` different molecules that have all these spectra; None where they are too few."""
        known = np.logical_and.reduce([self.store.has(name)[self.rows] for name in modalities])
        identities, seen = self.store.identities, set[str]()
        rows = []
        for row in self.rows[known]:
            if identities[row] not in seen:
                seen.add(identities[row])
                rows.append(int(row))
        if len(rows) < LEAST:
            return None
        chosen = np.array(rows)[np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).astype(int)]
        return rows_of_store(self.store, chosen, identities, modalities)


def held_out_of_run(run: Path | str) -> HeldOut | None:
    """The validation molecules of a run; None where its store is not there or no longer the same."""
    try:
        config, record = read_run(Path(run))
        selection = Selection.of(config.data)
    except InputError:
        return None
    if record["data"]["hash"] != selection.store.hash:
        return None
    return HeldOut(selection.store, selection.val, "validation molecules of the model's training")


def held_out_of_store(path: Path | str) -> HeldOut:
    """All molecules of a store, which the caller knows to be held out.

    Raises:
        InputError: no such store.
    """
    store = open_store(str(path))
    return HeldOut(store, np.arange(len(store)), store.path.name)


def disturbed(spectra: Floats, name: str) -> Floats:
    """Spectra [B, points] of a modality, each shifted along the axis, with noise; the same at each call."""
    kind = modality(name)
    generator = np.random.default_rng(_SEED)
    axis = np.arange(kind.points)
    shifts = generator.normal(0, SHIFT * kind.fwhm / kind.step, len(spectra))
    moved = np.stack([np.interp(axis - shift, axis, row) for shift, row in zip(shifts, spectra, strict=True)])
    noise = generator.normal(0, NOISE, moved.shape) * moved.max(1, keepdims=True)
    return np.maximum(moved + noise, 0).astype(np.float32)


def calibrate(
    block: Block,
    model: SearchModel,
    library: Arrays,
    identities: list[str],
    answers: int,
    source: str,
) -> Calibration:
    """Fit the temperatures.

    Args:
        block: held-out molecules, all of which have the same spectra.
        model: of the library.
        library: arrays of a sample of the library's entries [m, …].
        identities: of these entries [m].
        answers: different molecules in the library.
        source: what the held-out molecules are, in words.
    """
    stored = tuple(name.removeprefix("samples-") for name in library if name.startswith("samples-"))
    names = tuple(block.spectra)
    own = arrays_of(block, model, [name for name in names if name in stored])
    others = np.flatnonzero(~np.isin(identities, block.identities))
    shared = len(set(identities) & set(block.identities))
    entries = {name: np.concatenate([each, library[name][others]]) for name, each in own.items()}
    raised = np.log(max(answers - shared, 1) / max(len(others), 1))
    weights = np.concatenate([np.zeros(len(block)), np.full(len(others), max(raised, 0.0))])
    queries = {name: disturbed(spectra, name) for name, spectra in block.spectra.items()}
    found = {}
    for subset in (each for size in range(1, len(names) + 1) for each in combinations(names, size)):
        for way, values in _similarities(entries, queries, subset, model).items():
            found[key(way, subset)] = _fit(values, weights)
    temperature, accuracy, confidence = (
        {each: values[part] for each, values in found.items()} for part in range(3)
    )
    return Calibration(len(block), temperature, accuracy, confidence, source)


def key(way: str, modalities: tuple[str, ...]) -> str:
    """Key of a temperature; the modalities are in the order of `MODALITIES`."""
    return f"{way}:{'+'.join(modalities)}"


def _similarities(
    entries: Arrays, queries: dict[str, Floats], subset: tuple[str, ...], model: SearchModel
) -> dict[str, Floats]:
    """Scores [G, Q] of all entries and queries by way."""
    found = {}
    known = [name for name in subset if name in model.modalities]
    if len(known) == len(subset):
        vectors = model.spectra({name: queries[name] for name in subset})
        found["embedding"] = score.dots(entries["structure"], vectors)
    if all(f"learned-{name}" in entries for name in subset):
        alone = {name: model.spectra({name: queries[name]}) for name in subset}
        parts = [score.dots(entries[f"learned-{name}"], alone[name]) for name in subset]
        found["learned"] = score.mean_of(np.stack(parts))
    if all(f"samples-{name}" in entries for name in subset):
        for way, compare in (("cosine", score.cosines), ("sid", score.information)):
            parts = [
                compare(
                    np.asarray(entries[f"samples-{name}"], np.float32),
                    unit(coarse(queries[name], modality(name))),
                )
                for name in subset
            ]
            found[way] = score.mean_of(np.stack(parts))
    return found


def _fit(values: Floats, weights: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Temperature, accuracy and mean first confidence for scores [G, Q]; query q is entry q."""
    scores = np.where(np.isnan(values), -np.inf, values).astype(np.float64)
    true = np.diagonal(scores)

    def loss(log_temperature: float) -> float:
        scaled = np.exp(-log_temperature)
        return float(np.mean(logsumexp(scores * scaled + weights[:, None], axis=0) - true * scaled))

    temperature = float(np.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded").x))
    first = scores.argmax(0)
    shares = softmax(scores / temperature + weights[:, None], axis=0)
    single = shares / np.exp(weights)[:, None]  # of one entry, not of all that it stands for
    accuracy = float(np.mean(first == np.arange(len(first))))
    return temperature, accuracy, float(single[first, np.arange(len(first))].mean())
