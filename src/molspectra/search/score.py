"""Similarities of library entries and queries: of embeddings, and of the shapes of spectra.

n entries, Q queries, D width, P stored points. A row of zeros stands for a spectrum that an entry does not
have; its similarity is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from molspectra.search import network, shape
from molspectra.search.query import Query
from molspectra.search.vectors import Floats
from molspectra.spectra.modality import modality

WAYS: dict[str, str] = {
    "match": "shape, and for infrared a network trained on spectra disturbed as measured ones differ",
    "shape": "positions of bands: cosine of smeared logarithms, the best of several factors on the axis",
    "embedding": "embedding of the query's spectra against embeddings of structures",
    "learned": "embedding of each spectrum against embeddings of the library's spectra",
    "cosine": "cosine of the query's spectra with the library's",
    "sid": "1 / (1 + spectral information divergence) of the query's spectra and the library's",
}
"""Ways to score, with descriptions."""

SPECTRAL = ("match", "shape", "cosine", "sid")
"""Ways that compare spectra without a stage-2 model."""

TEMPERATURE = {"match": 0.03, "shape": 0.03, "embedding": 0.07, "learned": 0.07, "cosine": 0.05, "sid": 0.05}
"""Temperatures that scores are divided by in combinations without a calibration."""

BLOCK = 16_384
"""Entries per pass."""

_FLOOR = 1e-3  # of the mean intensity, added before logarithms are taken


def dots(entries: Floats, queries: Floats) -> Floats:
    """Inner products [n, Q] of entries [n, D] and queries [Q, D]; NaN for entries of zeros."""
    products: Floats = entries @ queries.T
    candidates = np.flatnonzero((products == 0).all(1))  # testing all entries would cost more than products
    products[candidates[~entries[candidates].any(1)]] = np.nan
    return products


def cosines(entries: Floats, queries: Floats) -> Floats:
    """Cosines [n, Q] of spectra [n, P] and [Q, P]."""
    lengths = np.linalg.norm(entries, axis=1)[:, None] * np.linalg.norm(queries, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        similarities: Floats = (entries @ queries.T) / lengths
    similarities[lengths == 0] = np.nan
    return similarities


def information(entries: Floats, queries: Floats) -> Floats:
    """Spectral information similarity 1 / (1 + SID), [n, Q], of spectra [n, P] and [Q, P].

    SID = Σ p ln(p/q) + Σ q ln(q/p) of spectra with sum 1 (Chang, IEEE Trans. Inf. Theory 46, 1927 (2000));
    the similarity is that of McGill et al., J. Chem. Inf. Model. 61, 2594 (2021). A thousandth of the mean is
    added to all points, so that points without intensity do not dominate.
    """
    p, q = _distribution(entries), _distribution(queries)
    log_p, log_q = np.log(p), np.log(q)
    own = (p * log_p).sum(1)[:, None] + (q * log_q).sum(1)
    divergence = np.maximum(own - p @ log_q.T - log_p @ q.T, 0)
    similarities: Floats = (1 / (1 + divergence)).astype(np.float32)
    similarities[~entries.any(1)] = np.nan
    return similarities


def _distribution(spectra: Floats) -> Floats:
    """Spectra [n, P] with the floor added and sum 1; uniform for a spectrum of zeros."""
    raised = spectra + _FLOOR * spectra.mean(1, keepdims=True)
    total = raised.sum(1, keepdims=True)
    shares: Floats = np.where(total > 0, raised / np.where(total > 0, total, 1), 1 / spectra.shape[1])
    return shares.astype(np.float32)


def modalities_of(way: str, arrays: Mapping[str, npt.NDArray[np.floating]], query: Query) -> tuple[str, ...]:
    """Modalities that both the query and the library's arrays have for a way."""
    if way == "embedding":
        return tuple(query.embedded)
    kind = "learned" if way == "learned" else "samples"
    spectra = {"learned": query.learned, "shape": query.shapes, "match": query.shapes}.get(way, query.samples)
    names = tuple(name for name in spectra if f"{kind}-{name}" in arrays)
    lacks_vectors = network.MODALITY in names and network.ARRAY not in arrays
    return () if way == "match" and lacks_vectors else names


def scores(
    way: str,
    arrays: Mapping[str, npt.NDArray[np.floating]],
    query: Query,
    rows: npt.NDArray[np.int64] | slice,
) -> Floats:
    """Scores [n, Q] of library rows, higher is better; the mean over the modalities that a row has.

    Args:
        way: one of `WAYS`.
        arrays: the library's arrays by name, see `segment`.
        query: spectra of Q samples.
        rows: n rows of the arrays.

    Returns:
        NaN for rows that have none of the query's spectra.
    """
    if way == "embedding":
        assert query.vector is not None
        return dots(_float32(arrays["structure"][rows]), query.vector)
    parts = []
    for name in modalities_of(way, arrays, query):
        if way == "learned":
            parts.append(dots(_float32(arrays[f"learned-{name}"][rows]), query.learned[name]))
            continue
        entries = _float32(arrays[f"samples-{name}"][rows])
        if way in ("shape", "match"):
            parts.append(shape.similarities(entries, query.shapes[name], modality(name)))
            if way == "match" and name == network.MODALITY:
                assert query.network is not None
                alike = network.similarities(_float32(arrays[network.ARRAY][rows]), query.network)
                parts[-1] = (1 - network.WEIGHT) * parts[-1] + network.WEIGHT * alike
            continue
        values, covered = query.samples[name]
        if not covered.all():
            entries, values = entries[:, covered], values[:, covered]
        parts.append((cosines if way == "cosine" else information)(entries, values))
    return mean_of(np.stack(parts))


def mean_of(parts: Floats) -> Floats:
    """Mean over the first axis of all values but NaN; NaN where all values are NaN."""
    known = ~np.isnan(parts)
    count = known.sum(0)
    total = np.where(known, parts, 0).sum(0, dtype=np.float32)
    mean: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def _float32(block: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(block, np.float32)
