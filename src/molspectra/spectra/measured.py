"""One pipeline that makes measured and computed spectra comparable, applied alike to library and query.

Its steps, each off or on by its setting, in this order: ordinate to absorbance and positions (of a file
only), resampling onto the modality's axis, width, baseline, smoothing, values below zero to 0, window,
normalisation. A file comes in by `prepare_measured`, spectra that are samples already by `prepare`.
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

from molspectra.errors import InputError
from molspectra.spectra.distortion import moved, widened
from molspectra.spectra.files.measured import FLOOR, Conversion, MeasuredSpectrum, resampled
from molspectra.spectra.modality import Modality

BASELINE_WIDTH = 40.0
"""Default width of a baseline, in default line widths of the modality: 480 cm⁻¹, 12 eV."""

_ROUNDS = 50


@dataclass(frozen=True)
class Preparation:
    """What is done to the spectra of one modality; lengths are in the unit of its axis (cm⁻¹, eV)."""

    scale: float = 1.0
    """Factor on the positions, such as the scale factor of computed frequencies."""
    shift: float = 0.0
    """What is added to the positions, after `scale`."""
    widen: float = 0.0
    """Full width at half maximum of a Lorentzian to fold with: adds to the width of the bands."""
    baseline: Literal["none", "als"] = "none"
    """"als" takes off a baseline found by asymmetric least squares (see `baseline`)."""
    baseline_width: float | None = None
    """Bands much narrower than this are not baseline; null for `BASELINE_WIDTH` times the line width."""
    asymmetry: float = 0.01
    """Weight of points above the baseline; those below weigh 1 less this."""
    smoothing: float = 0.0
    """Length of the window of a Savitzky-Golay filter; 0 for none."""
    polynomial: int = 3
    """Degree of its polynomials."""
    window: tuple[float, float] | None = None
    """Only this part of the axis is kept, the rest is 0; null for all."""
    normalisation: Literal["none", "area", "maximum"] = "area"
    """What becomes equal to `level`: the area, the maximum, or nothing."""
    level: float = 1.0
    """Area (sample unit times axis unit) or maximum (sample unit) after the normalisation."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            InputError: a factor, length or level out of its range.
        """
        positive = {"scale": self.scale, "level": self.level}
        if self.baseline_width is not None:
            positive["baseline_width"] = self.baseline_width
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"preparation: {name} must be a positive number, not {value}")
        for name, value in {"widen": self.widen, "smoothing": self.smoothing}.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"preparation: {name} must be 0 or more, not {value}")
        if not math.isfinite(self.shift):
            raise InputError(f"preparation: shift must be a number, not {self.shift}")
        if not 0 < self.asymmetry <= 0.5:
            raise InputError(f"preparation: asymmetry must lie in (0, 0.5], not {self.asymmetry}")
        if self.polynomial < 0:
            raise InputError(f"preparation: polynomial must be 0 or more, not {self.polynomial}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise InputError(f"preparation: the window {self.window} does not ascend")


def prepare(spectra: Tensor, kind: Modality, settings: Preparation) -> Tensor:
    """Spectra [B, points] on the modality's axis, made comparable; the same dtype and device, none below 0.

    A spectrum that is 0 everywhere stays so. Not differentiable.

    Raises:
        InputError: a window outside the axis, or a filter or baseline that does not fit into it.
    """
    if settings.scale != 1 or settings.shift:
        spectra = moved(spectra, kind, settings.scale, settings.shift)
    return _finished(spectra, kind, settings, slice(0, kind.points))


def prepare_measured(
    measured: MeasuredSpectrum,
    settings: Preparation,
    name: str | None = None,
    *,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
) -> Conversion:
    """A spectrum from a file as samples on its modality's axis, made comparable.

    Args:
        measured: the spectrum.
        settings: what to do.
        name: modality; None takes that of the spectrum.
        outside: what to do about points that were not measured, as for `onto_axis`. Baseline and filter see
            the measured part alone.
        floor: see `to_absorbance`.
        reflectance: see `to_absorbance`.

    Raises:
        InputError: as `onto_axis` and `prepare`.
    """
    raw = resampled(
        measured,
        name,
        outside=outside,
        floor=floor,
        reflectance=reflectance,
        scale=settings.scale,
        shift=settings.shift,
    )
    places = np.flatnonzero(raw.inside)
    covered = slice(int(places[0]), int(places[-1]) + 1)
    values = _finished(torch.from_numpy(raw.values)[None], raw.kind, settings, covered)[0].numpy()
    return raw.conversion(values)


def _finished(spectra: Tensor, kind: Modality, settings: Preparation, covered: slice) -> Tensor:
    """All steps behind the resampling; points outside `covered` are unknown, and stay 0."""
    if settings.widen:
        spectra = widened(spectra, kind, settings.widen)
    kept = _kept(kind, settings, covered)
    values = spectra[:, covered].double().cpu().numpy()
    if settings.baseline == "als":
        width = settings.baseline_width or BASELINE_WIDTH * kind.fwhm
        values = np.stack([each - baseline(each, width / kind.step, settings.asymmetry) for each in values])
    if settings.smoothing:
        values = _smoothed(values, kind, settings)
    result = torch.zeros(spectra.shape, dtype=torch.float64)
    result[:, covered] = torch.from_numpy(np.maximum(values, 0.0))
    result[:, : kept.start], result[:, kept.stop :] = 0.0, 0.0
    if settings.normalisation != "none":
        area = settings.normalisation == "area"
        now = result.sum(1, keepdim=True) * kind.step if area else result.amax(1, keepdim=True)
        result *= torch.where(now > 0, settings.level / now, 0.0)
    return result.to(spectra)


def _kept(kind: Modality, settings: Preparation, covered: slice) -> slice:
    """Points of the window that are covered."""
    if settings.window is None:
        return covered
    places = np.searchsorted(kind.axis(), np.array(settings.window) + np.array([-1e-6, 1e-6]) * kind.step)
    start, stop = max(int(places[0]), covered.start), min(int(places[1]), covered.stop)
    if start >= stop:
        low, high = settings.window
        raise InputError(f"preparation: nothing of the {kind.name} spectrum lies in {low:g} to {high:g}")
    return slice(start, stop)


def _smoothed(
    values: npt.NDArray[np.float64], kind: Modality, settings: Preparation
) -> npt.NDArray[np.float64]:
    """Values [B, n] behind a Savitzky-Golay filter (Savitzky and Golay 1964)."""
    points = 2 * round((settings.smoothing / kind.step - 1) / 2) + 1
    if not settings.polynomial < points <= values.shape[1]:
        raise InputError(
            f"preparation: a smoothing of {settings.smoothing:g} {kind.unit} is {points} points of the "
            f"{kind.name} axis, which must be more than the degree {settings.polynomial} of the polynomial "
            f"and at most the {values.shape[1]} points that are there"
        )
    smooth: npt.NDArray[np.float64] = savgol_filter(values, points, settings.polynomial, axis=1)
    return smooth


def baseline(
    values: npt.NDArray[np.float64], width: float, asymmetry: float = 0.01
) -> npt.NDArray[np.float64]:
    """Baseline of a spectrum by asymmetric least squares (Eilers 2003, Anal. Chem. 75, 3631).

    z minimises Σ wᵢ(yᵢ - zᵢ)² + λ Σ(zᵢ₋₁ - 2zᵢ + zᵢ₊₁)², with w = p where y > z and 1 - p elsewhere, solved
    again until no weight changes. With λ = (width/2π)⁴ a wave of that period would be followed half-way at
    weight 1. A straight line below the spectrum is taken off exactly.

    Args:
        values: y [n], n ≥ 5.
        width: in points.
        asymmetry: p.

    Returns:
        z [n].

    Raises:
        InputError: fewer than 5 points, or a width beyond four times their number (its equations would be
            those of a straight line, and lose all digits).
    """
    count = len(values)
    if count < 5 or width > 4 * count:
        raise InputError(f"preparation: a baseline of width {width:g} points does not fit to {count} points")
    stiffness = (width / (2 * math.pi)) ** 4
    bands = np.zeros((3, count))  # upper form of D'D, D the second differences
    bands[0, 2:] = stiffness
    bands[1, 1:] = -4 * stiffness
    bands[1, [1, -1]] = -2 * stiffness
    bands[2] = 6 * stiffness
    bands[2, [1, -2]] = 5 * stiffness
    bands[2, [0, -1]] = stiffness
    weights = np.full(count, 0.5)
    middle = values.mean()  # what is added again costs no digits in the solution
    for _ in range(_ROUNDS):
        matrix = bands.copy()
        matrix[2] += weights
        found = solveh_banded(matrix, weights * (values - middle), check_finite=False) + middle
        new = np.where(values > found, asymmetry, 1 - asymmetry)
        if np.array_equal(new, weights):
            break
        weights = new
    result: npt.NDArray[np.float64] = found
    return result
