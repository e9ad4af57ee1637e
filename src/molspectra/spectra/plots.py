"""Plots of spectra with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from molspectra.errors import MismatchError
from molspectra.spectra.modality import modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_spectrum(
    ax: Axes,
    sampled: SampledSpectrum,
    lines: LineSpectrum | None = None,
    label: str | None = None,
    *,
    color: str | None = None,
    descending: bool = False,
) -> None:
    """Draw a spectrum with labelled axes, and its lines as sticks below the curve.

    Sticks and curve have different units, so all sticks are scaled by one factor that makes the tallest one
    inside the axis as high as the curve; compare sticks with each other, not with the scale.

    Args:
        ax: axes to draw in; several spectra of one modality may share them.
        sampled: the curve.
        lines: the lines of the same spectrum; those outside the axis are not drawn.
        label: label in the legend, which the caller draws.
        color: any matplotlib colour; None takes the next of the cycle.
        descending: reverse the axis, as is customary for infrared spectra.

    Raises:
        MismatchError: curve and lines have different modalities.
    """
    kind = modality(sampled.modality)
    if lines is not None and lines.modality != kind.name:
        raise MismatchError(f"lines of {lines.modality} cannot go with a {kind.name} spectrum")
    (curve,) = ax.plot(sampled.axis, sampled.values, linewidth=1.2, color=color, label=label)
    if lines is not None:
        inside = (lines.position >= kind.start) & (lines.position <= kind.stop)
        position, height = lines.position[inside], lines.intensity[inside]
        if height.size and height.max() > 0:
            height = height * (sampled.values.max() / height.max())
            ax.vlines(position, 0.0, height, colors=curve.get_color(), linewidth=0.8, alpha=0.5)
    ax.set_xlim(*((kind.stop, kind.start) if descending else (kind.start, kind.stop)))
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel(f"{kind.quantity} / {kind.unit}")
    ax.set_ylabel(f"{kind.signal} / ({kind.intensity_unit})")
    ax.spines[["top", "right"]].set_visible(False)
