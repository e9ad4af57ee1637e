"""Differences between measured and computed spectra, as functions on batches of samples.

Used by the pipeline for measured spectra (`measured.py`), by the augmentation in training and by the tests
of robustness. All take and return spectra [B, points] on the modality's axis; parameters are one number or
one per spectrum [B]. Negative values are not clipped.
"""

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from molspectra.spectra.modality import Modality


def moved(
    spectra: Tensor, kind: Modality, scale: Tensor | float = 1.0, shift: Tensor | float = 0.0
) -> Tensor:
    """Move bands from x to scale·x + shift, by linear interpolation.

    Args:
        spectra: [B, points].
        kind: gives the axis.
        scale: factor on the positions, above 0.
        shift: in the axis unit.

    Returns:
        [B, points]; points that come from outside the axis are 0.
    """
    axis = torch.from_numpy(kind.axis()).to(spectra.device)
    index = ((axis - _column(shift, spectra)) / _column(scale, spectra) - kind.start) / kind.step
    index = index.expand(len(spectra), -1)
    last, slack = kind.points - 1, 1e-9 * kind.points
    known = (index >= -slack) & (index <= last + slack)
    left = index.floor().clamp(0, last - 1).long()
    fraction = (index - left).to(spectra.dtype)
    values = spectra.gather(1, left) * (1 - fraction) + spectra.gather(1, left + 1) * fraction
    return values.masked_fill(~known, 0.0)


def widened(spectra: Tensor, kind: Modality, fwhm: Tensor | float) -> Tensor:
    """Convolve spectra with a Lorentzian, whose width adds to that of Lorentzian bands.

    The Fourier transform of a Lorentzian of full width w is exp(-π w |f|). Spectra are 0 outside the axis.
    The profile repeats after twice the axis, which adds less than 0.05 % of area for a width of ten points.

    Args:
        spectra: [B, points].
        kind: gives the axis.
        fwhm: full width at half maximum in the axis unit; 0 changes only the rounding.
    """
    length = next_fast_len(2 * kind.points, real=True)
    frequency = torch.fft.rfftfreq(length, kind.step, dtype=torch.float64, device=spectra.device)
    damping = torch.exp(-math.pi * _column(fwhm, spectra) * frequency).to(spectra.dtype)
    folded = torch.fft.irfft(torch.fft.rfft(spectra, length) * damping, length)
    return folded[:, : kind.points]


def drifted(
    spectra: Tensor, height: Tensor | float, periods: Tensor | float, phase: Tensor | float
) -> Tensor:
    """Add a slow wave h·(1 + cos(2π(n t + φ)))/2 as baseline, with t from 0 to 1 along the axis.

    Args:
        spectra: [B, points].
        height: h, as a fraction of each spectrum's maximum.
        periods: n, periods of the wave along the axis.
        phase: φ, in periods.
    """
    along = torch.linspace(0.0, 1.0, spectra.shape[1], dtype=torch.float64, device=spectra.device)
    turns = _column(periods, spectra) * along + _column(phase, spectra)
    wave = (_column(height, spectra) / 2 * (1 + torch.cos(2 * math.pi * turns))).to(spectra.dtype)
    return spectra + wave * spectra.amax(dim=1, keepdim=True)


def noised(spectra: Tensor, noise: Tensor, size: Tensor | float) -> Tensor:
    """Add white noise.

    Args:
        spectra: [B, points].
        noise: [B, points] standard normal numbers.
        size: standard deviation, as a fraction of each spectrum's maximum.
    """
    maximum = spectra.amax(dim=1, keepdim=True)
    return spectra + noise.to(spectra.dtype) * _column(size, spectra).to(spectra.dtype) * maximum


def cut(spectra: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Set a fraction of the points at either end of the axis to 0.

    Args:
        spectra: [B, points].
        low: fraction at the start of the axis.
        high: fraction at its end.
    """
    points = spectra.shape[1]
    index = torch.arange(points, dtype=torch.float64, device=spectra.device)
    outside = (index < _column(low, spectra) * points) | (index >= (1 - _column(high, spectra)) * points)
    return spectra.masked_fill(outside, 0.0)


def _column(value: Tensor | float, spectra: Tensor) -> Tensor:
    """Return one number as [1, 1], or one per spectrum as [B, 1], float64."""
    return torch.as_tensor(value, dtype=torch.float64, device=spectra.device).reshape(-1, 1)
