"""Rotational branches of infrared bands of small gas molecules.

A vibration of a gas molecule is seen as a centre (Q) with a wing of rotational lines on each side (P and R),
whose maxima lie √(8BkT/hc) apart (Herzberg, Spectra of Diatomic Molecules, 1950, eq. III,167, for a linear
molecule). For ammonia that is more than a hundred cm⁻¹, for molecules of four heavy atoms less than a line
width. Individual lines are not resolved here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import to_ase
from molspectra.spectra.units import FWHM_PER_SIGMA

TEMPERATURE = 298.15
"""Kelvin."""

SHARE = 2 / 3
"""Of the intensity that is in the wings: P, Q and R have a third each, averaged over the kinds of bands."""

_WAVENUMBER_PER_KELVIN = 0.695034800  # k/hc, cm⁻¹
_ROTATIONAL = 16.857629  # h/(8π²c), cm⁻¹ amu Å²
_POINT = 1e-2  # moment of inertia, amu Å², below which nothing turns


def branch_distance(molecule: Molecule, *, widest: bool = False) -> float:
    """Distance √(8BkT/hc) of the maxima of the P and R branches at `TEMPERATURE`, cm⁻¹; 0 for an atom.

    Args:
        molecule: a structure.
        widest: take the largest of the rotational constants as B, not their geometric mean.
    """
    moments = to_ase(molecule).get_moments_of_inertia()
    constants = _ROTATIONAL / moments[moments > _POINT]
    if not len(constants):
        return 0.0
    constant = constants.max() if widest else np.exp(np.log(constants).mean())
    return float(np.sqrt(8 * constant * _WAVENUMBER_PER_KELVIN * TEMPERATURE))


def with_branches(values: npt.NDArray[np.floating], step: float, distance: float) -> npt.NDArray[np.float64]:
    """Spectrum [points] with a wing on each side of every band; areas stay, but for the ends of the axis.

    The wings are Gaussians of half the distance as full width at half maximum.

    Args:
        values: on an axis of equal steps.
        step: axis unit.
        distance: of the maxima of the wings, axis unit.
    """
    plain = np.asarray(values, np.float64)
    smooth = gaussian_filter1d(plain, distance / 2 / FWHM_PER_SIGMA / step, mode="constant")
    place = np.arange(len(plain), dtype=np.float64)
    left, right = (
        np.interp(place + side * distance / 2 / step, place, smooth, left=0, right=0) for side in (-1, 1)
    )
    wings: npt.NDArray[np.float64] = left + right
    return (1 - SHARE) * plain + SHARE / 2 * wings
