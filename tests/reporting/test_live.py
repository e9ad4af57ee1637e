import numpy as np

from molspectra.chem.readers import from_smiles
from molspectra.reporting.live import simulated_molecule, strongest_bands
from molspectra.simulation.api import Simulation
from molspectra.spectra.spectrum import LineSpectrum


def test_bands_are_maxima_of_the_broadened_spectrum_strongest_first():
    # two degenerate lines make the strongest band; one line lies below the axis; zero lines make none
    lines = LineSpectrum("ir", np.array([300.0, 700, 700, 1500, 3000]), np.array([999.0, 30, 30, 50, 0]))
    assert strongest_bands(lines) == (700.0, 1500.0)
    assert strongest_bands(lines, 1) == (700.0,)
    assert strongest_bands(LineSpectrum("ir", np.array([]), np.array([]))) == ()


def test_a_simulation_is_summarised():
    molecule = from_smiles("C=O", name="formaldehyde")
    lines = {"ir": LineSpectrum("ir", np.array([1000.0, 1700.0]), np.array([5.0, 80.0]), "x")}
    summary = simulated_molecule(Simulation(molecule, lines, {}, {"ir": "x"}), 0.5)
    assert summary.molecule.label == "formaldehyde"
    assert summary.molecule.formula == "CH2O"
    assert summary.lines == {"ir": 2}
    assert summary.bands == {"ir": (1700.0, 1000.0)}
    assert summary.levels == {"ir": "x"}
    assert summary.seconds == 0.5
