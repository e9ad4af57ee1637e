"""Molecules that were simulated while a report's runs were made, in a few numbers each."""

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
        simulation: what was computed.
        seconds: wall time of it, where known.
        bands: how many of the strongest bands of every spectrum to tell.
    """
    molecule = simulation.molecule
    lines = simulation.lines
    return SimulatedMolecule(
        molecule=Depicted(molecule.identity, molecule.name, molecule.smiles, molecule.formula),
        seconds=seconds,
        lines={name: len(spectrum) for name, spectrum in lines.items()},
        bands={name: strongest_bands(spectrum, bands) for name, spectrum in lines.items()},
        levels=dict(simulation.levels),
    )


def strongest_bands(spectrum: LineSpectrum, count: int = 3) -> tuple[float, ...]:
    """Positions of the highest maxima of the broadened spectrum, highest first.

    Maxima, not lines: degenerate and close lines make one band. Lines outside the modality's axis make none.
    """
    sampled = spectrum.broadened()
    places = _maxima(sampled.values)
    strongest = places[np.argsort(-sampled.values[places], kind="stable")][:count]
    return tuple(float(value) for value in sampled.axis[strongest])


def _maxima(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Places inside the axis that are higher than the one before and not lower than the one after."""
    middle = values[1:-1]
    return np.flatnonzero((middle > values[:-2]) & (middle >= values[2:])) + 1
