"""The kinds of spectra and the axes they are sampled on.

Axes are those of the published QM9S spectra; patches are those of the published encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError, hint


@dataclass(frozen=True)
class Modality:
    """One kind of spectrum with its axis, default line width and patches.

    Attributes:
        name: key in commands, stores and batches.
        unit: unit of the axis and of `fwhm`.
        intensity_unit: unit of a sampled spectrum, which is `line_unit` per `unit`.
        start: first point of the axis.
        stop: last point of the axis, included.
        step: distance of two points.
        patch: points of one patch.
        stride: points between the starts of two patches.
        fwhm: full width at half maximum that lines get by default.
        line_unit: unit of the intensity of one line ("" for the oscillator strength, a pure number).
        title: name for people.
    """

    name: str
    unit: str
    intensity_unit: str
    start: float
    stop: float
    step: float
    patch: int
    stride: int
    fwhm: float
    line_unit: str = ""
    title: str = ""

    @property
    def points(self) -> int:
        """Number of points of the axis."""
        return round((self.stop - self.start) / self.step) + 1

    @property
    def patches(self) -> int:
        """Number of whole patches on the axis; points behind the last one belong to none."""
        return (self.points - self.patch) // self.stride + 1

    def axis(self) -> npt.NDArray[np.float64]:
        """Ascending positions [points], float64, in `unit`."""
        return np.linspace(self.start, self.stop, self.points)


UV_VIS = Modality("uv_vis", "eV", "1/eV", 1.0, 15.0, 0.02, 20, 10, 0.3, "", "UV-Vis absorption")
IR = Modality("ir", "cm⁻¹", "km/mol·cm", 500.0, 4000.0, 1.0, 50, 25, 12.0, "km/mol", "Infrared absorption")
RAMAN = Modality("raman", "cm⁻¹", "Å⁴/amu·cm", 500.0, 4000.0, 1.0, 50, 25, 12.0, "Å⁴/amu", "Raman activity")

MODALITIES: dict[str, Modality] = {m.name: m for m in (UV_VIS, IR, RAMAN)}
"""All modalities by name, in the order in which their tokens enter the spectrum encoder."""


def modality(name: str) -> Modality:
    """The modality of that name.

    Raises:
        InputError: no modality has this name; the message suggests the nearest.
    """
    found = MODALITIES.get(name)
    if found is None:
        word = name.lower().replace("-", "_")
        raise InputError(f"unknown modality {name!r}; {hint(word, MODALITIES, cutoff=0.5)}")
    return found
