"""Kinds of spectra (modalities) and the axes they are sampled on.

Axes are those of the published QM9S spectra, patches those of the published encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import NotFoundError, SettingError, ValueRangeError, hint

SHAPES = ("lorentzian", "gaussian")
"""Line shapes."""

DOS = ("dos_occupied", "dos_virtual")
"""The two modalities of a density of states; `dos` names both on the command line."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True)
class Modality:
    """One kind of spectrum with its axis, default line width and patches.

    Attributes:
        name: key in commands, stores and batches.
        unit: unit of the axis, of `start`, `stop`, `step` and `fwhm`.
        intensity_unit: unit of a sampled spectrum, which is `line_unit` per `unit`.
        start: first point of the axis.
        stop: last point of the axis, included.
        step: distance between two points.
        patch: points per patch.
        stride: points between the starts of two patches.
        fwhm: default full width at half maximum of a broadened line.
        line_unit: unit of the intensity of one line ("" for the oscillator strength, a pure number).
        title: name in texts and figures.
        quantity: label of the axis in figures.
        signal: label of the samples in figures.
        shape: line shape by default, "lorentzian" or "gaussian".

    Raises:
        InputError: a name that cannot be a column, an axis that does not ascend in whole steps, or patches or
            a width out of range.
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
    quantity: str = "Position"
    signal: str = "Intensity"
    shape: str = "lorentzian"

    def __post_init__(self) -> None:
        """Check name, axis, patches and width."""
        if not _NAME.fullmatch(self.name):
            raise SettingError(
                f"a modality cannot be called {self.name!r}; use lower-case letters, digits and _"
            )
        steps = (self.stop - self.start) / self.step if self.step > 0 else -1.0
        if not (steps >= 1 and abs(steps - round(steps)) < 1e-6 * steps):
            raise ValueRangeError(
                f"{self.name}: from {self.start:g} to {self.stop:g} are no whole steps of {self.step:g}"
            )
        if not (1 <= self.patch <= self.points and self.stride >= 1 and 0 < self.fwhm < float("inf")):
            raise ValueRangeError(
                f"{self.name}: patches of 1 to {self.points} points, a stride of 1 or more and a positive "
                f"width are needed, not {self.patch}, {self.stride} and {self.fwhm:g}"
            )
        if self.shape not in SHAPES:
            suggestion = hint(self.shape, SHAPES)
            raise ValueRangeError(f"{self.name}: unknown line shape {self.shape!r}; {suggestion}")

    @property
    def points(self) -> int:
        """Number of points of the axis."""
        return round((self.stop - self.start) / self.step) + 1

    @property
    def patches(self) -> int:
        """Number of whole patches on the axis; points after the last one are in no patch."""
        return (self.points - self.patch) // self.stride + 1

    def axis(self) -> npt.NDArray[np.float64]:
        """Return the ascending positions [points], float64, in `unit`."""
        return np.linspace(self.start, self.stop, self.points)


UV_VIS = Modality(
    "uv_vis", "eV", "1/eV", 1.0, 15.0, 0.02, 20, 10, 0.3, "", "UV-Vis absorption", "Energy", "Absorption"
)
IR = Modality(
    "ir", "cm⁻¹", "km/mol·cm", 500.0, 4000.0, 1.0, 50, 25, 12.0, "km/mol",
    "Infrared absorption", "Wavenumber", "IR intensity",
)  # fmt: skip
RAMAN = Modality(
    "raman", "cm⁻¹", "Å⁴/amu·cm", 500.0, 4000.0, 1.0, 50, 25, 12.0, "Å⁴/amu",
    "Raman activity", "Raman shift", "Raman activity",
)  # fmt: skip

DOS_OCCUPIED, DOS_VIRTUAL = (
    Modality(
        name, "eV", "1/eV", -30.0, 10.0, 0.05, 20, 10, 0.5, "",
        f"Density of {part} states", "Orbital energy", "Density of states", "gaussian",
    )
    for name, part in zip(DOS, ("occupied", "virtual"), strict=True)
)  # fmt: skip

MODALITIES: dict[str, Modality] = {m.name: m for m in (UV_VIS, IR, RAMAN, DOS_OCCUPIED, DOS_VIRTUAL)}
"""All modalities by name, in the order in which their tokens enter the spectrum encoder."""


def declare(kind: Modality) -> Modality:
    """Add a modality to `MODALITIES` in this process.

    Declare it before a store that contains it is opened, and at the top level of a script, so that worker
    processes (`data.workers`) declare it too. Repeating the same declaration changes nothing.

    Args:
        kind: the modality.

    Returns:
        The same modality.

    Raises:
        InputError: another modality has this name.
    """
    if MODALITIES.setdefault(kind.name, kind) != kind:
        raise SettingError(f"there is another modality {kind.name!r} already; choose another name")
    return kind


def modality(name: str) -> Modality:
    """Return the modality of that name.

    Raises:
        InputError: no modality has this name; the message suggests the nearest.
    """
    kind = MODALITIES.get(name)
    if kind is None:
        word = name.lower().replace("-", "_")
        raise NotFoundError(f"unknown modality {name!r}; {hint(word, MODALITIES, cutoff=0.5)}")
    return kind


def modality_names(names: Iterable[str]) -> list[str]:
    """Return the names of modalities, each checked, with `dos` written out as its two parts.

    Raises:
        NotFoundError: no modality has one of the names.
    """
    return [modality(part).name for name in names for part in (DOS if name == "dos" else (name,))]
