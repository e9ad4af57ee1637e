"""A searchable library of molecules: `Library` is what programs use, and what the commands call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError
from molspectra.search import approximate, build, score
from molspectra.search.build import Added, model_of, open_segments
from molspectra.search.calibrate import key
from molspectra.search.filters import Filters
from molspectra.search.hits import Hits
from molspectra.search.manifest import Manifest, read_manifest
from molspectra.search.query import Prepared, Query, Spectrum, prepare, query_of
from molspectra.search.ranking import Answers, confidences, leading
from molspectra.search.segment import Segment, file_hash
from molspectra.search.sources import Source
from molspectra.search.vectors import SearchModel
from molspectra.spectra.modality import MODALITIES, modality

Ways = str | Sequence[str] | Mapping[str, float]
"""One way to score, several with equal weights, or several with their weights."""

_SHOWN = ("name", "smiles", "formula", "mass", "charge", "identity")


class Library:
    """An open index: n entries, memory-mapped, of A different molecules.

    It shows the state at the time of opening; what is appended later is seen by opening it again.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
        segments: its parts.
        table: molecules of all segments, see `molspectra.search.segment`.
    """

    def __init__(self, path: Path | str, model: Path | str | None = None, *, device: str = "cpu") -> None:
        """Open an index.

        Args:
            path: its folder.
            model: the model that must have made it; None takes the copy in the index.
            device: where the model computes.

        Raises:
            InputError: no index, a damaged one, or one that another model made.
        """
        self.path, self._model, self._device = Path(path), model, device
        self._open()
        if model is not None:
            _ = self.model  # refuse another one now

    def _open(self) -> None:
        self.manifest: Manifest = read_manifest(self.path)
        self.segments: list[Segment] = open_segments(self.path, self.manifest)
        self.table = pa.concat_tables([each.table for each in self.segments])
        for name in ("answers", "_approximate"):
            self.__dict__.pop(name, None)

    @classmethod
    def build(cls, out: Path | str, source: Source, model: Path | str, **options: Any) -> Library:
        """Make an index and open it; arguments and errors as in `molspectra.search.build.build`."""
        build.build(out, source, model, **options)
        return cls(out, device=options.get("device", "cpu"))

    def append(self, source: Source, **options: Any) -> Added:
        """Add molecules and show them; arguments and errors as in `molspectra.search.build.append`."""
        added = build.append(self.path, source, self._model, device=self._device, **options)
        self._open()
        return added

    def __len__(self) -> int:
        """Return the number of entries n."""
        return len(self.table)

    def __repr__(self) -> str:
        """Return a short description for people."""
        spectra = ", ".join(self.manifest.modalities) or "no spectra"
        return f"Library({str(self.path)!r}, {len(self)} entries, {spectra})"

    @cached_property
    def model(self) -> SearchModel:
        """The model that made the index, loaded on first use."""
        return model_of(self.path, self.manifest, self._model, self._device)

    @cached_property
    def answers(self) -> Answers:
        """Which entries are the same molecule."""
        return Answers(self.table["identity"])

    @cached_property
    def _approximate(self) -> Any:
        entry = self.manifest.approximate
        if entry is None:
            raise InputError(
                f"{self.path}: no approximate index; molspectra index --approximate --out makes one"
            )
        return approximate.load(self.path / entry.file, entry.hash, entry.rows, self.manifest.model.width)

    def molecule(self, row: int) -> Molecule:
        """The structure of an entry.

        Raises:
            InputError: the file is damaged there.
        """
        (record,) = self.table.slice(row, 1).to_pylist()
        positions = np.array(record["positions"], np.float64)
        try:
            return Molecule(
                np.array(record["numbers"], np.int64),
                positions.reshape(-1, 3),
                record["smiles"],
                record["charge"],
                record["name"],
            )
        except (InputError, ValueError) as error:
            raise InputError(f"{self.path}, row {row}: the structure is damaged") from error

    def verify(self) -> None:
        """Read all files and compare them with their hashes.

        Raises:
            InputError: a file was changed.
        """
        for segment in self.manifest.segments:
            for name, expected in segment.files.items():
                path = self.path / segment.name / Path(name).name
                if not path.is_file() or file_hash(path) != expected:
                    raise InputError(f"{path}: not what was written; make the index again")
        _ = self.model

    def search(
        self,
        spectra: Mapping[str, Spectrum | Prepared],
        *,
        by: Ways = "embedding",
        formula: str | None = None,
        mass: float | None = None,
        within: str = "10 ppm",
        elements: Sequence[str] | None = None,
        contains: Sequence[str] | None = None,
        top: int = 25,
        approximate: bool = False,
    ) -> Hits:
        """Rank the molecules of the library by spectra of one sample.

        Mirror images, conformers and other entries with the same identity are one answer, with the score of
        its best entry. Of several ways to score, the scores are divided by their temperatures and averaged
        with the weights. Confidences are told where the index is calibrated for these ways and spectra.

        Args:
            spectra: one or several, by modality: a file, a `MeasuredSpectrum`, `SampledSpectrum` or
                `LineSpectrum`.
            by: how to score, see `molspectra.search.score.WAYS`.
            formula: see `molspectra.search.filters.Filters`, as the next four.
            mass: Da.
            within: tolerance of the mass.
            elements: no others.
            contains: at least these.
            top: number of answers.
            approximate: look only at entries that an approximate index proposes (`embedding` without
                filters). Confidences, which need the scores of all, are not told then.

        Raises:
            InputError: a spectrum or filter that cannot be used, or a way that the library has no data for.
        """
        ways, filters = weights_of(by), Filters(formula, mass, within, elements, contains)
        if top < 1:
            raise InputError(f"at least one answer must be asked for, not {top}")
        mask = filters.select(self.table)
        if approximate and (mask is not None or list(ways) != ["embedding"]):
            raise InputError("approximate search is by embedding alone and without filters")
        query = self._query(spectra, ways)
        rows = None if mask is None else np.flatnonzero(mask)
        if approximate:
            assert query.vector is not None
            rows = self._proposed(query.vector, top)
        return self._ranked(query, tuple(spectra), ways, rows, top, approximate)

    def _query(self, spectra: Mapping[str, Spectrum | Prepared], ways: Mapping[str, float]) -> Query:
        if not spectra:
            raise InputError("a search needs at least one spectrum")
        names = [name for name in MODALITIES if name in {modality(each).name for each in spectra}]
        prepared = {
            name: each if isinstance(each := spectra[name], Prepared) else prepare(each, name)
            for name in names
        }
        vectors = not {"embedding", "learned"}.isdisjoint(ways)
        typical = self.manifest.typical_spectra()
        query = query_of(prepared, self.model if vectors else None, typical, learned="learned" in ways)
        for way in ways:
            if way != "embedding" and not score.modalities_of(way, self.segments[0].arrays, query):
                has = ", ".join(self.manifest.modalities) or "none"
                raise InputError(
                    f"{self.path}: no {' or '.join(names)} spectra to compare by {way}; it has: {has}"
                )
        return query

    def _proposed(self, vector: npt.NDArray[np.float32], top: int) -> npt.NDArray[np.int64]:
        """Rows that the approximate index proposes, and all that it does not hold."""
        found = approximate.candidates(self._approximate, vector, top)
        return np.concatenate([found, np.arange(self._approximate.ntotal, len(self))])

    def _ranked(
        self,
        query: Query,
        given: tuple[str, ...],
        ways: dict[str, float],
        rows: npt.NDArray[np.int64] | None,
        top: int,
        partial: bool,
    ) -> Hits:
        """Score the given rows (None for all) and rank their molecules."""
        each = {way: self._scores(way, query, rows) for way in ways}
        heat = {way: self._temperature(way, query, given) for way in ways}
        totals = sum(weight * each[way] / heat[way][0] for way, weight in ways.items())
        assert isinstance(totals, np.ndarray)
        missing = np.isnan(totals)
        asked = len(self) if rows is None else len(rows)
        remarks = list(query.remarks)
        left_out = int(missing.sum()) - (len(self) - asked)
        if left_out:
            remarks.append(f"{left_out} entries have none of the spectra and are left out")
        best, entry = self.answers.best(np.where(missing, -np.inf, totals))
        chosen = leading(best, top)
        sure = None
        if not partial and all(known for _, known in heat.values()):
            sure = confidences(best, chosen)
        place = entry[chosen]
        (only, *more) = ways
        value = best[chosen] if more else each[only][place]
        return Hits(
            self._table(place, value, sure, {way: each[way][place] for way in ways} if more else {}),
            ways,
            int((best > -np.inf).sum()),
            len(self.answers),
            tuple(remarks),
        )

    def _table(
        self,
        rows: npt.NDArray[np.int64],
        value: npt.NDArray[np.float64],
        sure: npt.NDArray[np.float64] | None,
        parts: Mapping[str, npt.NDArray[np.float64]],
    ) -> pa.Table:
        # slices, since taking from a long table would first copy all of it
        slices = [self.table.slice(int(row), 1) for row in rows] or [self.table.slice(0, 0)]
        found = pa.concat_tables(slices).select(_SHOWN).combine_chunks()
        numbers = {
            "rank": pa.array(np.arange(1, len(rows) + 1)),
            **{name: found[name] for name in _SHOWN[:-1]},
            "score": pa.array(value, pa.float64()),
            "confidence": pa.nulls(len(rows), pa.float64()) if sure is None else pa.array(sure),
            **{way: pa.array(values, pa.float64()) for way, values in parts.items()},
            "identity": found["identity"],
            "row": pa.array(rows),
        }
        return pa.table(numbers)

    def _scores(self, way: str, query: Query, rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64]:
        """Scores of all entries [n], NaN for those that are not among `rows` or cannot be compared."""
        found = np.full(len(self), np.nan)
        for start, segment in self._starts():
            for first in range(0, len(segment), score.BLOCK):
                last = min(first + score.BLOCK, len(segment))
                if rows is None:
                    found[start + first : start + last] = score.scores(
                        way, segment.arrays, query, slice(first, last)
                    )
                    continue
                low, high = np.searchsorted(rows, (start + first, start + last))
                mine = rows[low:high]
                if len(mine):
                    found[mine] = score.scores(way, segment.arrays, query, mine - start)
        return found

    def _starts(self) -> Iterator[tuple[int, Segment]]:
        start = 0
        for segment in self.segments:
            yield start, segment
            start += len(segment)

    def _temperature(self, way: str, query: Query, given: tuple[str, ...]) -> tuple[float, bool]:
        """What scores are divided by, and whether it was calibrated."""
        if way == "embedding":
            used = tuple(
                name for name in MODALITIES if name in given and name in self.manifest.model.modalities
            )
        else:
            used = score.modalities_of(way, self.segments[0].arrays, query)
        calibration = self.manifest.calibration
        found = None if calibration is None else calibration.temperature.get(key(way, used))
        return (score.TEMPERATURE[way], False) if found is None else (found, True)


def weights_of(by: Ways) -> dict[str, float]:
    """Weights of the ways to score, positive and with sum 1.

    Raises:
        InputError: an unknown way, none at all, one twice, or weights that are not positive numbers.
    """
    if isinstance(by, str):
        by = [by]
    given = dict(by) if isinstance(by, Mapping) else dict.fromkeys(by, 1.0)
    if not given or len(given) != len(by):
        raise InputError("name at least one way to score, and each only once")
    for way, weight in given.items():
        score.known_way(way)
        if not (np.isfinite(weight) and weight > 0):
            raise InputError(f"the weight of {way} must be a positive number, not {weight}")
    total = sum(given.values())
    return {way: weight / total for way, weight in given.items()}
