"""A searchable library of molecules: `Library`, for programs and the commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.chem.elements import SYMBOLS
from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import check_for_model
from molspectra.errors import (
    DamagedError,
    ElementError,
    InputError,
    NotFoundError,
    SettingError,
    ValueRangeError,
    hint,
)
from molspectra.search import approximate as approximate_index
from molspectra.search import build, network, score
from molspectra.search.build import Added, model_of
from molspectra.search.calibrate import COVERED, FALSE_ALARMS, REFERENCE, confidences, key, reference, sample
from molspectra.search.filters import Filters
from molspectra.search.gas import Gases, gas_arrays, small_rows
from molspectra.search.hits import Hits
from molspectra.search.manifest import Manifest, read_manifest
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.query import Prepared, Query, Spectrum, prepare, query_of
from molspectra.search.ranking import Answers, groups, leading
from molspectra.search.segment import Arrays, Segment, file_hash, open_segments
from molspectra.search.sources import Source
from molspectra.search.vectors import Floats, SearchModel, stored_points
from molspectra.spectra.modality import IR, MODALITIES, modality

Ways = str | Sequence[str] | Mapping[str, float]
"""One way to score, several with equal weights, or several with their weights."""

_SHOWN = ("name", "smiles", "formula", "mass", "charge", "identity")


class Library:
    """An open index: n entries, memory-mapped, of A different molecules.

    It shows the state at the time of opening; open it again to see what was appended later.

    Attributes:
        path: its folder.
        manifest: content of its `library.json`.
        segments: its parts.
        table: molecules of all segments, see `molspectra.search.segment`.
    """

    def __init__(self, path: Path | str, model: Path | str | None = None, *, device: str = "cpu") -> None:
        """Open an index.

        Args:
            path: its folder.
            model: a model that must be the one that made it; None takes the copy in the index.
            device: where the model computes.

        Raises:
            InputError: no index, a damaged one, or one that another model made.
        """
        self.path, self._model, self._device = Path(path), model, device
        self._open()
        if model is not None:
            _ = self.model  # refuses another one now

    def _open(self) -> None:
        self.manifest: Manifest = read_manifest(self.path)
        self.segments: list[Segment] = open_segments(self.path, self.manifest)
        self.table = pa.concat_tables([segment.table for segment in self.segments])
        for name in ("answers", "_approximate", "_gases"):
            self.__dict__.pop(name, None)

    @classmethod
    def build(cls, out: Path | str, source: Source, model: Path | str = "base", **options: Any) -> Library:
        """Build an index and open it; arguments and errors as in `molspectra.search.build.build`."""
        build.build(out, source, model, **options)
        return cls(out, device=options.get("device", "cpu"))

    def append(self, source: Source, **options: Any) -> Added:
        """Add molecules and reopen; arguments and errors as in `molspectra.search.build.append`."""
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
        """The entries grouped by molecule."""
        return Answers(self.table["identity"])

    @cached_property
    def _approximate(self) -> Any:
        entry = self.manifest.approximate
        if entry is None:
            raise NotFoundError(
                f"{self.path}: no approximate index; molspectra index --approximate --out makes one"
            )
        width = self.manifest.model.width
        return approximate_index.load(self.path / entry.file, entry.hash, entry.rows, width)

    def molecule(self, row: int) -> Molecule:
        """The structure of an entry.

        Raises:
            DamagedError: the file is damaged there.
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
            raise DamagedError(f"{self.path}, row {row}: the structure is damaged") from error

    def stored(self, name: str, rows: npt.NDArray[np.int64]) -> Floats:
        """Stored points [k, P] of the spectra of some entries, zeros for those without one."""
        points, first = np.zeros((len(rows), stored_points(modality(name))), np.float32), 0
        for segment in self.segments:
            inside = (rows >= first) & (rows < first + len(segment))
            if f"samples-{name}" in segment.arrays:
                points[inside] = segment.arrays[f"samples-{name}"][rows[inside] - first]
            first += len(segment)
        return points

    def verify(self) -> None:
        """Read all files and compare them with their hashes.

        Raises:
            DamagedError: a file was changed.
            MismatchError: the model was changed.
        """
        for segment in self.manifest.segments:
            for name, expected in segment.files.items():
                path = self.path / segment.name / Path(name).name
                if not path.is_file() or file_hash(path) != expected:
                    raise DamagedError(f"{path}: not what was written; make the index again")
        _ = self.model

    def search(
        self,
        spectra: Mapping[str, Spectrum | Prepared],
        *,
        by: Ways | None = None,
        pipeline: Pipeline = DEFAULT,
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
        with the weights. There are confidences where the index is calibrated for these ways and spectra, and
        these cover most of the axis.

        Args:
            spectra: one or several, by modality: a file, a `MeasuredSpectrum`, `SampledSpectrum` or
                `LineSpectrum`.
            by: how to score, see `molspectra.search.score.WAYS`; None takes "match" for infrared and
                "shape" for other spectra where the library has such, else "embedding".
            pipeline: what is done to the spectra before they are compared.
            formula: see `molspectra.search.filters.Filters`, as the next four.
            mass: exact mass in Da.
            within: tolerance of the mass.
            elements: the only elements of an answer.
            contains: elements that an answer must have.
            top: number of answers.
            approximate: score only entries that an approximate index proposes (`embedding` without filters);
                without confidences, which need the scores of all.

        Raises:
            InputError: a spectrum or filter that cannot be used, or a way that the library has no data for.
        """
        ways = weights_of(self._default_way(spectra, approximate) if by is None else by)
        filters = Filters(formula, mass, within, elements, contains)
        if top < 1:
            raise ValueRangeError(f"at least one answer must be asked for, not {top}")
        mask, needs_model = filters.select(self.table), bool({"embedding", "learned"} & ways.keys())
        if needs_model and self.model.elements is not None:
            unknown = sorted(set(filters.required()) - self.model.elements)
            if unknown:
                known = ", ".join(SYMBOLS[number] for number in sorted(self.model.elements))
                raise ElementError(
                    f"{SYMBOLS[unknown[0]]} was asked for, which the model was not trained on, only {known}"
                )
        if approximate and (mask is not None or list(ways) != ["embedding"]):
            raise SettingError("approximate search is only by embedding and without filters")
        query = self.query(spectra, ways, pipeline)
        if by is None and "embedding" in ways and not approximate:
            remark = (
                f"no {' or '.join(spectra)} spectra in the library: its structures are compared (embedding)"
            )
            query = replace(query, remarks=(*query.remarks, remark))
        trained = self._trained() if needs_model else None
        if trained is not None:  # the index was made before such molecules were refused
            remark = "entries have elements that the model was not trained on and are left out"
            query = replace(query, remarks=(*query.remarks, f"{int((~trained).sum())} {remark}"))
            mask = trained if mask is None else mask & trained
        rows = None if mask is None else np.flatnonzero(mask)
        if approximate:
            assert query.vector is not None
            candidates = approximate_index.candidates(self._approximate, query.vector[0], top)
            appended = np.arange(self._approximate.ntotal, len(self))  # not in the approximate index
            rows = np.concatenate([candidates, appended])
            rows = rows if mask is None else rows[mask[rows]]
        return self._ranked(query, ways, rows, top, approximate)

    def nearest(self, molecule: Molecule, top: int = 10) -> Hits:
        """The molecules whose structures the model embeds most alike: by cosine, or as it was aligned.

        Raises:
            InputError: an element that the model was not trained on, or fewer than one answer.
        """
        if top < 1:
            raise ValueRangeError(f"at least one answer must be asked for, not {top}")
        check_for_model(molecule.numbers, molecule.positions, self.model.elements)
        trained = self._trained()
        rows = None if trained is None else np.flatnonzero(trained)
        scores = self.scores("embedding", Query(vector=self.model.structures([molecule])), rows)
        best, best_rows = self.answers.best(np.where(np.isnan(scores), -np.inf, scores))
        chosen = leading(best, top)
        table = self._table(best_rows[chosen], best[chosen], None, {})
        return Hits(table, {"embedding": 1.0}, int((best > -np.inf).sum()), len(self.answers), ())

    def _default_way(self, spectra: Mapping[str, Spectrum | Prepared], approximate: bool) -> str:
        """The way to score where none is named: spectra are compared with spectra where there are any."""
        has = {modality(name).name for name in spectra} & set(self.manifest.modalities)
        if not has or approximate:
            return "embedding"
        return "match" if network.MODALITY in has and network.ARRAY in self._arrays else "shape"

    @property
    def _arrays(self) -> Arrays:
        """Arrays of the first segment that all segments have."""
        first, *others = (segment.arrays for segment in self.segments)
        return {name: first[name] for name in first if all(name in each for each in others)}

    def query(
        self,
        spectra: Mapping[str, Spectrum | Prepared],
        ways: Collection[str],
        pipeline: Pipeline = DEFAULT,
    ) -> Query:
        """The spectra of a sample in the forms that some ways to score compare.

        Raises:
            InputError: a spectrum that cannot be used, or a way that the library has no data for.
        """
        if not spectra:
            raise SettingError("a search needs at least one spectrum")
        given = {modality(name).name for name in spectra}
        names = [name for name in MODALITIES if name in given]
        prepared = {name: prepare(spectra[name], name, pipeline=pipeline) for name in names}
        needs_model = "embedding" in ways or "learned" in ways
        typical = {name: np.array(values) for name, values in self.manifest.typical.items()}
        scales = pipeline.scales if {"shape", "match"} & set(ways) else None
        model = self.model if needs_model else None
        query = query_of(
            prepared, model, typical, learned="learned" in ways, scales=scales, match="match" in ways
        )
        for way in ways:
            if not score.modalities_of(way, self._arrays, query):
                has = ", ".join(self.manifest.modalities) or "none"
                if way == "match" and network.ARRAY not in self._arrays:
                    raise NotFoundError(
                        f"{self.path}: no vectors to match; make the index again, or use --by shape"
                    )
                raise NotFoundError(
                    f"{self.path}: no {' or '.join(names)} spectra to compare by {way}; it has: {has}"
                )
        return query

    def _trained(self) -> npt.NDArray[np.bool_] | None:
        """Mask [n] of the entries of elements that the model was trained on; None if all are."""
        if self.model.elements is None:
            return None
        symbols = [SYMBOLS[number] for number in sorted(self.model.elements)]
        trained = Filters(elements=symbols).select(self.table)
        return None if trained is None or trained.all() else trained

    def _ranked(
        self,
        query: Query,
        ways: dict[str, float],
        rows: npt.NDArray[np.int64] | None,
        top: int,
        partial: bool,
    ) -> Hits:
        """Score the given rows (None for all) and rank their molecules."""
        scores = {way: self.scores(way, query, rows) for way in ways}
        arrays, calibration = self._arrays, self.manifest.calibration
        keys = [key(way, score.modalities_of(way, arrays, query)) for way in ways]
        temperatures = self.temperatures(ways, query)
        totals = np.zeros(len(self))
        for (way, weight), temperature in zip(ways.items(), temperatures, strict=True):
            totals += weight * scores[way] / (temperature or score.TEMPERATURE[way])

        missing = np.isnan(totals)
        compared = len(self) if rows is None else len(rows)
        left_out = int(missing.sum()) - (len(self) - compared)
        remarks = list(query.remarks)
        if left_out:
            remarks.append(f"{left_out} entries have none of the spectra and are left out")

        best, best_rows = self.answers.best(np.where(missing, -np.inf, totals))
        chosen = leading(best, top)
        has_confidence = None not in temperatures and not partial and len(chosen) > 0
        compared_names = {name for way in ways for name in score.modalities_of(way, arrays, query)}
        covered = min(query.covered(name) for name in compared_names)
        if has_confidence and covered < COVERED:
            has_confidence = False
            remarks.append(
                f"no confidences: {covered:.0%} of the axis is compared, and they hold from {COVERED:.0%} on"
            )
        mixture = calibration.mixture.get(keys[0]) if calibration and len(keys) == 1 else None
        confidence = confidences(best, mixture)[chosen] if has_confidence else None
        chosen_rows = best_rows[chosen]
        if len(keys) == 1 and calibration and has_confidence and rows is not None:
            (way,) = ways
            told = calibration.missing.get(keys[0])
            if told is not None and len(self.table["formula"].take(pa.array(rows)).unique()) == 1:
                compared_rows = sample(len(self))
                others = reference(self.scores(way, query, compared_rows)[compared_rows])
                remarks += _verdict(float(scores[way][chosen_rows[0]]), float(others), *told)
        parts = {way: values[chosen_rows] for way, values in scores.items()}
        if len(ways) == 1:  # the plain score, not divided by the temperature
            table = self._table(chosen_rows, next(iter(parts.values())), confidence, {})
        else:
            table = self._table(chosen_rows, best[chosen], confidence, parts)
        return Hits(table, ways, int((best > -np.inf).sum()), len(self.answers), tuple(remarks))

    def _table(
        self,
        rows: npt.NDArray[np.int64],
        score: npt.NDArray[np.float64],
        confidence: npt.NDArray[np.float64] | None,
        parts: Mapping[str, npt.NDArray[np.float64]],
    ) -> pa.Table:
        """The table of answers [k], see `Hits`; `parts` are the scores [k] of each of several ways."""
        # slices, since taking from a long table would first copy all of it
        slices = [self.table.slice(int(row), 1) for row in rows] or [self.table.slice(0, 0)]
        molecules = pa.concat_tables(slices).select(_SHOWN).combine_chunks()
        columns = {
            "rank": pa.array(np.arange(1, len(rows) + 1)),
            **{name: molecules[name] for name in _SHOWN[:-1]},
            "score": pa.array(score, pa.float64()),
            "confidence": pa.nulls(len(rows), pa.float64()) if confidence is None else pa.array(confidence),
            "group": pa.nulls(len(rows), pa.int64()) if confidence is None else pa.array(groups(confidence)),
            **{way: pa.array(values, pa.float64()) for way, values in parts.items()},
            "identity": molecules["identity"],
            "row": pa.array(rows),
        }
        return pa.table(columns)

    def temperatures(self, ways: Collection[str], query: Query) -> list[float | None]:
        """Calibrated temperatures of ways to score a query; None for those without one."""
        arrays, calibration = self._arrays, self.manifest.calibration
        keys = [key(way, score.modalities_of(way, arrays, query)) for way in ways]
        return [calibration.temperature.get(name) if calibration else None for name in keys]

    def scores(self, way: str, query: Query, rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float64]:
        """Scores of all entries [n], NaN for those that are not among `rows` or cannot be compared."""
        result = np.full(len(self), np.nan)
        offset = 0  # row of the segment's first entry
        for segment in self.segments:
            for first in range(0, len(segment), score.BLOCK):
                last = min(first + score.BLOCK, len(segment))
                if rows is None:
                    block = score.scores(way, segment.arrays, query, slice(first, last))[:, 0]
                    result[offset + first : offset + last] = block
                    continue
                low, high = np.searchsorted(rows, (offset + first, offset + last))
                block_rows = rows[low:high]
                if len(block_rows):
                    block = score.scores(way, segment.arrays, query, block_rows - offset)[:, 0]
                    result[block_rows] = block
            offset += len(segment)
        if query.gases and way in score.SPECTRAL and self._gases is not None:
            gases = self._gases
            as_gas = score.scores(way, gases.arrays, query, slice(None))[:, 0]
            asked = np.ones(len(as_gas), bool) if rows is None else np.isin(gases.rows, rows)
            result[gases.rows[asked]] = np.fmax(result[gases.rows[asked]], as_gas[asked])
        return result

    @cached_property
    def _gases(self) -> Gases | None:
        """The small molecules as gases; None where there are none with an infrared spectrum."""
        if f"samples-{IR.name}" not in self._arrays:
            return None
        rows, distances = small_rows(self.table)
        if not len(rows):
            return None
        arrays = {f"samples-{name}": self.stored(name, rows) for name in self.manifest.modalities}
        return Gases(rows, arrays | gas_arrays(arrays[f"samples-{IR.name}"], distances))


def _verdict(best: float, reference: float, threshold: float, found: float) -> list[str]:
    """A remark where the best score of a formula is so low that the right molecule is probably missing."""
    if best - reference >= threshold:
        return []
    return [
        f"probably not in this library: the best molecule of this formula scores {best:.3f}, little for the "
        f"right one, as {REFERENCE:.0%} of all molecules reach {reference:.3f} (this finds {found:.0%} of "
        f"the molecules that are missing, and is wrong for {FALSE_ALARMS:.0%} of those that are there)"
    ]


def weights_of(by: Ways) -> dict[str, float]:
    """Weights of the ways to score, positive and with sum 1.

    Raises:
        InputError: an unknown way, none at all, one twice, or weights that are not positive numbers.
    """
    if isinstance(by, str):
        by = [by]
    weights = dict(by) if isinstance(by, Mapping) else dict.fromkeys(by, 1.0)
    if not weights or len(weights) != len(by):
        raise SettingError("name at least one way to score, and each only once")
    for way, weight in weights.items():
        if way not in score.WAYS:
            raise SettingError(f"unknown way {way!r} to score; {hint(way, score.WAYS)}")
        if not (np.isfinite(weight) and weight > 0):
            raise ValueRangeError(f"the weight of {way} must be a positive number, not {weight}")
    total = sum(weights.values())
    return {way: weight / total for way, weight in weights.items()}
