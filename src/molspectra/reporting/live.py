"""Summaries of molecules that were simulated along with a report's runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from molspectra.reporting.content import Depicted, SimulatedMolecule
from molspectra.simulation.api import Simulation
from molspectra.spectra.spectrum import LineSpectrum


def simulated_molecule(
    simulation: Simulation, seconds: float | None = None, *, bands: int = 3
) -> SimulatedMolecule:
    """Summarise a simulation for a report.

    Args:
        simulation: the computed spectra.
        seconds: its wall time, where known.
        bands: number of the strongest bands to keep of every spectrum.
    """
    molecule, lines = simulation.molecule, simulation.lines
    return SimulatedMolecule(
        molecule=Depicted(molecule.identity, molecule.name, molecule.smiles, molecule.formula),
        seconds=seconds,
        lines={name: len(spectrum) for name, spectrum in lines.items()},
        bands={name: strongest_bands(spectrum, bands) for name, spectrum in lines.items()},
        levels=dict(simulation.levels),
    )


def strongest_bands(spectrum: LineSpectrum, count: int = 3) -> tuple[float, ...]:
    """Return the positions of the highest maxima of the broadened spectrum, in its unit, highest first.

    Maxima, not lines: degenerate and close lines make one band. Lines outside the modality's axis make none.
    """
    sampled = spectrum.broadened()
    maxima = _maxima(sampled.values)
    strongest = maxima[np.argsort(-sampled.values[maxima], kind="stable")][:count]
    return tuple(float(value) for value in sampled.axis[strongest])


def _maxima(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the indices of the inner local maxima of values [points]; of a plateau the first point."""
    middle = values[1:-1]
    return np.flatnonzero((middle > values[:-2]) & (middle >= values[2:])) + 1
