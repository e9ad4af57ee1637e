"""Bands of a measured and of a computed spectrum: which are one, and which atoms move in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks, peak_widths

from molspectra.search.occlusion import Window
from molspectra.simulation.assignment import Assignment
from molspectra.spectra.modality import Modality
from molspectra.spectra.spectrum import LineSpectrum

TOLERANCE = {"cm⁻¹": 40.0, "eV": 0.5}
"""Largest distance of a measured and a computed band that are one, after the factor, by unit of the axis."""

_PROMINENCE = 0.03  # of a band, relative to the highest point
_FAINT = 0.01  # of a band that may be the partner of another
_SIGMAS = 6.0  # of the noise, that a band stands out by
_UNMATCHED = 1.5  # cost of leaving a measured band alone; see `matched`
_PER_E = 0.3  # cost of intensities that differ by a factor e
_SIDE = 0.25  # intensity of a line, relative to the strongest of its band, from which its motion is told
_COVER = 2.0  # reaches of a band within which almost all of its intensity lies

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """One row of the table of bands.

    Attributes:
        status: "matched", in both spectra; "missing", in the candidate's but not measured; "extra", measured
            but not in the candidate's.
        measured: position of the query's band, axis unit; None for a missing one.
        measured_height: relative to the query's highest point.
        computed: position of the candidate's band, times the factor that fits it; None for an extra one.
        computed_height: relative to the candidate's highest point where something was measured.
        motion: such as "C=O stretch 82 %, C-C stretch 9 %"; "" where unknown.
        atoms: those that move most, most first; indices from 0 into `Explanation.molecule`.
        modes: of the assignment that the band consists of, the strongest first, without much weaker ones.
        window: part of the axis that covers it in both spectra, from the lower to the upper end, if known.
        weight: what the score of the answer less the mean of the library loses where this part counts as not
            measured: positive where the band carries the answer, negative where it speaks against it; None
            where it cannot be told. See `molspectra.search.occlusion`.
        lead: the same of the score less that of the best other listed answer: positive where the band tells
            this answer from the next.
        attention: mean attention of the spectrum encoder in this part, see `Explanation`; None without one.
    """

    status: Literal["matched", "missing", "extra"]
    measured: float | None
    measured_height: float | None
    computed: float | None
    computed_height: float | None
    motion: str
    atoms: tuple[int, ...]
    modes: tuple[int, ...] = ()
    window: Window | None = None
    weight: float | None = None
    lead: float | None = None
    attention: float | None = None


@dataclass(frozen=True)
class Peak:
    """A band of a sampled spectrum.

    Attributes:
        place: position, axis unit.
        height: relative to the highest point.
        reach: half its width at a quarter of its height.
        is_clear: whether it stands out by `_PROMINENCE`; others are only partners of such bands.
    """

    place: float
    height: float
    reach: float
    is_clear: bool


def peaks_of(values: Floats, known: Mask, kind: Modality, noise: float) -> list[Peak]:
    """Bands [points] that stand out from the noise, by position; none that the end of the range cuts off."""
    axis = kind.axis()
    sigma = kind.fwhm / kind.step / 6  # narrow against a line
    smooth = gaussian_filter1d(values, sigma)
    left = noise / np.sqrt(2 * np.sqrt(np.pi) * max(sigma, 0.3))  # of the noise, after smoothing
    places, found = find_peaks(smooth, prominence=max(_FAINT, _SIGMAS * left))
    reaches = peak_widths(smooth, places, rel_height=0.75)[0] / 2 * kind.step
    whole, side = known[:-2] & known[1:-1] & known[2:], round(sigma)  # smoothing has moved it at most so far
    return [
        Peak(
            place=float(axis[place]),
            height=float(values[max(place - side, 0) : place + side + 1].max()),
            reach=float(reach),
            is_clear=bool(prominence >= _PROMINENCE),
        )
        for place, reach, prominence in zip(places, reaches, found["prominences"], strict=True)
        if whole[place - 1]
    ]


def bands_of(
    peaks: Sequence[Peak],
    computed: Sequence[Peak],
    known: Mask,
    kind: Modality,
    lines: LineSpectrum | None,
    assignment: Assignment | None,
) -> tuple[tuple[Band, ...], int]:
    """The table of bands, by descending position, and the number of computed ones in unknown ranges."""
    pairs = matched(peaks, computed, TOLERANCE.get(kind.unit, 3 * kind.fwhm))
    members = {number: [own] for number, own in pairs.items()}
    left, unmeasured = [], 0
    for number, peak in enumerate(computed):
        if number in pairs.values():
            continue
        # under a broad measured band, several computed ones are one
        near = [
            (abs(peak.place - peaks[own].place), own)
            for own in pairs
            if abs(peak.place - peaks[own].place) <= max(peaks[own].reach, kind.fwhm)
        ]
        if near:
            members[min(near)[1]].append(number)
        elif not peak.is_clear:
            continue
        elif known[round((peak.place - kind.start) / kind.step)]:
            left.append(number)
        else:
            unmeasured += 1
    owners = [
        int(np.argmin([abs(place - peak.place) for peak in computed])) if computed else -1
        for place in (lines.position if lines is not None else ())
    ]

    def band(status: Literal["matched", "missing", "extra"], own: int | None, numbers: Sequence[int]) -> Band:
        measured = None if own is None else peaks[own]
        highest = max((computed[number] for number in numbers), key=lambda peak: peak.height, default=None)
        modes = [
            mode
            for mode, owner in enumerate(owners)
            if owner in numbers and lines is not None
            if abs(lines.position[mode] - computed[owner].place) <= max(computed[owner].reach, kind.fwhm)
        ]
        if not modes and highest is not None and lines is not None:  # another level may place it elsewhere
            distance = np.abs(lines.position - highest.place)
            modes = np.flatnonzero(distance <= TOLERANCE.get(kind.unit, 0)).tolist()
        strong = _strong(modes, lines)
        motion, atoms = _motion(strong, assignment)
        covering = [computed[number] for number in numbers] + ([] if measured is None else [measured])
        return Band(
            status,
            None if measured is None else measured.place,
            None if measured is None else measured.height,
            None if highest is None else highest.place,
            None if highest is None else highest.height,
            motion,
            atoms,
            strong,
            (
                min(peak.place - max(_COVER * peak.reach, kind.fwhm) for peak in covering),
                max(peak.place + max(_COVER * peak.reach, kind.fwhm) for peak in covering),
            ),
        )

    bands = [
        band("matched", own, numbers)
        for own, numbers in members.items()
        if peaks[own].is_clear or any(computed[number].is_clear for number in numbers)
    ]
    bands += [band("missing", None, [number]) for number in left]
    bands += [band("extra", own, []) for own, peak in enumerate(peaks) if peak.is_clear and own not in pairs]
    bands.sort(key=lambda each: -(each.measured or each.computed or 0))
    return tuple(bands), unmeasured


def matched(peaks: Sequence[Peak], computed: Sequence[Peak], tolerance: float) -> dict[int, int]:
    """Pairs of measured and computed bands, one to one, with the least sum of costs.

    The cost of a pair is its distance in tolerances plus `_PER_E` times the logarithm of the ratio of
    heights.
    """
    if not peaks or not computed:
        return {}
    distance = np.abs(np.subtract.outer([p.place for p in peaks], [c.place for c in computed])) / tolerance
    ratio = np.abs(np.subtract.outer(np.log([p.height for p in peaks]), np.log([c.height for c in computed])))
    costs = np.where(distance <= 1, distance + _PER_E * ratio, 1e3)
    costs = np.hstack([costs, np.full((len(peaks), len(peaks)), _UNMATCHED)])
    return {
        int(row): int(column)
        for row, column in zip(*linear_sum_assignment(costs), strict=True)
        if column < len(computed)
    }


def _strong(modes: Sequence[int], lines: LineSpectrum | None) -> tuple[int, ...]:
    """The strong lines of a band, the strongest first."""
    if lines is None or not modes:
        return ()
    order = sorted(modes, key=lambda mode: -lines.intensity[mode])
    return tuple(mode for mode in order if lines.intensity[mode] >= _SIDE * lines.intensity[order[0]])


def _motion(strong: Sequence[int], assignment: Assignment | None) -> tuple[str, tuple[int, ...]]:
    """Motion and atoms of the strong lines of a band, the strongest first."""
    if assignment is None:
        return "", ()
    motions: dict[str, str] = {}  # one for each leading kind, since many lines of a band are alike
    for mode in strong:
        motions.setdefault(assignment.leading(mode), assignment.motion(mode))
    atoms = dict.fromkeys(atom for mode in strong for atom in assignment.moving(mode))
    return "; ".join(motion for motion in motions.values() if motion), tuple(atoms)
