"""Summaries of molecules that were simulated along with a report's runs."""

from __future__ import annotations

import numpy as np

from molspectra.reporting.content import Depicted, SimulatedMolecule
from molspectra.simulation.api import Simulation
from molspectra.spectra.spectrum import LineSpectrum


def simulated_molecule(simulation: Simulation, seconds: float | None = None) -> SimulatedMolecule:
    """Summarise a simulation, and its wall time in s where known, for a report."""
    molecule, lines = simulation.molecule, simulation.lines
    return SimulatedMolecule(
        molecule=Depicted(molecule.identity, molecule.name, molecule.smiles, molecule.formula),
        seconds=seconds,
        lines={name: len(spectrum) for name, spectrum in lines.items()},
        bands={name: strongest_bands(spectrum) for name, spectrum in lines.items()},
        levels=dict(simulation.levels),
    )


def strongest_bands(spectrum: LineSpectrum, count: int = 3) -> tuple[float, ...]:
    """Return the positions of the highest maxima of the broadened spectrum, in its unit, highest first.

    Maxima, not lines: degenerate and close lines make one band. Lines outside the modality's axis make none.
    """
    sampled = spectrum.broadened()
    before, middle, after = sampled.values[:-2], sampled.values[1:-1], sampled.values[2:]
    maxima = np.flatnonzero((middle > before) & (middle >= after)) + 1  # of a plateau the first point
    strongest = maxima[np.argsort(-sampled.values[maxima], kind="stable")][:count]
    return tuple(float(value) for value in sampled.axis[strongest])
