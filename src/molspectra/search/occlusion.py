"""Which bands of a query carry an answer: what its margins lose when one of them counts as not measured.

A margin is the score of the answer less that of others. It tells more than the score itself: a spectrum that
fits perfectly still does so without one of its bands, but others may then fit nearly as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.errors import ValueRangeError
from molspectra.search import score
from molspectra.search.calibrate import sample
from molspectra.search.hits import Hits
from molspectra.search.library import Library
from molspectra.search.pipeline import Pipeline
from molspectra.search.query import Prepared
from molspectra.spectra.modality import Modality, modality

SCALED = ("match", "shape")
"""Ways that look for a factor on the axis."""

_UNMOVED = Pipeline(scale=1.0)  # factors are applied before

Window = tuple[float, float]
"""A part of the axis of a query as it was measured, from the lower to the upper end."""


def moved(prepared: Prepared, kind: Modality, factor: float) -> Prepared:
    """A prepared spectrum with all positions times a factor."""
    if factor == 1:
        return prepared
    axis = kind.axis()

    def stretched(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.interp(axis / factor, axis, values.astype(np.float64), left=0, right=0)

    return replace(
        prepared,
        values=stretched(prepared.values),
        signed=stretched(prepared.signed),
        measured=stretched(prepared.measured) > 0.999,
        known=stretched(prepared.known) > 0.999,
    )


def hidden(prepared: Prepared, kind: Modality, window: Window) -> Prepared:
    """A prepared spectrum of which a part counts as not measured."""
    axis = kind.axis()
    outside = (axis < window[0]) | (axis > window[1])
    known = prepared.known & outside
    values = np.where(known, prepared.values, 0)
    return replace(prepared, values=values, measured=prepared.measured & outside, known=known)


class Loss(NamedTuple):
    """What an answer loses, in units of the scores of the search; None where it cannot be told.

    Attributes:
        weight: of its margin over the mean of the library (of a sample, see
            `molspectra.search.calibrate.sample`): why such a molecule was found.
        lead: of its margin over the best other listed answer: why this one rather than the next.
    """

    weight: float | None = None
    lead: float | None = None


@dataclass(frozen=True, eq=False)
class Occlusion:
    """One answer of a search, to be scored again without parts of the query.

    `SCALED` ways take the factors on the axis that fit this answer, for the others too: with several factors,
    a hidden part would cover whatever any of them moves there.

    Attributes:
        library: that was searched.
        hits: its answers.
        row: of the answer.
        prepared: spectra of the query by modality, on the axis as measured.
        scales: factors on the axis of the library that fit the answer, by modality.
        pipeline: of the search.
    """

    library: Library
    hits: Hits
    row: int
    prepared: Mapping[str, Prepared]
    scales: Mapping[str, float]
    pipeline: Pipeline

    def losses(self, name: str, windows: Sequence[Window | None]) -> list[Loss]:
        """What the margins of the answer lose without each of some windows of one spectrum."""
        kind, whole, found = modality(name), self._margins(self.prepared), []
        for window in windows:
            if window is None:
                found.append(Loss())
                continue
            spectrum = hidden(self.prepared[name], kind, window)
            left = self._margins({**self.prepared, name: spectrum}) if spectrum.values.any() else Loss()
            pairs = zip(whole, left, strict=True)
            found.append(Loss(*(None if a is None or b is None else a - b for a, b in pairs)))
        return found

    def _margins(self, prepared: Mapping[str, Prepared]) -> Loss:
        """The margins of the answer; None where they cannot be told."""
        listed = self.hits.table["row"].to_numpy()
        everywhere = sample(len(self.library))
        rows = np.unique(np.concatenate([listed, everywhere]))
        totals = np.zeros(len(rows))
        for way, weight in self.hits.ways.items():
            try:
                query = self.library.query(self._placed(prepared, way), [way], _UNMOVED)
            except ValueRangeError:  # too little is left
                return Loss()
            found = self.library.scores(way, query, rows)[rows]
            if len(self.hits.ways) > 1:
                (temperature,) = self.library.temperatures([way], query)
                found = weight * found / (temperature or score.TEMPERATURE[way])
            totals += found
        is_other = (rows != self.row) & ~np.isnan(totals)
        own = float(totals[rows == self.row][0])
        if np.isnan(own):
            return Loss()
        library, rivals = (totals[is_other & np.isin(rows, each)] for each in (everywhere, listed))
        return Loss(
            own - float(library.mean()) if len(library) else None,
            own - float(rivals.max()) if len(rivals) else None,
        )

    def _placed(self, prepared: Mapping[str, Prepared], way: str) -> dict[str, Prepared]:
        """Spectra on the axis of the library."""
        scales = self.scales if way in SCALED else {}
        return {
            name: moved(spectrum, modality(name), 1 / scales.get(name, self.pipeline.scale or 1.0))
            for name, spectrum in prepared.items()
        }
