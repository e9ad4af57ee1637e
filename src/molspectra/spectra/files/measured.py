"""Measured spectra with the axis of their file, and their conversion to the axis of a modality.

Reading and converting are separate, so that a pipeline (baseline, smoothing, shift) can process the spectrum
in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError, SettingError, UnitError, ValueRangeError
from molspectra.spectra.files.units import AXIS_UNITS, QUANTITIES
from molspectra.spectra.modality import MODALITIES, Modality, modality
from molspectra.spectra.plausible import check_values
from molspectra.spectra.spectrum import SampledSpectrum
from molspectra.spectra.units import convert_position

FLOOR = 1e-4
"""Smaller transmittances are set to this: an absorbance of 4, more than instruments resolve."""

REFLECTANCES = ("refuse", "log", "kubelka-munk")
OUTSIDE = ("refuse", "zero")

Process = Callable[[npt.NDArray[np.float64], Modality, slice], npt.NDArray[np.float64]]
"""Maps samples [points] of a modality to others; the slice selects the points in the measured range."""

_MIN_POINTS = 16
_PER_CENT = 1.5  # a fraction is below 1, but for noise and a wrong background
_PER_CENT_SHARE = 0.1  # a transmittance with more of its points above that is in per cent; fewer are spikes


@dataclass(frozen=True, eq=False)
class MeasuredSpectrum:
    """A spectrum as the file has it.

    Attributes:
        axis: strictly ascending positions [n], float64, in `unit`; a descending axis is reversed, and points
            equal to the one before are left out with a remark.
        values: ordinates [n], float64, finite, in the order of `axis`.
        unit: one of `AXIS_UNITS`, or that of a modality's axis.
        quantity: one of `QUANTITIES`, or the word of the file if it is none of them.
        modality: name of the modality, None if the file does not name it.
        title: title in the file.
        source: file, and block or line in it, for messages.
        remarks: changes and assumptions made while reading.
        header: further entries of the file.

    Raises:
        InputError: the axis is not monotonic, a number is not finite, or the unit is unknown.
    """

    axis: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    unit: str
    quantity: str
    modality: str | None = None
    title: str = ""
    source: str = ""
    remarks: tuple[str, ...] = ()
    header: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check unit and numbers, and reverse a descending axis."""
        axis = np.array(self.axis, dtype=np.float64)
        values = np.array(self.values, dtype=np.float64)
        where = f"{self.source}: " if self.source else ""
        units = dict.fromkeys([*AXIS_UNITS, *(kind.unit for kind in MODALITIES.values())])
        if self.unit not in units:
            raise UnitError(f"{where}unknown unit {self.unit!r} of the axis; known: {', '.join(units)}")
        if axis.ndim != 1 or axis.shape != values.shape or len(axis) < 2:
            raise ValueRangeError(f"{where}a spectrum needs two lists of equal length, at least 2 points")
        for what, numbers in (("position", axis), ("value", values)):
            bad = ~np.isfinite(numbers)
            if bad.any():
                raise ValueRangeError(
                    f"{where}the {what} of point {int(np.argmax(bad)) + 1} is not a finite number"
                )
        if axis[0] > axis[-1]:
            axis, values = axis[::-1].copy(), values[::-1].copy()
        repeated = np.concatenate([[False], (np.diff(axis) == 0) & (np.diff(values) == 0)])
        if repeated.any() and not repeated[1:].all():
            axis, values = axis[~repeated], values[~repeated]
            remark = f"{int(repeated.sum())} points equal to the one before left out"
            object.__setattr__(self, "remarks", (*self.remarks, remark))
        unordered = np.diff(axis) <= 0
        if unordered.any():
            position = float(axis[int(np.argmax(unordered)) + 1])
            raise ValueRangeError(
                f"{where}the axis does not run one way: near {position:g} {self.unit} it turns or stands"
            )
        for numbers in (axis, values):
            numbers.setflags(write=False)
        object.__setattr__(self, "axis", axis)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.axis)


@dataclass(frozen=True, eq=False)
class Conversion:
    """A measured spectrum on the axis of its modality.

    Attributes:
        spectrum: the sampled spectrum.
        coverage: fraction of the modality's points inside the measured range, 0 to 1.
        remarks: assumptions and changes, with their numbers.
        changes: kinds of changes without numbers, so that they can be counted over many spectra.
    """

    spectrum: SampledSpectrum
    coverage: float
    remarks: tuple[str, ...]
    changes: tuple[str, ...]


def to_absorbance(
    measured: MeasuredSpectrum, *, floor: float = FLOOR, reflectance: str = "refuse"
) -> MeasuredSpectrum:
    """Convert the ordinate to absorbance, unless it is proportional to absorbance already.

    Transmittance T gives A = −log10 T; T below `floor` (noise in a saturated band) is set to `floor`, and
    the remarks count these points. A transmittance that the file does not call per cent is taken as per cent
    if more than a tenth of its points exceed 1.5, else as a fraction with spikes.
    Absorptivity, densities and Raman intensities are returned unchanged; log absorptivity becomes
    absorptivity.

    Args:
        measured: the spectrum.
        floor: smallest transmittance or reflectance.
        reflectance: "refuse", "log" (−log10 R, the apparent absorbance) or "kubelka-munk"
            ((1 − R)² / 2R, for powders; Kubelka and Munk 1931).

    Raises:
        InputError: an unknown ordinate, or a reflectance where `reflectance` is "refuse" or unknown.
    """
    if reflectance not in REFLECTANCES:
        raise SettingError(
            f"unknown way {reflectance!r} with a reflectance; known: {', '.join(REFLECTANCES)}"
        )
    where = f"{measured.source}: " if measured.source else ""
    kind, remarks = measured.quantity, list(measured.remarks)
    if kind not in QUANTITIES:
        raise UnitError(f"{where}the ordinate is {kind!r}; known: {', '.join(QUANTITIES)}")
    if kind == "log absorptivity":
        if measured.values.max() > 12:
            highest = measured.values.max()
            raise ValueRangeError(f"{where}a logarithm of an absorptivity cannot be {highest:g}")
        return replace(measured, values=np.power(10.0, measured.values), quantity="absorptivity")
    if not kind.endswith(("transmittance", "reflectance", "percent absorption")):
        return measured
    reflected = kind.endswith("reflectance")
    if reflected and reflectance == "refuse":
        ways = ", ".join(REFLECTANCES[1:])
        raise UnitError(
            f"{where}a reflectance is no absorbance; choose how to convert it: reflectance={ways}"
        )
    fraction, highest = measured.values, measured.values.max()
    high = fraction > _PER_CENT
    if kind == "percent absorption":
        fraction = 1 - fraction / 100
        remarks.append("per cent absorption taken as 100 less the per cent transmittance")
    elif kind.startswith("percent"):
        fraction = fraction / 100
        if not high.any():
            remarks.append(f"values up to {highest:g} are in per cent, says the file")
    elif high.mean() > _PER_CENT_SHARE:
        fraction = fraction / 100
        remarks.append(f"values up to {highest:g} taken as per cent")
    elif high.any() or np.median(fraction) > 1.05:
        remarks.append(f"values up to {highest:g} taken as fractions, not per cent")
    low = int((fraction < floor).sum())
    if low:
        remarks.append(f"{low} points below {floor:g} set to it")
    fraction = np.maximum(fraction, floor)
    kubelka_munk = reflected and reflectance == "kubelka-munk"
    values = (1 - fraction) ** 2 / (2 * fraction) if kubelka_munk else -np.log10(fraction)
    name = "absorptivity" if kubelka_munk else "absorbance"
    return replace(measured, values=values, quantity=name, remarks=tuple(remarks))


def onto_axis(
    measured: MeasuredSpectrum,
    name: str | None = None,
    *,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
    scale: float = 1.0,
    shift: float = 0.0,
    process: Process | None = None,
) -> Conversion:
    """Resample a measured spectrum onto the axis of its modality.

    The ordinate becomes absorbance (`to_absorbance`), the axis is converted to the modality's unit, and the
    values are interpolated linearly, or, where the file has more points than the axis, averaged over the
    interval around each point, so that no narrow band falls between two points. Absorbance is not a density,
    so it does not change when the axis goes from nm to eV; only a "density" is multiplied by |dx/dx'|.
    Points that the file does not cover are refused, or set to 0. Negative values (noise, baseline) are set
    to 0, and the remarks count them; more than these, and values that cannot be right, are refused
    (`molspectra.spectra.plausible`). The samples keep the scale of the file: absorbance has no absolute
    intensity unit, so only shapes can be compared.

    Args:
        measured: the spectrum.
        name: modality; None takes that of the spectrum.
        outside: "refuse" a spectrum that does not cover the whole axis, or "zero" to set the rest to 0.
        floor: see `to_absorbance`.
        reflectance: see `to_absorbance`.
        scale: factor on the positions, once they are in the modality's unit.
        shift: added to the scaled positions, in the modality's unit.
        process: applied to the samples before negative ones are set to 0.

    Raises:
        InputError: the modality is unknown, the spectrum does not cover the axis and `outside` is "refuse",
            fewer than 16 of its points lie on the axis, the ordinate cannot be converted, or the values
            cannot be right.
    """
    if outside not in OUTSIDE:
        raise SettingError(f"unknown way {outside!r} with missing points; known: {', '.join(OUTSIDE)}")
    where = f"{measured.source}: " if measured.source else ""
    name = name or measured.modality
    if name is None:
        raise UnitError(f"{where}the file does not tell which kind of spectrum it is; name the modality")
    kind = modality(name)
    plain = to_absorbance(measured, floor=floor, reflectance=reflectance)
    axis, values = _converted(plain, kind.unit)
    axis = axis * scale + shift

    # how much of the axis the spectrum covers
    points = kind.axis()
    slack = 1e-6 * kind.step
    inside = (points >= axis[0] - slack) & (points <= axis[-1] + slack)
    coverage = float(inside.mean())
    reach = f"{axis[0]:.6g} to {axis[-1]:.6g} {kind.unit}"
    asked = f"{kind.start:g} to {kind.stop:g} {kind.unit}"
    used = int(((axis >= kind.start) & (axis <= kind.stop)).sum())
    if used < _MIN_POINTS:
        raise ValueRangeError(f"{where}only {used} of its points ({reach}) lie on the {name} axis ({asked})")
    if coverage < 1 and outside == "refuse":
        advice = "outside=zero sets the rest to 0"
        raise ValueRangeError(
            f"{where}it covers {reach}, {coverage:.1%} of the {name} axis ({asked}); {advice}"
        )
    remarks, changes = (
        list(plain.remarks),
        ["changed on reading or on the way to absorbance"] if plain.remarks else [],
    )
    if coverage < 1:
        changes.append("points that were not measured are 0")
        remarks.append(f"covers {reach}, {coverage:.1%} of the axis; the rest is 0")

    is_finer = used > inside.sum()
    resampled = _averaged(points, kind.step, axis, values) if is_finer else np.interp(points, axis, values)
    samples = np.where(inside, resampled, 0.0)
    try:
        # whether values are negative for more reasons than a baseline is known once that is subtracted
        check_values(samples if process is None else np.abs(samples))
        if process is not None:
            indices = np.flatnonzero(inside)
            samples = process(samples, kind, slice(int(indices[0]), int(indices[-1]) + 1))
            check_values(samples)
    except ValueRangeError as error:
        raise error.with_context(f"{where}{name}") from error
    negative = int((samples < 0).sum())
    if negative:
        changes.append("samples below zero set to 0")
        lowest = samples.min()
        remarks.append(f"{negative} of {len(samples)} samples below zero set to 0 (lowest {lowest:.3g})")
    source = f"measured, {'; '.join((plain.quantity, *remarks))}"
    spectrum = SampledSpectrum(name, np.maximum(samples, 0.0), source)
    return Conversion(spectrum, coverage, tuple(remarks), tuple(changes))


def _averaged(
    points: npt.NDArray[np.float64],
    step: float,
    axis: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return means of the straight lines between the values, over points ± step/2 within the axis, [P]."""
    area = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(axis) * (values[1:] + values[:-1]))])

    def integral(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        left = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
        beyond = x - axis[left]
        slope = (values[left + 1] - values[left]) / (axis[left + 1] - axis[left])
        return np.asarray(area[left] + beyond * (values[left] + 0.5 * slope * beyond), np.float64)

    edges = np.clip(points[:, None] + 0.5 * step * np.array([-1.0, 1.0]), axis[0], axis[-1])
    low, high = edges.T
    width = np.maximum(high - low, 1e-12 * step)  # 0 outside of the axis, where the result is not used
    return np.asarray((integral(high) - integral(low)) / width, np.float64)


def _converted(
    measured: MeasuredSpectrum, unit: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the axis [n] in another unit, ascending, and the values [n] in the same order."""
    own, scale = ("nm", 1e3) if measured.unit == "µm" else (measured.unit, 1.0)
    if own == unit:
        return measured.axis, measured.values
    old = measured.axis * scale
    try:
        axis = convert_position(old, own, unit)
    except InputError as error:
        raise (error.with_context(measured.source) if measured.source else error) from error
    values = measured.values
    if measured.quantity == "density":
        # all conversions are y = c·x or y = c/x, and |dx/dy| = x/y for both
        values = values / scale * old / axis
    return (axis[::-1], values[::-1]) if axis[0] > axis[-1] else (axis, values)
