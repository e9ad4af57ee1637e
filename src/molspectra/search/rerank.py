"""Ranks the first candidates of a search again, by spectra of a better level of theory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.errors import SettingError, ValueRangeError, WriteError, hint
from molspectra.search import network, score
from molspectra.search.gas import gas_arrays
from molspectra.search.hits import Hits
from molspectra.search.library import Library
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.query import Prepared, Spectrum
from molspectra.search.ranking import leading
from molspectra.search.segment import Arrays
from molspectra.search.vectors import coarse, stored_points, unit
from molspectra.simulation.api import LEVELS, VIBRATIONAL, Level
from molspectra.simulation.records import records_at
from molspectra.simulation.runner import simulate_many
from molspectra.spectra.modality import IR, modality
from molspectra.spectra.rotation import branch_distance

JOURNAL = "simulated.jsonl"
"""File in the folder of the index that keeps what was computed, so that it is computed once."""


def rerank(
    library: Library,
    hits: Hits,
    spectra: Mapping[str, Spectrum | Prepared],
    *,
    count: int = 10,
    level: Level = "scaled",
    pipeline: Pipeline = DEFAULT,
    journal: Path | str | None = None,
    processes: int | None = None,
    progress: bool = True,
) -> Hits:
    """Simulate the first answers at a level of theory and rank them by the new spectra.

    Interrupted, it continues when it is called again. A molecule that cannot be simulated comes last, without
    a score, and a remark says why.

    Args:
        library: that was searched.
        hits: its answers.
        spectra: what was searched for; of `ir` and `raman`, those that the level has are computed, others
            are compared with the spectra of the library.
        count: number of answers that are simulated; the others are left out.
        level: of theory, see `molspectra.simulate`; "dft" takes minutes for a molecule of four heavy atoms.
        pipeline: that of the search.
        journal: file that keeps the results; None takes `JOURNAL` in the folder of the library.
        processes: of the simulation; None takes one per core.
        progress: show a progress bar.

    Returns:
        Answers with the new scores, and a column `rank_before`. There are no confidences, since nothing
        calibrates these scores.

    Raises:
        InputError: the search compared embeddings, no vibrational spectrum was given, an unknown level, or
            the simulate extra is missing.
    """
    check(count, hits.ways)
    if level not in LEVELS:
        raise SettingError(f"unknown level {level!r}; {hint(level, LEVELS)}")
    names = [name for name in VIBRATIONAL if name in {modality(given).name for given in spectra}]
    if level == "dft":
        names = [name for name in names if name == "ir"]
    if not names:
        raise SettingError(f"the level {level} has none of the spectra {', '.join(spectra)}")
    rows = hits.table["row"].to_numpy()[:count]
    query = library.query(spectra, hits.ways, pipeline)
    try:
        result = simulate_many(
            [library.molecule(int(row)) for row in rows],
            library.path / JOURNAL if journal is None else journal,
            names,
            level=level,
            processes=processes,
            progress=progress,
        )
    except WriteError as error:
        if journal is not None:
            raise
        raise WriteError(f"{error}; copy the index to a folder that you can write to") from error
    arrays: Arrays = {
        f"samples-{name}": library.stored(name, rows) for name in query.samples if name not in names
    }
    arrays |= {
        f"samples-{name}": np.zeros((len(rows), stored_points(modality(name))), np.float32) for name in names
    }
    records = list(records_at(result.journal, result.offsets))
    simulations = [record.simulation for record in records]
    for number, simulation in enumerate(simulations):
        if simulation is None:
            continue
        for name in names:
            kind, lines = modality(name), simulation.lines[name]
            arrays[f"samples-{name}"][number] = unit(coarse(lines.broadened().values[None], kind))[0]
    forms = [arrays]
    if f"samples-{IR.name}" in arrays:
        infrared = arrays[f"samples-{IR.name}"]
        arrays[network.ARRAY] = network.vectors(infrared)
        if query.gases:
            distances = [branch_distance(library.molecule(int(row))) for row in rows]
            forms.append(arrays | gas_arrays(infrared, distances))
    totals = np.zeros(len(rows))
    parts = {}
    for way, weight in hits.ways.items():
        each = [score.scores(way, form, query, slice(None))[:, 0] for form in forms]
        parts[way] = np.fmax.reduce(each).astype(np.float64)
        totals += parts[way] if len(hits.ways) == 1 else weight * parts[way] / score.TEMPERATURE[way]
    totals[[simulation is None for simulation in simulations]] = np.nan
    known = np.where(np.isnan(totals), -np.inf, totals)
    order = np.concatenate([leading(known, len(rows)), np.flatnonzero(np.isnan(totals))])
    remarks = [f"ranked again by {', '.join(names)} at the level {level}; confidences do not hold for it"]
    remarks += [f"{record.label}: not simulated: {record.error}" for record in result.failures]
    return replace(hits, table=_table(hits.table, order, totals, parts), remarks=(*hits.remarks, *remarks))


def check(count: int, ways: Iterable[str]) -> None:
    """Refuse a number of answers that is none, and ways to score that compare no spectra.

    Raises:
        InputError: either.
    """
    if count < 1:
        raise ValueRangeError(f"at least one answer must be simulated, not {count}")
    # unknown ways are refused by the search
    others = [way for way in ways if way in score.WAYS and way not in score.SPECTRAL]
    if others:
        raise SettingError(
            f"{', '.join(others)}: only answers by {', '.join(score.SPECTRAL)} can be ranked by new spectra"
        )


def _table(
    table: pa.Table,
    order: npt.NDArray[np.int64],
    totals: npt.NDArray[np.float64],
    parts: Mapping[str, npt.NDArray[np.float64]],
) -> pa.Table:
    """The rows of a table in a new order, with new scores."""
    chosen = table.slice(0, len(order)).take(pa.array(order))
    scores = {"score": totals, **(parts if len(parts) > 1 else {})}
    for name, values in scores.items():
        chosen = chosen.set_column(
            chosen.column_names.index(name), name, pa.array(values[order], pa.float64(), from_pandas=True)
        )
    ranks = pa.array(np.arange(1, len(order) + 1))
    none = {name: pa.nulls(len(order), chosen.schema.field(name).type) for name in ("confidence", "group")}
    for name, column in {"rank": ranks, **none}.items():
        chosen = chosen.set_column(chosen.column_names.index(name), name, column)
    return chosen.append_column("rank_before", table["rank"].slice(0, len(order)).take(pa.array(order)))
