"""Infrared spectrum of ethanol: from molecular dynamics with a trained model, and harmonic.

    molspectra finetune --config small-md17 --out runs/ethanol
    python examples/ethanol_ir.py runs/ethanol --out ethanol_ir.png

Forces come from the model and dipoles from GFN2-xTB (extra `simulate`) in both spectra, so that they differ
only in the motion: classical and anharmonic at 300 K, with rotation, or harmonic at the minimum. With
`--dipole RUN` the dipoles along the trajectory are those of a run that has learnt them as vectors.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from ase import units
from ase.io import iread

from molspectra import Calculator, Molecule, from_smiles
from molspectra.apps.md import relax, run_md
from molspectra.chem.readers import from_ase, to_ase
from molspectra.simulation.autocorrelation import infrared_of_dipoles, xtb_dipoles
from molspectra.simulation.dynamics import DynamicsSettings
from molspectra.simulation.units import BOHR, HARTREE
from molspectra.simulation.vibrations import infrared, masses_of, normal_modes
from molspectra.simulation.xtb import Xtb, field_derivatives

Array = npt.NDArray[np.float64]

WIDTH = 20.0
"""Full width at half maximum of the Gaussian lines of both spectra, cm⁻¹."""

BANDS = {
    "C–C–O bend and torsions": (150, 550),
    "C–O, C–C stretches, rocking": (750, 1200),
    "C–H, O–H bends": (1200, 1600),
    "C–H stretches": (2600, 3250),
    "O–H stretch": (3250, 4000),
}
"""Ranges of wavenumbers over which both spectra are summed, cm⁻¹."""


def harmonic_spectrum(atoms: Any) -> tuple[Array, Array]:
    """Return wavenumbers (cm⁻¹) and intensities (km/mol) [M] of the normal modes at a minimum."""
    hessian = numerical_hessian(atoms) / HARTREE * BOHR**2
    molecule = from_ase(atoms)
    masses, positions = masses_of(molecule.numbers), molecule.positions / BOHR
    modes = normal_modes(masses, positions, hessian)
    start = Xtb(molecule.numbers, positions).run(positions)
    return modes.wavenumbers, infrared(modes, field_derivatives(molecule.numbers, positions, 0, start))


def numerical_hessian(atoms: Any, step: float = 0.005) -> Array:
    """Return the Hessian [3N, 3N], eV/Å², from the forces on all displaced molecules in one batch."""
    displaced = []
    for coordinate in np.ndindex(*atoms.positions.shape):
        for sign in (1, -1):
            displaced.append(atoms.copy())
            displaced[-1].positions[coordinate] += sign * step
    forces = np.stack(atoms.calc.energies_and_forces(displaced).forces).reshape(len(displaced), -1)
    hessian = (forces[1::2] - forces[::2]) / (2 * step)
    return np.asarray(0.5 * (hessian + hessian.T))


def broadened(wavenumbers: Array, intensities: Array, grid: Array) -> Array:
    """Return the sum of Gaussians of full width `WIDTH` on a grid [M], km/mol per cm⁻¹."""
    sigma = WIDTH / (2 * np.sqrt(2 * np.log(2)))
    lines = np.exp(-0.5 * ((grid[:, None] - wavenumbers) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    return np.asarray(lines @ intensities)


def dynamics_spectrum(
    molecule: Molecule, trajectory: Path, settings: DynamicsSettings, learned: bool
) -> tuple[Array, Array]:
    """Return wavenumbers (cm⁻¹) and absorption (km/mol per cm⁻¹) from the dipoles along a trajectory.

    Learned ones are in its frames; others are computed.
    """
    if learned:
        dipoles = np.array([frame.get_dipole_moment() for frame in iread(trajectory)]) / units.Debye
    else:
        dipoles = xtb_dipoles(molecule, (frame.positions for frame in iread(trajectory)))
    return infrared_of_dipoles(dipoles, settings.interval_fs, settings.temperature, WIDTH)


def draw(out: Path, grid: Array, classical: Array, harmonic: Array, settings: DynamicsSettings) -> None:
    """Plot both spectra, one below the other."""
    figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    for axis, spectrum, title in (
        (axes[0], classical, f"dipole autocorrelation, {settings.temperature:g} K"),
        (axes[1], harmonic, "harmonic"),
    ):
        axis.plot(grid, spectrum, linewidth=1)
        axis.set(ylabel="km/mol per cm⁻¹", title=title, ylim=(0, None))
    axes[1].set(xlabel="wavenumber / cm⁻¹", xlim=(0, 4000))
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Run dynamics, compute both spectra, draw them and print the bands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="fine-tuned energy of ethanol, with forces")
    parser.add_argument("--dipole", help="fine-tuned dipole vector; GFN2-xTB's dipoles if not given")
    parser.add_argument("--out", type=Path, default=Path("ethanol_ir.png"), help="picture to write")
    parser.add_argument("--time-ps", type=float, default=20.0, help="length of the trajectory, ps")
    parser.add_argument("--equilibration-fs", type=float, default=2000.0, help="before it, fs")
    parser.add_argument("--no-relax", action="store_true", help="take the start structure for the minimum")
    options = parser.parse_args(arguments)

    molecule = from_smiles("CCO")
    atoms = to_ase(molecule)
    atoms.set_masses(masses_of(molecule.numbers))
    atoms.calc = Calculator(options.run, options.dipole)
    if not options.no_relax:
        relax(atoms, fmax=1e-3)
    wavenumbers, intensities = harmonic_spectrum(atoms)

    # a weak heat bath equilibrates the modes, and broadens lines by 5 cm⁻¹ per 1/ps of friction
    settings = DynamicsSettings(
        temperature=300.0, interval_fs=2.0, friction_per_ps=1.0, equilibration_fs=options.equilibration_fs
    )
    trajectory = options.out.with_suffix(".extxyz")
    result = run_md(atoms, trajectory, settings, options.time_ps, "langevin", overwrite=True)
    grid, classical = dynamics_spectrum(molecule, trajectory, settings, options.dipole is not None)
    draw(options.out, grid, classical, broadened(wavenumbers, intensities, grid), settings)

    print(f"{options.time_ps:g} ps at {result.temperature:.0f} K; bands in km/mol, centre in cm⁻¹")
    print(f"{'':<28}{'motion':>14}{'harmonic':>16}")
    for name, (low, high) in BANDS.items():
        inside, lines = (grid >= low) & (grid < high), (wavenumbers >= low) & (wavenumbers < high)
        area = float(classical[inside].sum() * (grid[1] - grid[0]))
        centre = float((classical * grid)[inside].sum() / classical[inside].sum())
        harmonic_area, harmonic_centre = float(intensities[lines].sum()), np.nan
        if harmonic_area > 0:
            harmonic_centre = float((intensities * wavenumbers)[lines].sum() / harmonic_area)
        print(f"{name:<28}{area:8.1f} @{centre:5.0f}{harmonic_area:9.1f} @{harmonic_centre:5.0f}")
    print(f"{options.out}")


if __name__ == "__main__":
    main()
