"""Stored spectra: coarser than the modality's axis, of unit length, for plain comparison of shapes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from molspectra.spectra.modality import Modality

POINTS_PER_WIDTH = 3
"""Stored points per default line width of the modality: 4 cm⁻¹ and 0.1 eV."""

Floats = npt.NDArray[np.float32]


def reduction(kind: Modality) -> int:
    """Points of the modality's axis that become one stored point."""
    return max(1, math.floor(kind.fwhm / POINTS_PER_WIDTH / kind.step + 1e-9))


def stored_points(kind: Modality) -> int:
    """Number of stored points P; what is left over at the end of the axis belongs to none."""
    return kind.points // reduction(kind)


def coarse(values: npt.NDArray[np.floating], kind: Modality) -> Floats:
    """Means of neighbouring points: [..., points] to [..., P] float32."""
    step, points = reduction(kind), stored_points(kind)
    cut = np.asarray(values)[..., : step * points]
    return cut.reshape(*cut.shape[:-1], points, step).mean(-1, dtype=np.float32)


def coarse_mask(inside: npt.NDArray[np.bool_], kind: Modality) -> npt.NDArray[np.bool_]:
    """Stored points whose points are all `inside`: [points] to [P]."""
    step, points = reduction(kind), stored_points(kind)
    return np.asarray(inside[: step * points].reshape(points, step).all(-1))


def unit(vectors: Floats) -> Floats:
    """Vectors [n, D] scaled to length 1; a vector of zeros stays, and stands for none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
