"""How well the bands of two spectra agree in position, whatever their widths and exact intensities.

Computed and measured spectra differ in three ways that the cosine of the spectra themselves does not bear:
bands lie tens of cm⁻¹ apart, their intensities differ by factors, and the frequency scale is not known. So
both spectra are averaged over bins, smeared until such shifts overlap, and compared by the cosine of the
logarithm of their intensity above a floor; of several factors on the axis, the one that fits a candidate best
counts for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from molspectra.errors import ValueRangeError
from molspectra.search.vectors import POINTS_PER_WIDTH, Floats, coarse, unit
from molspectra.spectra.modality import Modality
from molspectra.spectra.units import FWHM_PER_SIGMA

SMEAR = {"cm⁻¹": 5.0, "eV": 1.0}
"""Full width at half maximum of the smearing in line widths, by unit of the axis: 60 cm⁻¹, 0.3 eV."""

FLOOR = 0.005
"""Intensity, relative to the largest of the smeared spectrum, below which differences hardly count."""

SCALES = tuple(np.arange(0.95, 1.0301, 0.01).round(2).tolist())
"""Factors on the frequencies of a library that are tried: harmonic ones lie some per cent too high."""

_FEWEST = 10  # bins that a comparison needs
_SIGMAS = 2.0  # of the noise of a smeared spectrum, subtracted from it


@dataclass(frozen=True, eq=False)
class Shapes:
    """The bands of Q spectra for comparison.

    Attributes:
        features: [S, Q, B] for each of S factors on the axis, of length 1 over the covered bins.
        covered: [B] bins that were measured, whatever the factor.
        smeared: [S, Q, B] the intensities that the features are made of, of an arbitrary scale.
        noise: [S, Q] standard deviation of the noise of these.
    """

    features: Floats
    covered: npt.NDArray[np.bool_]
    smeared: Floats
    noise: Floats


def shapes(
    values: npt.NDArray[np.floating],
    measured: npt.NDArray[np.bool_],
    compared: npt.NDArray[np.bool_],
    kind: Modality,
    scales: tuple[float, ...] = SCALES,
) -> Shapes:
    """Prepare spectra to be compared with entries.

    Args:
        values: [Q, points] on the modality's axis; negative ones, of noise about zero, are welcome.
        measured: [points] mask of the range that was measured.
        compared: [points] mask of the part of it that is compared.
        kind: the modality.
        scales: factors on the frequencies of the entries: a band at x is looked for at x / scale.

    Raises:
        ValueRangeError: too little of the axis is left to compare.
    """
    axis = kind.axis()
    covered = compared.copy()
    stretched = np.empty((len(scales), *np.shape(values)), np.float32)
    for number, scale in enumerate(scales):
        covered &= np.interp(axis * scale, axis, measured.astype(np.float64), left=0, right=0) > 0.999
        for row, spectrum in zip(stretched[number], np.asarray(values), strict=True):
            row[:] = np.interp(axis * scale, axis, spectrum, left=0, right=0)
    bins = _bins(coarse(covered.astype(np.float32), kind)) > 0.999
    if bins.sum() < _FEWEST:
        raise ValueRangeError(
            f"too little of the {kind.name} axis is left to compare shapes, at least {_FEWEST * kind.fwhm:g} "
            f"{kind.unit} are needed"
        )
    plain = _bins(coarse(stretched, kind))
    smeared = _smeared(plain, bins, kind)
    noise = _noise(plain, smeared, bins, kind)
    return Shapes(features(smeared - _SIGMAS * noise[..., None], bins), bins, smeared, noise)


def similarities(samples: Floats, query: Shapes, kind: Modality) -> Floats:
    """Similarity [n, Q] of entries, from their stored points [n, P], with queries; NaN for entries of zeros.

    Returns:
        The cosine with the best of the factors, 0 to 1.
    """
    entries, each = _compared(samples, query, kind)
    best = each.max(0)
    best[~entries.any(1)] = np.nan
    return np.asarray(best, np.float32)


def best_scales(samples: Floats, query: Shapes, kind: Modality) -> npt.NDArray[np.intp]:
    """Which of the factors [n, Q] counts for an entry, by its stored points [n, P], in `similarities`."""
    return np.asarray(_compared(samples, query, kind)[1].argmax(0))


def centres(kind: Modality) -> npt.NDArray[np.float64]:
    """Positions [B] of the bins, axis unit."""
    return np.asarray(_bins(coarse(kind.axis(), kind)), np.float64)


def _compared(samples: Floats, query: Shapes, kind: Modality) -> tuple[Floats, Floats]:
    """Features of entries [n, B], and their cosines [S, n, Q] with those of queries."""
    entries = features(smeared_entries(samples, query.covered, kind), query.covered)
    return entries, np.stack([entries @ each.T for each in query.features])


def smeared_entries(samples: Floats, covered: npt.NDArray[np.bool_], kind: Modality) -> Floats:
    """Smeared intensities [n, B] of entries from their stored points [n, P], of an arbitrary scale."""
    return _smeared(_bins(samples), covered, kind)


def _bins(samples: npt.NDArray[np.floating]) -> Floats:
    """Means of stored points over a line width: [..., P] to [..., B]."""
    count = samples.shape[-1] // POINTS_PER_WIDTH
    kept = np.asarray(samples[..., : count * POINTS_PER_WIDTH], np.float32)
    return np.asarray(kept.reshape(*kept.shape[:-1], count, POINTS_PER_WIDTH).mean(-1), np.float32)


def _smeared(bins: Floats, covered: npt.NDArray[np.bool_], kind: Modality) -> Floats:
    """Smear spectra [..., B] with a Gaussian, without what lies outside of the covered bins."""
    sigma = SMEAR[kind.unit] / FWHM_PER_SIGMA
    return np.asarray(gaussian_filter1d(np.where(covered, bins, 0), sigma, mode="constant"), np.float32)


def features(smeared: Floats, covered: npt.NDArray[np.bool_]) -> Floats:
    """Logarithms [..., B] of intensities above the floor, of length 1 over the covered bins."""
    values = np.where(covered, smeared, 0)
    values = np.maximum(values, 0) / np.maximum(values.max(-1, keepdims=True), 1e-30)
    return unit(np.log1p(values / FLOOR))


def _noise(plain: Floats, smeared: Floats, covered: npt.NDArray[np.bool_], kind: Modality) -> Floats:
    """Standard deviation [...] of the noise of smeared spectra, from second differences where it is quiet.

    A second difference of white noise has √6 times its standard deviation; a Gaussian of deviation s bins
    leaves 1/√(2√π s) of it.
    """
    quiet = covered & (smeared <= np.median(smeared[..., covered], axis=-1, keepdims=True))
    inner = quiet[..., 1:-1] & covered[:-2] & covered[2:]
    change = np.abs(plain[..., :-2] - 2 * plain[..., 1:-1] + plain[..., 2:])
    change = np.where(inner.any(-1, keepdims=True), np.where(inner, change, np.nan), 0)
    middle = np.nanmedian(change, axis=-1)
    left = 1 / np.sqrt(2 * np.sqrt(np.pi) * max(SMEAR[kind.unit] / FWHM_PER_SIGMA, 0.3))
    return np.asarray(1.4826 * middle / np.sqrt(6) * left, np.float32)
