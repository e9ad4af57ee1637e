"""Example spectra of the page: drawn from bands of measured gas-phase spectra, with an offset and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

_AXIS = np.arange(500.0, 4000.0, 2.0)  # cm⁻¹
_OFFSET, _NOISE = 0.03, 0.003  # relative to the highest band

_Bands = tuple[tuple[float, float, float], ...]

EXAMPLES: dict[str, _Bands] = {
    "unknown A (a ketone)": (
        (1216, 0.45, 24), (1364, 0.5, 30), (1435, 0.2, 40), (1738, 1.0, 34), (2970, 0.13, 70), (528, 0.1, 20),
    ),
    "unknown B (an alcohol)": (
        (883, 0.15, 30), (1066, 1.0, 58), (1251, 0.25, 50), (1396, 0.48, 48), (1453, 0.13, 20),
        (2906, 0.5, 60), (2990, 0.75, 90), (3663, 0.19, 45),
    ),
}  # fmt: skip
"""Position, relative height and full width (cm⁻¹) of the bands of each example."""


def write_example(name: str, folder: Path) -> Path:
    """Write an example as a text file, as an instrument would; the same bytes each time.

    Raises:
        KeyError: no such example.
    """
    bands = EXAMPLES[name]
    values = sum(
        height * np.exp(-4 * np.log(2) * ((_AXIS - place) / width) ** 2) for place, height, width in bands
    )
    values = values + _OFFSET + np.random.default_rng(0).normal(0, _NOISE, len(_AXIS))
    path = folder / f"{name.split(' (')[0].replace(' ', '-')}.csv"
    np.savetxt(path, np.column_stack([_AXIS, values]), "%.5g", ",", header="cm-1,absorbance", comments="")
    return path
