"""Broadening of many ragged line lists at once, in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from molspectra.errors import InputError
from molspectra.spectra.modality import Modality

SHAPES = ("lorentzian", "gaussian")


def broaden(
    position: Tensor,
    intensity: Tensor,
    offsets: Tensor,
    modality: Modality,
    *,
    shape: str = "lorentzian",
    fwhm: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Spectra of B molecules from their lines, as sums of area-normalised profiles.

    Args:
        position: positions [M] of all lines, molecule after molecule, in the modality's axis unit.
        intensity: intensities [M].
        offsets: int64 [B + 1]; the lines of molecule b are offsets[b]:offsets[b + 1].
        modality: gives the axis and the default width.
        shape: "lorentzian" or "gaussian".
        fwhm: full width at half maximum in the axis unit; None takes the modality's default.
        scale: factor on the positions.

    Returns:
        float32 [B, points].

    Raises:
        InputError: unknown shape, or a width or scale that is not positive and finite.
    """
    width = modality.fwhm if fwhm is None else fwhm
    if shape not in SHAPES:
        raise InputError(f"unknown line shape {shape!r}; known: {', '.join(SHAPES)}")
    axis = torch.linspace(modality.start, modality.stop, modality.points, dtype=torch.float64)
    out = torch.zeros(len(offsets) - 1, modality.points)
    for b, (low, high) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        delta2 = (axis - scale * position[low:high, None]) ** 2
        if shape == "lorentzian":
            profile = width / (2 * math.pi) / (delta2 + width**2 / 4)
        else:
            profile = math.sqrt(4 * math.log(2) / math.pi) / width * torch.exp(-4 * math.log(2) / width**2 * delta2)
        out[b] = intensity[low:high].double() @ profile
    return out
