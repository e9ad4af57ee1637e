"""What is read from the output file of a quantum-chemical calculation, and the line spectra in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError
from molspectra.spectra.spectrum import LineSpectrum

_NOISE = 1e-3
"""Oscillator strengths and intensities down to minus this are rounding and become 0."""


@dataclass(frozen=True, eq=False)
class Output:
    """What an output says of one molecule.

    Attributes:
        molecule: the last structure in it, Å; its name is that of the file.
        spectra: lines by modality; an imaginary frequency is a negative position.
        level: method, basis and program.
        scf_energy: last self-consistent-field energy in Hartree, None where there is none.
        imaginary: imaginary frequencies in cm⁻¹ as negative numbers; none for a minimum.
    """

    molecule: Molecule
    spectra: Mapping[str, LineSpectrum] = field(default_factory=dict)
    level: str = ""
    scf_energy: float | None = None
    imaginary: tuple[float, ...] = ()


def line_spectrum(
    path: Path,
    name: str,
    position: npt.ArrayLike,
    intensity: npt.ArrayLike,
    level: str,
) -> LineSpectrum:
    """Lines of an output in ascending order; intensities that are negative by rounding become 0.

    Raises:
        InputError: naming the file, if the lists do not fit or hold other negative or no finite numbers.
    """
    where, height = np.asarray(position, np.float64), np.asarray(intensity, np.float64)
    if where.shape != height.shape or where.ndim != 1:
        raise InputError(f"{path}: {where.size} {name} positions but {height.size} intensities")
    order = np.argsort(where, kind="stable")
    height = np.where((height < 0) & (height > -_NOISE), 0.0, height)
    try:
        return LineSpectrum(name, where[order], height[order], level)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
