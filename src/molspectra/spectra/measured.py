"""Preprocessing that makes measured and computed spectra comparable, the same for library and query.

Steps, each enabled by its setting, in this order: ordinate to absorbance and positions (of a file only),
resampling onto the modality's axis, width, baseline, smoothing, negative values to 0, window, normalisation.
`prepare_measured` takes a spectrum from a file, `prepare` spectra that are sampled already.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import solveh_banded
from scipy.signal import savgol_filter
from torch import Tensor

from molspectra.errors import ValueRangeError
from molspectra.spectra.distortion import moved, widened
from molspectra.spectra.files.measured import FLOOR, Conversion, MeasuredSpectrum, onto_axis
from molspectra.spectra.modality import Modality

BASELINE_WIDTH = 40.0
"""Default width of a baseline, in default line widths of the modality: 480 cm⁻¹, 12 eV."""

_MAX_ITERATIONS = 50
_SIGMAS = 2.3  # of the noise, by which a baseline with asymmetry 0.01 runs below its middle
_LAG = 6  # points, beyond which a file that is coarser than the axis has independent noise


@dataclass(frozen=True)
class Preparation:
    """Settings of the preprocessing of one modality; lengths are in its axis unit (cm⁻¹, eV)."""

    scale: float = 1.0
    """Factor on the positions, such as the scale factor of computed frequencies."""
    shift: float = 0.0
    """Added to the scaled positions."""
    widen: float = 0.0
    """Full width at half maximum of a Lorentzian to convolve with; adds to the width of the bands."""
    baseline: Literal["none", "als"] = "none"
    """"als" subtracts a baseline fitted by asymmetric least squares (see `baseline`)."""
    baseline_width: float | None = None
    """Bands much narrower than this are not baseline; null for `BASELINE_WIDTH` times the line width."""
    asymmetry: float = 0.01
    """Weight of points above the baseline; those below it have 1 − this."""
    smoothing: float = 0.0
    """Length of the window of a Savitzky-Golay filter; 0 for none."""
    polynomial: int = 3
    """Degree of its polynomials."""
    window: tuple[float, float] | None = None
    """Range of the axis outside of which samples are set to 0; null for the whole axis."""
    normalisation: Literal["none", "area", "maximum"] = "area"
    """Quantity scaled to `level`: the area, the maximum, or none."""
    level: float = 1.0
    """Area (sample unit × axis unit) or maximum (sample unit) after the normalisation."""

    def __post_init__(self) -> None:
        """Check the ranges of the settings."""
        width = self.baseline_width
        rules = {
            "scale": (0 < self.scale < math.inf, "a positive number"),
            "level": (0 < self.level < math.inf, "a positive number"),
            "baseline_width": (width is None or 0 < width < math.inf, "a positive number"),
            "widen": (0 <= self.widen < math.inf, "0 or more"),
            "smoothing": (0 <= self.smoothing < math.inf, "0 or more"),
            "shift": (math.isfinite(self.shift), "a number"),
            "asymmetry": (0 < self.asymmetry <= 0.5, "in (0, 0.5]"),
            "polynomial": (self.polynomial >= 0, "0 or more"),
        }
        for name, (valid, range_text) in rules.items():
            if not valid:
                value = getattr(self, name)
                raise ValueRangeError(f"preparation: {name} must be {range_text}, not {value}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueRangeError(f"preparation: the window {self.window} does not ascend")


def prepare(spectra: Tensor, kind: Modality, settings: Preparation) -> Tensor:
    """Preprocess spectra [B, points] on the modality's axis; returns the same shape, dtype and device, ≥ 0.

    A spectrum that is 0 everywhere stays 0. Not differentiable.

    Raises:
        ValueRangeError: a window outside the axis, or a filter or baseline too wide for it.
    """
    if settings.scale != 1 or settings.shift:
        spectra = moved(spectra, kind, settings.scale, settings.shift)
    return _processed(spectra, kind, settings, slice(0, kind.points))


def prepare_measured(
    measured: MeasuredSpectrum,
    settings: Preparation,
    name: str | None = None,
    *,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
) -> Conversion:
    """Resample a spectrum from a file onto its modality's axis and preprocess it.

    Args:
        measured: the spectrum.
        settings: settings of the preprocessing.
        name: modality; None takes that of the spectrum.
        outside: what to do with points that were not measured, see `onto_axis`. Baseline and filter use only
            the measured range.
        floor: see `to_absorbance`.
        reflectance: see `to_absorbance`.

    Raises:
        InputError: as `onto_axis` and `prepare`.
    """

    def process(values: npt.NDArray[np.float64], kind: Modality, covered: slice) -> npt.NDArray[np.float64]:
        samples: npt.NDArray[np.float64]
        samples = _processed(torch.from_numpy(values)[None], kind, settings, covered)[0].numpy()
        return samples

    return onto_axis(
        measured,
        name,
        outside=outside,
        floor=floor,
        reflectance=reflectance,
        scale=settings.scale,
        shift=settings.shift,
        process=process,
    )


def _processed(spectra: Tensor, kind: Modality, settings: Preparation, covered: slice) -> Tensor:
    """Apply all steps after the resampling to spectra [B, points]; points outside `covered` stay 0."""
    if settings.widen:
        spectra = widened(spectra, kind, settings.widen)
    kept = _kept(kind, settings, covered)
    values = corrected(spectra[:, covered].double().cpu().numpy(), kind, settings)
    result = torch.zeros(spectra.shape, dtype=torch.float64)
    result[:, covered] = torch.from_numpy(np.maximum(values, 0.0))
    result[:, : kept.start], result[:, kept.stop :] = 0.0, 0.0
    if settings.normalisation != "none":
        by_area = settings.normalisation == "area"
        level = result.sum(1, keepdim=True) * kind.step if by_area else result.amax(1, keepdim=True)
        result *= torch.where(level > 0, settings.level / level, 0.0)
    return result.to(spectra)


def corrected(
    values: npt.NDArray[np.float64], kind: Modality, settings: Preparation
) -> npt.NDArray[np.float64]:
    """Subtract the baseline and smooth, as the settings say; negative values stay.

    Args:
        values: [B, n] the measured part of spectra on the modality's axis.
        kind: the modality.
        settings: of which baseline and smoothing count.

    Raises:
        ValueRangeError: a filter or baseline too wide for the n points.
    """
    if settings.baseline == "als":
        width = settings.baseline_width or BASELINE_WIDTH * kind.fwhm
        values = np.stack([row - baseline(row, width / kind.step, settings.asymmetry) for row in values])
    return _smoothed(values, kind, settings) if settings.smoothing else values


def _kept(kind: Modality, settings: Preparation, covered: slice) -> slice:
    """Return the indices of the points inside the window and the covered range."""
    if settings.window is None:
        return covered
    edges = np.searchsorted(kind.axis(), np.array(settings.window) + np.array([-1e-6, 1e-6]) * kind.step)
    start, stop = max(int(edges[0]), covered.start), min(int(edges[1]), covered.stop)
    if start >= stop:
        low, high = settings.window
        raise ValueRangeError(f"preparation: nothing of the {kind.name} spectrum lies in {low:g} to {high:g}")
    return slice(start, stop)


def _smoothed(
    values: npt.NDArray[np.float64], kind: Modality, settings: Preparation
) -> npt.NDArray[np.float64]:
    """Smooth values [B, n] with a Savitzky-Golay filter (Savitzky and Golay 1964)."""
    points = 2 * round((settings.smoothing / kind.step - 1) / 2) + 1
    if not settings.polynomial < points <= values.shape[1]:
        raise ValueRangeError(
            f"preparation: a smoothing of {settings.smoothing:g} {kind.unit} is {points} points of the "
            f"{kind.name} axis, which must be more than the degree {settings.polynomial} of the polynomial "
            f"and at most the {values.shape[1]} points that are there"
        )
    smooth: npt.NDArray[np.float64] = savgol_filter(values, points, settings.polynomial, axis=1)
    return smooth


def baseline(
    values: npt.NDArray[np.float64], width: float, asymmetry: float = 0.01
) -> npt.NDArray[np.float64]:
    """Baseline of a spectrum by asymmetric least squares (Eilers 2003, Anal. Chem. 75, 3631), amid its noise.

    z minimises Σ wᵢ(yᵢ - zᵢ)² + λ Σ(zᵢ₋₁ - 2zᵢ + zᵢ₊₁)², with w = p where y > z and 1 - p elsewhere, solved
    again until no weight changes. That runs below nearly all of the noise, so it is solved once more with
    1 - p for all points that lie no higher above it than noise reaches: then it runs through the middle. With
    λ = (width/2π)⁴ the baseline follows a wave of that period with half its amplitude at weight 1. A linear
    baseline is found exactly.

    Args:
        values: y [n], n ≥ 5.
        width: in points.
        asymmetry: p.

    Returns:
        z [n].

    Raises:
        ValueRangeError: fewer than 5 points, or a width above four times their number (the equations would be
            those of a straight line, and lose all digits).
    """
    count = len(values)
    if count < 5 or width > 4 * count:
        raise ValueRangeError(
            f"preparation: a baseline of width {width:g} points does not fit to {count} points; choose a "
            "narrower one, or none"
        )
    stiffness = (width / (2 * math.pi)) ** 4
    bands = np.zeros((3, count))  # upper form of D'D, D the second differences
    bands[0, 2:] = stiffness
    bands[1, 1:] = -4 * stiffness
    bands[1, [1, -1]] = -2 * stiffness
    bands[2] = 6 * stiffness
    bands[2, [1, -2]] = 5 * stiffness
    bands[2, [0, -1]] = stiffness
    weights = np.full(count, 0.5)
    mean = values.mean()  # subtracted while solving, to keep digits

    def solved(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        matrix = bands.copy()
        matrix[2] += weights
        fit = solveh_banded(matrix, weights * (values - mean), check_finite=False) + mean
        return np.asarray(fit, np.float64)

    for _ in range(_MAX_ITERATIONS):
        fit = solved(weights)
        new_weights = np.where(values > fit, asymmetry, 1 - asymmetry)
        if np.array_equal(new_weights, weights):
            break
        weights = new_weights
    reach = 2 * _SIGMAS * noise(values)  # from below the noise to above it
    return solved(np.where(values > fit + reach, asymmetry, 1 - asymmetry))


def noise(values: npt.NDArray[np.floating]) -> float:
    """Standard deviation of the noise of a spectrum [n], from second differences over `_LAG` points.

    Where no band is, these are noise alone, with √6 times its deviation, and that is most of the axis.
    """
    if len(values) <= 2 * _LAG:
        return 0.0
    change = values[: -2 * _LAG] - 2 * values[_LAG:-_LAG] + values[2 * _LAG :]
    return float(1.4826 * np.median(np.abs(change)) / math.sqrt(6))
