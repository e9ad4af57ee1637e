"""Why a search gave a molecule: its bands against the measured ones, how its atoms move, and its groups.

Infrared and Raman spectra of a candidate are computed again from the structure in the library, with the
motion of every mode, where the `simulate` extra is installed; else they are the library's stored points, a
few per line width, and so are all other spectra.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.chem.identity import parsed_smiles, perceived_bonds
from molspectra.chem.molecule import Molecule
from molspectra.data.output import free_path, write_table
from molspectra.errors import InputError, MissingExtraError, MolspectraError, ValueRangeError
from molspectra.evaluation.attention import attention_of
from molspectra.search.bands import TOLERANCE, Band, bands_of, matched, peaks_of
from molspectra.search.gas import NARROW
from molspectra.search.groups import GroupEvidence, evidence
from molspectra.search.hits import DECIMALS, Hits
from molspectra.search.library import Library
from molspectra.search.occlusion import Occlusion, Window, moved
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.query import Prepared, Spectrum, prepare
from molspectra.search.shape import FLOOR, best_scales, centres, shapes
from molspectra.search.vectors import POINTS_PER_WIDTH, coarse
from molspectra.simulation.api import VIBRATIONAL, Level, levels_of_theory
from molspectra.simulation.assignment import Assignment, assign
from molspectra.spectra.measured import noise as noise_of
from molspectra.spectra.modality import MODALITIES, Modality, modality
from molspectra.spectra.rotation import branch_distance, with_branches
from molspectra.spectra.spectrum import LineSpectrum

__all__ = ["Explanation", "GroupEvidence", "explain", "write_bands"]

REGIONS = ((0.0, 900.0), (900.0, 1500.0), (1500.0, 1900.0), (1900.0, 2500.0), (2500.0, 4000.0))
"""Parts of a vibrational axis, cm⁻¹: bends, fingerprint, double bonds, triple bonds, X-H stretches."""

SUFFIXES = (".csv", ".parquet")
"""Files that bands can be written to."""

_TAIL = 0.05  # height of a candidate's spectrum, relative to its highest point, below which all are tails
_EMPTY = float(np.log1p(0.02 / FLOOR) / np.log1p(1 / FLOOR))  # feature of 2 % of the highest point
_FEWEST = 3  # bins of a region

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One answer against one spectrum of the query.

    Attributes:
        rank: of the answer, from 1.
        name: of the molecule, if known.
        smiles: if known.
        formula: in Hill order.
        score: of the search.
        confidence: of the search, if it has one.
        modality: name of the spectrum's modality.
        scale: factor on the candidate's axis.
        molecule: the library's structure, Å.
        axis: [points], axis unit.
        query: [points] 0 or more, largest 1.
        candidate: [points] after the factor; largest 1 where something was measured, cut off at 1 elsewhere;
            smaller where only tails of its bands were measured.
        known: [points] mask of what was measured and is compared.
        bands: by descending position; several computed ones under one measured band are one.
        regions: (low, high, similarity in it) of the parts of the axis that were measured.
        groups: functional groups of the candidate, and those that a measured band asks for.
        remarks: what was left out or taken as it is, for people.
        assignment: normal modes of the candidate, None where they are not computed.
        attention: [points] that the points of the query receive in the last layer of the spectrum encoder, in
            units of uniform attention, see `molspectra.evaluation.attention.attention_of`: where the encoder
            looks, which is the same for all answers and need not be what drove any of them. None where the
            search did not use the encoder.
    """

    rank: int
    name: str | None
    smiles: str | None
    formula: str
    score: float
    confidence: float | None
    modality: str
    scale: float
    molecule: Molecule
    axis: npt.NDArray[np.float64]
    query: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    bands: tuple[Band, ...]
    regions: tuple[tuple[float, float, float], ...]
    groups: tuple[GroupEvidence, ...]
    remarks: tuple[str, ...]
    assignment: Assignment | None = None
    attention: npt.NDArray[np.float64] | None = None


def explain(
    library: Library,
    hits: Hits,
    spectra: Mapping[str, Spectrum | Prepared],
    *,
    pipeline: Pipeline = DEFAULT,
    count: int = 3,
    level: Level = "scaled",
) -> list[Explanation]:
    """Tell why the first answers of a search were given: one explanation per answer and spectrum.

    Args:
        library: that was searched.
        hits: its answers.
        spectra: those that were searched with, by modality.
        pipeline: what was done to them.
        count: number of answers to explain; about two seconds each.
        level: that tells the motions of the atoms, see `molspectra.simulation.api.simulate`; the spectrum of
            a candidate is that of the library.

    Raises:
        InputError: a spectrum that cannot be used, a level that does not have it, or a count below 1.
    """
    if count < 1:
        raise ValueRangeError(f"at least one answer must be explained, not {count}")
    given = {modality(name).name: spectrum for name, spectrum in spectra.items()}
    prepared = {
        name: moved(prepare(given[name], name, pipeline=pipeline), modality(name), pipeline.scale or 1.0)
        for name in MODALITIES
        if name in given
    }
    vibrational = [name for name in prepared if name in VIBRATIONAL]
    lacking = None
    try:
        if vibrational:
            levels_of_theory(vibrational, level=level)
    except MissingExtraError as error:
        lacking = f"the motions of the atoms are not computed: {error}"
    seen = _attention(library, hits, prepared, pipeline.scale or 1.0)
    explanations = []
    for hit in list(hits)[:count]:
        molecule, assignment, remark = library.molecule(hit["row"]), None, lacking
        if vibrational and lacking is None:
            try:
                assignment = assign(molecule, vibrational, level=level)
            except MolspectraError as error:  # one molecule that cannot be computed stops no other
                remark = f"the motions of the atoms could not be computed: {error}"
        own: dict[str, Explanation] = {}
        for name, spectrum in prepared.items():
            chosen = (assignment, remark) if name in vibrational else (None, None)
            (found,) = library.stored(name, np.array([hit["row"]]))
            stored = found if found.any() else None
            own[name] = _explained(hit, molecule, spectrum, stored, modality(name), pipeline, *chosen)
        scales = {name: each.scale for name, each in own.items()}
        occlusion = Occlusion(library, hits, hit["row"], prepared, scales, pipeline)
        explanations += [_weighed(each, occlusion, seen.get(name)) for name, each in own.items()]
    return explanations


def _attention(
    library: Library, hits: Hits, prepared: Mapping[str, Prepared], scale: float
) -> dict[str, Floats]:
    """Attention [points] over the query's axes as measured, by modality; nothing without the encoder.

    `embedding` reads all spectra together, `learned` each alone; of both, the first is shown.
    """
    way = next((way for way in ("embedding", "learned") if way in hits.ways), None)
    if way is None:
        return {}
    placed = {name: moved(spectrum, modality(name), 1 / scale) for name, spectrum in prepared.items()}
    read = library.query(placed, [way], Pipeline(scale=1.0)).embedded
    together = [tuple(read)] if way == "embedding" else [(name,) for name in read]
    encoder, found = library.model.model.spectrum_encoder, {}
    assert encoder is not None
    for names in together:
        for name, values in attention_of(encoder, {name: read[name][0] for name in names}).items():
            axis = modality(name).axis()
            found[name] = np.interp(axis / scale, axis, values)
    return found


def _weighed(each: Explanation, occlusion: Occlusion, attention: Floats | None) -> Explanation:
    """An explanation with the attention [points], and the weights, leads and attention of its bands."""
    losses = occlusion.losses(each.modality, [band.window for band in each.bands])
    bands = tuple(
        replace(band, weight=loss.weight, lead=loss.lead, attention=_mean(attention, each, band.window))
        for band, loss in zip(each.bands, losses, strict=True)
    )
    return replace(each, bands=bands, attention=attention)


def _mean(attention: Floats | None, each: Explanation, window: Window | None) -> float | None:
    """Mean attention in the measured part of a window."""
    if attention is None or window is None:
        return None
    inside = each.known & (each.axis >= window[0]) & (each.axis <= window[1])
    return float(attention[inside].mean()) if inside.any() else None


def write_bands(path: Path | str, explanations: Sequence[Explanation], *, overwrite: bool = False) -> None:
    """Write the bands of explanations as CSV or Parquet, by the suffix: one row per band.

    Columns: rank, name, smiles, modality, status, measured and computed position (axis unit) and height,
    motion, atoms (indices from 0, with spaces between), weight, lead and attention (see `Band`). Numbers of a
    CSV file have at most `DECIMALS`.

    Raises:
        InputError: another suffix, the file exists, or it cannot be written.
    """
    path = free_path(path, SUFFIXES, overwrite=overwrite)
    rows = [
        {
            "rank": each.rank,
            "name": each.name,
            "smiles": each.smiles,
            "modality": each.modality,
            "status": band.status,
            "measured": band.measured,
            "measured_height": band.measured_height,
            "computed": band.computed,
            "computed_height": band.computed_height,
            "motion": band.motion,
            "atoms": " ".join(map(str, band.atoms)),
            "weight": band.weight,
            "lead": band.lead,
            "attention": band.attention,
        }
        for each in explanations
        for band in each.bands
    ]
    write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), path, decimals=DECIMALS)


_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        *((name, pa.string()) for name in ("name", "smiles", "modality", "status")),
        *((name, pa.float64()) for name in ("measured", "measured_height", "computed", "computed_height")),
        *((name, pa.string()) for name in ("motion", "atoms")),
        *((name, pa.float64()) for name in ("weight", "lead", "attention")),
    ]
)


def _explained(
    hit: Mapping[str, Any],
    molecule: Molecule,
    query: Prepared,
    stored: npt.NDArray[np.float32] | None,
    kind: Modality,
    pipeline: Pipeline,
    assignment: Assignment | None,
    remark: str | None,
) -> Explanation:
    """The explanation of one answer and one spectrum."""
    axis, remarks = kind.axis(), [*query.remarks, *([remark] if remark else [])]
    known = query.known
    measured = np.where(known, query.values, 0)
    measured = measured / max(float(measured.max()), 1e-300)

    lines = own = None
    if assignment is not None:
        intensities, level = assignment.intensities[kind.name], assignment.levels[kind.name]
        lines = LineSpectrum(kind.name, assignment.wavenumbers, intensities, level)
        own = _sampled(lines, kind, pipeline)
    points = stored
    if stored is None and own is not None:
        points = coarse(own, kind)
        remarks.append(f"{kind.name}: the library has no spectrum of it, this one is by {level}")
    elif stored is None:
        remarks.append(f"{kind.name}: there is no spectrum of the candidate to compare with")
    elif lines is not None and own is not None:
        lines = _aligned(lines, own, np.interp(axis, coarse(axis, kind), stored), kind)
    scale, told = _scale(points, query, kind, pipeline)
    remarks += told
    candidate = np.zeros(kind.points)
    if points is not None:
        if kind.name == "ir" and not query.absolute and (wings := branch_distance(molecule)) >= NARROW:
            step = kind.fwhm / POINTS_PER_WIDTH
            points = with_branches(points, step, wings).astype(np.float32)
            remarks.append(f"{kind.name}: shown as a gas, with rotational branches {wings:.0f} cm⁻¹ apart")
        candidate = np.interp(axis / scale, coarse(axis, kind), points, left=0, right=0)
    if lines is not None:
        lines = replace(lines, position=scale * lines.position)
    # relative to the highest point where something was measured, so that heights can be compared
    highest = max(float(np.where(known, candidate, 0).max()), _TAIL * float(candidate.max()), 1e-300)
    candidate = np.minimum(candidate / highest, 1.0)

    noise = noise_of(query.signed[known]) / max(float(query.signed[known].max()), 1e-300)
    peaks = peaks_of(measured, known, kind, noise)
    computed = peaks_of(candidate, np.ones_like(known), kind, 0.0) if points is not None else []
    bands, unmeasured = bands_of(peaks, computed, known, kind, lines, assignment)
    if points is None:
        bands = ()
    if unmeasured:
        remarks.append(f"{kind.name}: {unmeasured} bands of the candidate lie where nothing was measured")
    groups: tuple[GroupEvidence, ...] = ()
    if kind.name in VIBRATIONAL:
        mol = _structure(molecule)
        if mol is None:
            remarks.append("no bonds were found in the candidate, so its groups are not looked at")
        else:
            places = [(peak.place, peak.height) for peak in peaks if peak.is_clear]
            spread = branch_distance(molecule, widest=True)  # twice as far as the strongest lines
            asking = places
            if spread > TOLERANCE[kind.unit]:
                centre = [peak.place for peak in computed]
                asking = [peak for peak in places if all(abs(peak[0] - place) > spread for place in centre)]
                remarks.append(
                    f"{kind.name}: as a gas, so small a molecule has rotational lines up to {spread:.0f} "
                    "cm⁻¹ beside its bands, which count as extra"
                )
            groups = evidence(mol, axis, measured, known, places, asking, infrared=kind.name == "ir")
    return Explanation(
        rank=hit["rank"],
        name=hit["name"],
        smiles=hit["smiles"],
        formula=hit["formula"],
        score=hit["score"],
        confidence=hit["confidence"],
        modality=kind.name,
        scale=scale,
        molecule=molecule,
        axis=axis,
        query=measured,
        candidate=candidate,
        known=known,
        bands=bands,
        regions=_regions(measured, candidate, known, kind) if points is not None else (),
        groups=groups,
        assignment=assignment,
        remarks=tuple(remarks),
    )


def _sampled(lines: LineSpectrum, kind: Modality, pipeline: Pipeline) -> Floats | None:
    """Samples [points] of lines after the steps of the pipeline; None without any intensity on the axis."""
    steps = Pipeline(pipeline.choice, None, pipeline.baseline, pipeline.smooth)
    inside = (lines.position >= kind.start) & (lines.position <= kind.stop)
    if not lines.intensity[inside].any():
        return None
    return np.asarray(prepare(lines, kind.name, pipeline=steps).values)


def _aligned(lines: LineSpectrum, own: Floats, stored: Floats, kind: Modality) -> LineSpectrum:
    """Lines whose bands lie where those of the library's spectrum do, which another level may have made.

    Args:
        lines: of the level that tells the motions.
        own: [points] the same, sampled.
        stored: [points] the library's spectrum.
        kind: the modality.
    """
    everywhere = np.ones(kind.points, bool)
    ours, theirs = (peaks_of(values / values.max(), everywhere, kind, 0.0) for values in (own, stored))
    # two levels differ by more than the best factor leaves between measured and computed bands
    pairs = matched(theirs, ours, 2 * TOLERANCE.get(kind.unit, 3 * kind.fwhm))
    if not pairs:
        return lines
    places = np.array([ours[number].place for number in pairs.values()])
    shifts = np.array([theirs[number].place for number in pairs]) - places
    nearest = np.abs(lines.position[:, None] - places).argmin(1)
    is_near = np.abs(lines.position - places[nearest]) <= 2 * kind.fwhm
    moved = lines.position + np.where(is_near, shifts[nearest], 0)
    return replace(lines, position=np.sort(moved))  # lines that would cross keep the order of the modes


def _scale(
    points: npt.NDArray[np.float32] | None, query: Prepared, kind: Modality, pipeline: Pipeline
) -> tuple[float, list[str]]:
    """The factor on the candidate's axis that fits its stored points [P] best, as `shape` has it; remarks."""
    if pipeline.scale is not None:
        return pipeline.scale, []
    if points is None:
        return 1.0, []
    try:
        parts = shapes(query.signed[None], query.measured, query.known, kind, pipeline.scales)
    except ValueRangeError as error:
        return 1.0, [f"{kind.name}: no factor on the axis was looked for: {error}"]
    return pipeline.scales[int(best_scales(points[None], parts, kind)[0, 0])], []


def _cosine(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Cosine of two vectors; 0 where one is of zeros."""
    return float(first @ second / max(float(np.linalg.norm(first) * np.linalg.norm(second)), 1e-30))


def _structure(molecule: Molecule) -> Any:
    """RDKit molecule of a candidate, by its SMILES or else by its geometry; None without one."""
    if molecule.smiles is not None:
        try:
            return parsed_smiles(molecule.smiles)
        except InputError:
            pass  # the geometry tells the bonds as well
    return perceived_bonds(molecule)


def _regions(
    query: Floats, candidate: Floats, known: Mask, kind: Modality
) -> tuple[tuple[float, float, float], ...]:
    """Similarity in parts of the axis: the cosine of the features of `shape`; 1 where both are empty."""
    everywhere = np.ones_like(known)
    try:
        first = shapes(query[None], known, known, kind, (1.0,))
        second = shapes(candidate[None], everywhere, known, kind, (1.0,))
    except ValueRangeError:
        return ()
    axis, places, found = kind.axis(), centres(kind), []
    ours, theirs = (each.features[0, 0] / max(float(each.features.max()), 1e-30) for each in (first, second))
    for low, high in REGIONS if kind.name in VIBRATIONAL else ((kind.start, kind.stop),):
        inside = first.covered & (places >= low) & (places <= high)
        if inside.sum() < _FEWEST:
            continue
        a, b = (np.where(each[inside] > _EMPTY, each[inside], 0) for each in (ours, theirs))
        similarity = _cosine(a, b) if a.any() or b.any() else 1.0
        points = axis[known & (axis >= low) & (axis <= high)]
        found.append((float(points[0]), float(points[-1]), similarity))
    return tuple(found)
