"""The check of every spectrum that enters: from a file, a store, a query or memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from molspectra.errors import ValueRangeError
from molspectra.spectra.modality import Modality, modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

LARGEST = 1e12
"""Largest value of a spectrum in any unit; counts and molar absorptivities stay far below it."""

NEGATIVE_SHARE = 0.2
"""Share of the sum of squares that negative values may have.

Noise about zero and a baseline that is a little off stay far below it; derivatives, differences and spectra
that are upside down do not.
"""


def check_spectrum(spectrum: LineSpectrum | SampledSpectrum) -> None:
    """Refuse a spectrum that cannot be right or says nothing, see `check_values`.

    Of lines only those count that lie on the axis of the modality, or so near that their width reaches it.

    Raises:
        ValueRangeError: with the reason.
    """
    if isinstance(spectrum, SampledSpectrum):
        check_values(spectrum.values)
        return
    kind = modality(spectrum.modality)
    on_axis = reaches_axis(spectrum.position, kind)
    if spectrum.intensity.any() and not spectrum.intensity[on_axis].any():
        raise ValueRangeError(f"no line lies in {kind.start:g} to {kind.stop:g} {kind.unit}")
    check_values(spectrum.intensity[on_axis])


def reaches_axis(position: npt.NDArray[np.floating], kind: Modality) -> npt.NDArray[np.bool_]:
    """Whether each of the positions [n] of lines is at most one default line width off the axis."""
    return (position >= kind.start - kind.fwhm) & (position <= kind.stop + kind.fwhm)


def check_values(values: npt.NDArray[np.floating]) -> None:
    """Refuse values [n] that are all zero, not finite, above `LARGEST`, or negative beyond noise.

    Negative values are noise as long as they have at most `NEGATIVE_SHARE` of the sum of squares.

    Raises:
        ValueRangeError: with the reason.
    """
    if not np.isfinite(values).all():
        raise ValueRangeError("an intensity is not a finite number")
    if not values.any():
        raise ValueRangeError("all intensities are zero")
    highest = float(np.abs(values).max())
    if highest > LARGEST:
        raise ValueRangeError(f"an intensity of {highest:.3g} cannot be right; the largest is {LARGEST:g}")
    shares = np.square(values / highest, dtype=np.float64)
    negative = float(shares[values < 0].sum() / shares.sum())
    if negative > NEGATIVE_SHARE:
        raise ValueRangeError(
            f"negative intensities have {negative:.0%} of the sum of squares, more than in a spectrum; "
            "is it noise alone, a derivative, a difference or upside down?"
        )
