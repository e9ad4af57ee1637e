"""Conversion of positions on a spectral axis between eV, nm and cm⁻¹."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from molspectra.errors import UnitError, ValueRangeError

EV_NM = 1239.8419843320026
"""h·c in eV·nm, exact since the 2019 SI: 6.62607015e-34 J·s · 299792458 m/s / 1.602176634e-19 J."""

WAVENUMBERS_PER_EV = 1e7 / EV_NM
"""cm⁻¹ in one eV, 8065.543937…"""

_WAVENUMBERS = {"cm⁻¹": 1.0, "eV": WAVENUMBERS_PER_EV}

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian in units of its standard deviation."""


def convert_position(values: npt.ArrayLike, source: str, target: str) -> npt.NDArray[np.float64]:
    """Convert positions (any shape) between "eV", "nm" (vacuum wavelength) and "cm⁻¹".

    A list that ascends in nm descends in eV and cm⁻¹. Only positions are converted: a spectral density per nm
    must also be multiplied by |dλ/dE|.

    Raises:
        InputError: unknown unit, or a position that is not positive where nm is involved.
    """
    for unit in (source, target):
        if unit not in {*_WAVENUMBERS, "nm"}:
            raise UnitError(f"unknown unit {unit!r} of a spectral axis; known: eV, nm, cm⁻¹")
    positions = np.array(values, dtype=np.float64)
    if source == target:
        return positions
    if "nm" in (source, target) and not (positions > 0).all():
        raise ValueRangeError("a wavelength exists only for a positive position")
    wavenumbers = 1e7 / positions if source == "nm" else positions * _WAVENUMBERS[source]
    return 1e7 / wavenumbers if target == "nm" else wavenumbers / _WAVENUMBERS[target]
