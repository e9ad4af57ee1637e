"""Calibration of confidences: temperatures fitted on searches whose right answer is known.

A confidence is a mixture of two softmaxes over all answers of a search, of score / T with a small and a large
T: some spectra are more disturbed than others. It is lowered by a share of spectra whose first answer leads
by chance, in proportion to the share of the library that is searched. So it is the probability that an answer
is right provided that the right one is in the library. Both T are fitted by maximum likelihood to searches
without and with a formula, for every way to score and every set of modalities: held-out molecules are
searched among themselves and a sample of the library, whose weight in the softmax is raised to that of the
whole library. The queries are simulated spectra with the differences that measured ones have
(`measured_like`).

The same queries, searched with and without their own molecule among the molecules of their formula, tell how
far the best score lies above what the whole library reaches where the right molecule is missing
(`Calibration.missing`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.retrieval import subsets
from molspectra.search import network, score
from molspectra.search.manifest import Calibration, Mixture
from molspectra.search.query import Query
from molspectra.search.ranking import Doubles
from molspectra.search.segment import Arrays, arrays_of
from molspectra.search.shape import Shapes, shapes
from molspectra.search.sources import Block, rows_of_store
from molspectra.search.vectors import Floats, SearchModel, coarse, stored_points, unit
from molspectra.spectra.modality import Modality, modality
from molspectra.training.data import Selection, open_store
from molspectra.training.record import read_run

QUERIES = 512
"""Largest number of held-out molecules."""
MIN_QUERIES = 8
"""Smallest number of held-out molecules for a calibration."""
DISTRACTORS = 4_096
"""Largest number of entries of the library that they are searched among."""
SCALE = (0.98, 0.01)
"""Mean and standard deviation of the factor on the axis of measured-like queries."""
WARP = {"cm⁻¹": 3.0, "eV": 1.5}
"""Standard deviation of the shifts of bands in default line widths, by unit of the axis: 36 cm⁻¹, 0.45 eV."""
CORRELATION = 5.0
"""Distance over which shifts and factors change, in default line widths."""
GAIN, NOISE = 1.0, 0.005
"""Standard deviations of the logarithm of factors on intensities, and of noise relative to the largest."""
FALSE_ALARMS = 0.1
"""Share of the searches with the right molecule in the library that are told that it is not there."""
USEFUL = 0.3
"""Share of the missing molecules that must be found for this to be told at all."""
REFERENCE = 0.01
"""Share of the library that scores higher than what a best score is compared with."""
COVERED = 0.75
"""Share of the axis that a spectrum must cover for a calibration to hold; it is fitted on whole spectra."""
SEED = 20_250_101
"""Of the differences of the queries that a calibration is fitted on."""

_FACTORS = np.geomspace(0.4, 4, 11)  # on the temperature, of the two of a mixture
_WHOLE = 0.01  # logarithm of the weight of distractors that are all entries of the library, at most
_FEWEST = 30  # queries for a share of `FALSE_ALARMS`
_BOUNDS = (np.log(1e-4), np.log(1e2))


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Rows of a store whose molecules a model was not trained on, and a name for them."""

    store: Store
    rows: npt.NDArray[np.int64]
    source: str

    def block(self, modalities: tuple[str, ...], elements: frozenset[int] | None) -> Block | None:
        """Up to `QUERIES` different molecules that have all these spectra; None where there are too few.

        Those with other elements than the model's (None: not known) are left out, as a library leaves them.
        """
        has_all = np.logical_and.reduce([self.store.has(name)[self.rows] for name in modalities])
        identities = self.store.identities
        first_rows: dict[str, int] = {}
        for row in self.rows[has_all]:
            first_rows.setdefault(identities[row], int(row))
        rows = list(first_rows.values())
        if len(rows) < MIN_QUERIES:
            return None
        chosen = np.array(rows)[np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).astype(int)]
        if elements is not None:
            known = [elements.issuperset(self.store.molecule(int(row)).numbers.tolist()) for row in chosen]
            chosen = chosen[known]
            if len(chosen) < MIN_QUERIES:
                return None
        return rows_of_store(self.store, chosen, identities, modalities)


def held_out(source: Path | str | Store | None, run: Path | str) -> HeldOut | None:
    """Held-out molecules for a calibration; None where there are none.

    Args:
        source: a store of molecules that the model was not trained on, up to the caller; None for none; or
            "run", the validation molecules of the run, unless its store is missing or has changed.
        run: run of the model.

    Raises:
        NotFoundError: no such store.
    """
    if source is None:
        return None
    if isinstance(source, Store) or str(source) != "run":
        store = source if isinstance(source, Store) else open_store(str(source))
        return HeldOut(store, np.arange(len(store)), store.path.name)
    try:
        config, record = read_run(Path(run))
        selection = Selection.of(config.data)
    except InputError:
        return None
    if record["data"]["hash"] != selection.store.hash:
        return None
    return HeldOut(selection.store, selection.val, "validation molecules of the model's training")


def measured_like(spectra: Floats, name: str, seed: int = SEED, strength: float = 1.0) -> Floats:
    """Computed spectra [B, points] of a modality as if an instrument had measured them, equal for each seed.

    Bands move together by a factor on the axis and each by a smooth random field, since a level of theory has
    other errors for other kinds of bands; intensities change by smooth random factors; noise is added, which
    may be negative. A disturbed spectrum scores with its own molecule as high as a measured one does with
    B3LYP lines (0.85 and 0.84 by `match`), but higher than one with scaled or GFN2-xTB lines (0.80, 0.75):
    for those the differences are rather too small (docs, "Identify an unknown").

    Args:
        spectra: as computed.
        name: of the modality.
        seed: of the differences.
        strength: factor on the shifts of single bands and on the logarithms of the factors on intensities.
    """
    kind = modality(name)
    generator = np.random.default_rng(seed)
    axis = kind.axis()
    width = CORRELATION * kind.fwhm / kind.step
    shape = (len(spectra), kind.points)

    def field(deviation: float) -> npt.NDArray[np.float64]:
        smooth = gaussian_filter1d(generator.normal(size=shape), width, axis=1, mode="wrap")
        return np.asarray(smooth * (deviation * np.sqrt(2 * np.sqrt(np.pi) * width)), np.float64)

    scales = generator.normal(*SCALE, len(spectra))
    shifts, gains = field(strength * WARP[kind.unit] * kind.fwhm), field(strength * GAIN)
    moved = np.stack(
        [
            np.interp(axis / scale - shift, axis, row * np.exp(gain), left=0, right=0)
            for scale, shift, gain, row in zip(scales, shifts, gains, spectra, strict=True)
        ]
    )
    noise = generator.normal(0, NOISE, moved.shape) * moved.max(1, keepdims=True)
    return (moved + noise).astype(np.float32)


def calibrate(
    block: Block | None,
    model: SearchModel,
    library: Arrays,
    identities: list[str],
    formulas: list[str],
    answers: int,
    source: str,
) -> Calibration | None:
    """Fit temperatures for every way to score and every set of modalities.

    Ways without a model are calibrated on the library's own molecules, others on held-out ones.

    Args:
        block: held-out molecules, all of which have the same spectra; None where there are none.
        model: of the library.
        library: arrays of a sample of the library's entries [m, …].
        identities: of these entries [m].
        formulas: of these entries [m].
        answers: different molecules in the library.
        source: name of the held-out molecules.

    Returns:
        None where there are too few molecules for any way.
    """
    parts, sources = [], []
    own = _own(library, identities)
    others = library, identities, formulas, answers
    if own is not None:
        arrays, spectra, rows = own
        molecules = [identities[row] for row in rows], [formulas[row] for row in rows]
        parts.append(_fitted(arrays, spectra, molecules, None, *others, ("match", "shape", "cosine", "sid")))
        sources.append("the library's own molecules")
    if block is not None:
        stored = [name for name in block.spectra if f"samples-{name}" in library]
        entries = arrays_of(block, model, stored)
        molecules = block.identities, [molecule.formula for molecule in block.molecules]
        parts.append(_fitted(entries, block.spectra, molecules, model, *others, ("embedding", "learned")))
        sources.append(f"{source} (embedding, learned)" if own is not None else source)
    if not parts:
        return None
    fits = {name: each for part in parts for name, each in part.items()}
    return Calibration(
        max(len(each) for each in (own[2] if own else [], block or [])),
        {name: fit.temperature for name, fit in fits.items()},
        {name: fit.accuracy for name, fit in fits.items()},
        {name: fit.confidence for name, fit in fits.items()},
        ", ".join(sources),
        {name: fit.mixture for name, fit in fits.items()},
        {name: fit.missing for name, fit in fits.items() if fit.missing is not None},
    )


def _own(library: Arrays, identities: list[str]) -> tuple[Arrays, dict[str, Floats], list[int]] | None:
    """Entries of the library with all its kinds of spectra as queries; None where there are too few.

    Returns:
        Their arrays [B, …], spectra [B, points] by modality, and rows [B], no two of the same identity.
    """
    names = [name.removeprefix("samples-") for name in library if name.startswith("samples-")]
    if not names:
        return None
    has_all = np.logical_and.reduce([library[f"samples-{name}"].any(1) for name in names])
    firsts: dict[str, int] = {}
    for row in np.flatnonzero(has_all).tolist():
        firsts.setdefault(identities[row], row)
    rows = np.array(list(firsts.values()), np.int64)
    if len(rows) < MIN_QUERIES:
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).astype(int)]
    spectra = {name: _fine(library[f"samples-{name}"][rows], modality(name)) for name in names}
    arrays = {name: array[rows] for name, array in library.items()}
    return arrays, spectra, rows.tolist()


def _fine(samples: npt.NDArray[np.floating], kind: Modality) -> Floats:
    """Spectra [B, points] on the modality's axis from stored points [B, P], by linear interpolation."""
    axis, centres = kind.axis(), coarse(kind.axis(), kind)
    return np.stack([np.interp(axis, centres, row) for row in samples]).astype(np.float32)


def _fitted(
    held_out: Arrays,
    spectra: Mapping[str, Floats],
    molecules: tuple[list[str], list[str]],
    model: SearchModel | None,
    library: Arrays,
    identities: list[str],
    formulas: list[str],
    answers: int,
    ways: tuple[str, ...],
) -> dict[str, Fit]:
    """The fits of some ways by "way:modalities".

    Args:
        held_out: arrays [B, …] of the molecules of the queries.
        spectra: of these [B, points], by modality.
        molecules: their identities [B] and formulas [B].
        model: for the ways that need one.
        library: arrays of a sample of the library's entries [m, …].
        identities: of these entries [m].
        formulas: of these entries [m].
        answers: different molecules in the library.
        ways: which are fitted.
    """
    names = tuple(spectra)
    own, own_formulas = molecules
    distractors = np.flatnonzero(~np.isin(identities, own))
    entries = {name: np.concatenate([array, library[name][distractors]]) for name, array in held_out.items()}
    # each distractor stands for several of the library's answers
    shared = len(set(identities) & set(own))
    log_weight = np.log(max(answers - shared, 1) / max(len(distractors), 1))
    log_weights = np.concatenate([np.zeros(len(own)), np.full(len(distractors), max(log_weight, 0.0))])
    same = None
    if log_weight < _WHOLE:  # a sample of the library has too few of a formula
        entry_formulas = np.array(own_formulas + [formulas[row] for row in distractors])
        same = entry_formulas[:, None] == np.array(own_formulas)
    signed = {name: measured_like(each, name) for name, each in spectra.items()}
    queries = {name: np.maximum(each, 0) for name, each in signed.items()}
    learned: dict[str, Floats] = {}
    samples: dict[str, tuple[Floats, npt.NDArray[np.bool_]]] = {}
    bands: dict[str, Shapes] = {}
    trained = None
    if model is None and network.MODALITY in queries and network.ARRAY in entries:
        trained = network.stretched(queries[network.MODALITY], network.SCALES)
    for name in names:
        kind = modality(name)
        if model is None:
            samples[name] = unit(coarse(queries[name], kind)), np.ones(stored_points(kind), bool)
            everywhere = np.ones(kind.points, bool)
            bands[name] = shapes(signed[name], everywhere, everywhere, kind)
        elif name in model.modalities:
            learned[name] = model.spectra({name: queries[name]})
    fits = {}
    for subset in subsets(names):
        is_readable = model is not None and set(subset) <= learned.keys()
        embedded = {name: queries[name] for name in subset} if is_readable else {}
        query = Query(
            model.spectra(embedded) if model and embedded else None,
            embedded,
            {name: learned[name] for name in subset if name in learned},
            {name: samples[name] for name in subset if name in samples},
            {name: bands[name] for name in subset if name in bands},
            trained if network.MODALITY in subset else None,
        )
        for way in ways:
            if score.modalities_of(way, entries, query) == subset:
                scores = score.scores(way, entries, query, slice(None))
                fits[key(way, subset)] = replace(
                    _fit(scores, log_weights, same),
                    missing=None if same is None else _missing(scores, same),
                )
    return fits


def key(way: str, modalities: tuple[str, ...]) -> str:
    """Key of a temperature; the modalities are in the order of `MODALITIES`."""
    return f"{way}:{'+'.join(modalities)}"


@dataclass(frozen=True)
class Fit:
    """What is fitted for one way to score and one set of modalities; see `Calibration`.

    Attributes:
        temperature: of a single softmax.
        mixture: share, and factors on the temperature, of two softmaxes, and the share of chance.
        accuracy: fraction of the queries whose first answer is right.
        confidence: mean confidence of the first answers.
        missing: see `_missing`.
    """

    temperature: float
    mixture: Mixture
    accuracy: float
    confidence: float
    missing: tuple[float, float] | None = None


def _fit(similarities: Floats, log_weights: Doubles, same: npt.NDArray[np.bool_] | None = None) -> Fit:
    """Temperature and mixture by maximum likelihood, accuracy, and mean confidence of the first answers.

    Args:
        similarities: [G, Q] of entries and queries; the right answer of query q is entry q.
        log_weights: [G] logarithm of the number of answers that an entry stands for.
        same: [G, Q] mask of the entries with the formula of a query, to fit the mixture to such searches too.
    """
    scores = np.where(np.isnan(similarities), -np.inf, similarities).astype(np.float64)
    first, queries = scores.argmax(0), np.arange(scores.shape[1])
    true, top = np.diagonal(scores), scores.max(0)

    def log_sum(scores: Doubles, temperature: float) -> Doubles:
        return np.asarray(logsumexp(scores / temperature + log_weights[:, None], axis=0), np.float64)

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return -float(np.mean(true / temperature - log_sum(scores, temperature)))

    temperature = float(np.exp(minimize_scalar(loss, bounds=_BOUNDS, method="bounded").x))
    temperatures = _FACTORS * temperature
    sums = [log_sum(scores, each) for each in temperatures]
    searched = [np.exp(true / each - total) for each, total in zip(temperatures, sums, strict=True)]
    if same is not None:
        several = same.sum(0) > 1
        of_formula = np.where(same, scores, -np.inf)[:, several]
        for place, each in enumerate(temperatures):
            alike = np.exp(true[several] / each - log_sum(of_formula, each))
            searched[place] = np.concatenate([searched[place], alike])
    mixtures = []
    for (small, one), (large, other) in combinations(enumerate(searched), 2):
        fit = minimize_scalar(
            lambda share, one=one, other=other: (
                -np.mean(np.log(np.maximum(share * one + (1 - share) * other, 1e-300)))
            ),
            bounds=(0, 1),
            method="bounded",
        )
        mixtures.append((float(fit.fun), float(fit.x), small, large))
    _, share, small, large = min(mixtures)
    leads = [np.exp(top / temperatures[each] - sums[each]) for each in (small, large)]
    confidence = share * leads[0] + (1 - share) * leads[1]
    is_right = first == queries
    highest = np.argsort(confidence)[-max(len(queries) // 5, 1) :]
    # one right more than were found: few queries cannot show that none is
    observed = (is_right[highest].sum() + 1) / (len(highest) + 1)
    chance = float(np.clip(1 - observed / confidence[highest].mean(), 0, 1))
    return Fit(
        temperature,
        (share, float(_FACTORS[small]), float(_FACTORS[large]), chance),
        float(is_right.mean()),
        float((1 - chance) * confidence.mean()),
    )


def confidences(scores: Doubles, mixture: Mixture | None) -> Doubles:
    """Probabilities [A] of the molecules of a library from their scores [A] divided by the temperature.

    Args:
        scores: −inf for what is no candidate.
        mixture: see `Fit`; None for a single softmax.
    """
    share, small, large, chance = mixture or (1.0, 1.0, 1.0, 0.0)
    candidates = scores > -np.inf
    mixed = share * softmax(scores / small) + (1 - share) * softmax(scores / large)
    chance *= float(candidates.mean())
    return np.asarray((1 - chance) * mixed + chance * candidates / max(candidates.sum(), 1), np.float64)


def sample(entries: int) -> npt.NDArray[np.int64]:
    """Rows [m] of up to `DISTRACTORS` of a number of entries, evenly spaced."""
    return np.unique(np.linspace(0, entries - 1, min(entries, DISTRACTORS)).astype(np.int64))


def reference(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The score [...] that `REFERENCE` of a library's entries reach, of scores [m, ...] of a sample."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    place = len(known) - int(np.ceil(REFERENCE * len(known)))
    return np.asarray(np.partition(known, place, axis=0)[place])


def _missing(similarities: Floats, same: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """How far the best score of a formula must lie above `reference`, and how many missing molecules do not.

    Without a formula nothing tells a missing molecule: some other of the library fits as well.

    Args:
        similarities: [G, Q] of entries and queries; the right answer of query q is entry q.
        same: [G, Q] mask of the entries with the formula of a query; queries without another are left out.

    Returns:
        The threshold, which `FALSE_ALARMS` of the queries do not reach with their molecule in the library,
        and the share of the queries that do not reach it without; None if this is below `USEFUL`.
    """
    scores = np.where(np.isnan(similarities), -np.inf, similarities).astype(np.float64)
    queries = np.arange(scores.shape[1])
    counted = same.sum(0) > 1
    if counted.sum() < _FEWEST:
        return None

    def margins() -> Doubles:
        return np.asarray(np.where(same, scores, -np.inf).max(0) - reference(scores), np.float64)[counted]

    threshold = float(np.quantile(margins(), FALSE_ALARMS))
    scores[queries, queries] = -np.inf
    found = float(np.mean(margins() < threshold))
    return (threshold, found) if found >= USEFUL else None
