"""Plots of spectra with matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError
from molspectra.printable import printable
from molspectra.spectra.modality import modality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = 12
"""Molecules of one figure of spectra; those behind them are not drawn."""

_LETTERS = 13  # of a note, in an inch


class Curve(Protocol):
    """The attributes of `molspectra.spectra.spectrum.SampledSpectrum` that are drawn."""

    @property
    def modality(self) -> str:
        """Name of the modality."""

    @property
    def axis(self) -> npt.NDArray[np.float64]:
        """Positions [points]."""

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """Samples [points]."""


class Sticks(Protocol):
    """The attributes of `molspectra.spectra.spectrum.LineSpectrum` that are drawn."""

    @property
    def modality(self) -> str:
        """Name of the modality."""

    @property
    def position(self) -> npt.NDArray[np.float64]:
        """Positions [n]."""

    @property
    def intensity(self) -> npt.NDArray[np.float64]:
        """Intensities [n]."""


Spectra = Mapping[str, tuple[Curve, Sticks | None]]
"""Spectra of a molecule by modality, with their lines where they are known."""


def plot_spectrum(
    ax: Axes,
    sampled: Curve,
    lines: Sticks | None = None,
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


def spectra_figure(molecules: Iterable[tuple[str, Spectra]], count: int, note: str = "") -> Figure:
    """Draw the spectra of the first `DRAWN` molecules, a row for each, a column for each modality.

    Args:
        molecules: title and spectra of each, all of the same modalities.
        count: number of all molecules; where not all are drawn, the figure says so.
        note: small text above, such as the level of theory.
    """
    from molspectra.spectra.style import COLOURS, new_figure, styled

    rows = list(islice(molecules, DRAWN))
    names = list(rows[0][1])
    width = max(6.4, 4.2 * len(names))
    if count > len(rows):
        note = f"the first {len(rows)} of {count} molecules; {note}"
    with styled():
        drawn = new_figure(width, 2.1 * len(rows) + 0.5)
        axes = drawn.subplots(len(rows), len(names), squeeze=False, sharex="col")
        for row, (title, spectra) in enumerate(rows):
            for column, name in enumerate(names):
                panel, kind = axes[row][column], modality(name)
                plot_spectrum(panel, *spectra[name], color=COLOURS["stage2"], descending=name == "ir")
                panel.set_ylabel(kind.intensity_unit)
                if row == 0:
                    panel.set_title(kind.title or kind.name, loc="right")
                if row < len(rows) - 1:
                    panel.set_xlabel("")
            axes[row][0].set_title(title)
        text = textwrap.fill(printable(note), round(_LETTERS * width))
        drawn.suptitle(text, x=0.99, ha="right", fontsize=9)
    return drawn


def picture(title: str, spectra: Spectra, note: str = "") -> bytes:
    """Draw the spectra of one molecule as a PNG file, for notebooks."""
    from molspectra.spectra.style import png

    return png(spectra_figure([(title, spectra)], 1, note), dpi=100)
