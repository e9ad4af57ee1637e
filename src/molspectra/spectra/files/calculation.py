"""Results read from the output file of a quantum-chemical calculation: structure, energy, line spectra."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.spectra.spectrum import LineSpectrum

_NOISE = 1e-3
"""Negative oscillator strengths and intensities down to minus this are rounding errors, and become 0."""


@dataclass(frozen=True, eq=False)
class Output:
    """Results of one calculation.

    Attributes:
        molecule: the last structure of the output, Å; named after the file.
        spectra: line spectra by modality; an imaginary frequency is a negative position.
        level: method, basis and program.
        scf_energy: last self-consistent-field energy, Hartree; None if the output has none.
        imaginary: imaginary frequencies, cm⁻¹, as negative numbers; empty for a minimum.
    """

    molecule: Molecule
    spectra: Mapping[str, LineSpectrum] = field(default_factory=dict)
    level: str = ""
    scf_energy: float | None = None
    imaginary: tuple[float, ...] = ()


def line_spectrum(name: str, position: npt.ArrayLike, intensity: npt.ArrayLike, level: str) -> LineSpectrum:
    """Sort the lines of an output by position; intensities that are negative by rounding become 0.

    Args:
        name: modality.
        position: positions [n] in the modality's axis unit, in any order.
        intensity: intensities [n].
        level: level of theory.

    Raises:
        InputError: different lengths, negative intensities, or numbers that are not finite.
    """
    position, intensity = np.asarray(position, np.float64), np.asarray(intensity, np.float64)
    if position.shape != intensity.shape or position.ndim != 1:
        raise ValueRangeError(f"{position.size} {name} positions but {intensity.size} intensities")
    order = np.argsort(position, kind="stable")
    intensity = np.where((intensity < 0) & (intensity > -_NOISE), 0.0, intensity)
    return LineSpectrum(name, position[order], intensity[order], level)
