"""Print the tables of docs/validation.md: simulated frequencies and excitations beside experiment.

python scripts/validate_simulation.py            # about two minutes on one core
python scripts/validate_simulation.py --kernel   # also PySCF's own TDA of formaldehyde
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from molspectra.chem.readers import from_smiles
from molspectra.simulation import vibrations, xtb
from molspectra.simulation.api import Simulation, simulate
from molspectra.simulation.dft import FUNCTIONAL, ground_state
from molspectra.simulation.tda import KERNEL, excitations
from molspectra.simulation.units import BOHR, DEBYE, HARTREE, IR_INTENSITY

EXPERIMENT = Path(__file__).resolve().parents[1] / "tests" / "simulation" / "experiment.json"
BRIGHT = 0.01
"""Smallest oscillator strength of a bright state."""

DEGENERATE = 2.0
"""Largest distance of degenerate modes, cm⁻¹."""

ACTIVE = 5e-4
"""Smallest intensity (km/mol or Å⁴/amu) of an active mode; modes forbidden by symmetry stay below 2e-4."""


def read_experiment() -> dict:
    """Return the experimental values and their sources."""
    return json.loads(EXPERIMENT.read_text(encoding="utf-8"))


def normal_modes(simulation: Simulation) -> vibrations.Modes:
    """Return the normal modes at the optimised geometry."""
    molecule = simulation.molecule
    positions = molecule.positions / BOHR
    calculator = xtb.Xtb(molecule.numbers, positions, molecule.charge)
    matrix = xtb.hessian(calculator, positions, calculator.run(positions))
    return vibrations.normal_modes(vibrations.masses_of(molecule.numbers), positions, matrix)


def mode_classes(simulation: Simulation) -> list[str]:
    """Return parity, degeneracy and activity of the modes of a centrosymmetric molecule: "u2 active"."""
    modes = normal_modes(simulation)
    positions, masses = simulation.molecule.positions, vibrations.masses_of(simulation.molecule.numbers)
    centred = positions - masses @ positions / masses.sum()
    image = np.linalg.norm(centred[:, None] + centred[None, :], axis=-1).argmin(1)
    classes = []
    for k, vector in enumerate(modes.displacements.reshape(len(modes.wavenumbers), -1, 3)):
        parity = "g" if (vector * vector[image]).sum() < 0 else "u"
        distance = np.abs(np.delete(modes.wavenumbers, k) - modes.wavenumbers[k])
        degenerate = distance.min(initial=np.inf) < DEGENERATE
        active = max(line.intensity[k] for line in simulation.lines.values()) > ACTIVE
        classes.append(f"{parity}{1 + degenerate} {'active' if active else 'silent'}")
    return classes


def compare_frequencies(simulation: Simulation, fundamentals: dict[str, list[float]]) -> np.ndarray:
    """Return simulated and experimental wavenumbers [M, 2], paired in order within each symmetry class."""
    wavenumbers = simulation.lines["ir"].position
    single = list(fundamentals) == ["all"]
    classes = np.array(["all"] * len(wavenumbers) if single else mode_classes(simulation))
    pairs = [
        np.stack([wavenumbers[classes == name], np.array(values, dtype=float)], axis=1)
        for name, values in fundamentals.items()
    ]
    return np.concatenate(pairs)


def compare_excitations(simulation: Simulation, states: list[dict]) -> list[tuple[str, float, float, float]]:
    """Return label, simulated energy (eV), strength with degenerate partners, and reference energy (eV)."""
    lines = simulation.lines["uv_vis"]
    rows = []
    for state in states:
        same = (lines.intensity > BRIGHT) == state["bright"]
        energy = lines.position[same][state["rank"] - 1]
        strength = lines.intensity[np.abs(lines.position - energy) < 0.01].sum()
        rows.append((state["label"], float(energy), float(strength), float(state["energy"])))
    return rows


def print_frequencies(data: dict) -> None:
    """Print a table of errors, then every pair."""
    print(f"Source: {data['source']}\n")
    print("| molecule | modes | mean error | mean absolute error | largest error | mean relative error |")
    print("|---|---|---|---|---|---|")
    details = []
    for name, entry in data["molecules"].items():
        pairs = compare_frequencies(
            simulate(from_smiles(entry["smiles"]), ("ir", "raman")), entry["fundamentals"]
        )
        error = pairs[:, 0] - pairs[:, 1]
        worst = error[np.abs(error).argmax()]
        relative = 100 * (np.abs(error) / pairs[:, 1]).mean()
        mean, absolute = f"{error.mean():+.0f}", f"{np.abs(error).mean():.0f}"
        print(f"| {name} | {len(pairs)} | {mean} | {absolute} | {worst:+.0f} | {relative:.1f} % |")
        unique = sorted({(round(b), round(a)) for a, b in pairs})
        details.append(f"- {name}: " + ", ".join(f"{b} → {a}" for b, a in unique))
    print("\nExperiment → simulation, cm⁻¹:\n")
    print("\n".join(details))


def dft_intensity(simulation: Simulation, direction: np.ndarray) -> float:
    """Return the IR intensity (km/mol) of a mode ∂R/∂Q [N, 3] from B3LYP/def2-SVP dipoles."""
    molecule = simulation.molecule
    step = 0.02 / np.abs(direction).max()
    dipoles = [
        ground_state(molecule.numbers, molecule.positions / BOHR + sign * step * direction).dipole
        for sign in (1, -1)
    ]
    change = (dipoles[0] - dipoles[1]) / (2 * step) * DEBYE / BOHR
    return IR_INTENSITY * float(change @ change)


def print_intensities() -> None:
    """Print IR intensities of GFN2-xTB and of B3LYP for the same modes at the same geometry."""
    print("| molecule | wavenumber (cm⁻¹) | GFN2-xTB (km/mol) | B3LYP/def2-SVP (km/mol) |\n|---|---|---|---|")
    for name, smiles in (("water", "O"), ("carbon dioxide", "O=C=O"), ("benzene", "c1ccccc1")):
        simulation = simulate(from_smiles(smiles), ("ir", "raman"))
        modes = normal_modes(simulation)
        lines = simulation.lines["ir"]
        last = -np.inf
        for k in np.flatnonzero(lines.intensity > ACTIVE):
            if lines.position[k] - last < DEGENERATE:
                continue  # the partner of a degenerate pair
            last = lines.position[k]
            reference = dft_intensity(simulation, modes.displacements[k].reshape(-1, 3))
            print(f"| {name} | {lines.position[k]:.0f} | {lines.intensity[k]:.1f} | {reference:.1f} |")


def print_polarisabilities() -> None:
    """Print mean polarisabilities from dipoles in a field, and experiment."""
    print("| molecule | GFN2-xTB (Å³) | experiment (Å³) |\n|---|---|---|")
    for name, smiles, expected in (
        ("water", "O", 1.45),
        ("carbon dioxide", "O=C=O", 2.91),
        ("benzene", "c1ccccc1", 10.3),
    ):
        molecule = simulate(from_smiles(smiles), ("ir",)).molecule
        positions = molecule.positions / BOHR
        trace = 0.0
        for k in range(3):
            ahead, behind = (
                xtb.Xtb(molecule.numbers, positions, 0, sign * xtb.FIELD * np.eye(3)[k]).run(positions)
                for sign in (1, -1)
            )
            trace += (ahead.get("dipole")[k] - behind.get("dipole")[k]) / (2 * xtb.FIELD)
        print(f"| {name} | {trace / 3 * BOHR**3:.2f} | {expected:.2f} |")


def print_excitations(data: dict) -> None:
    """Print a table of the first excitations."""
    print(f"Source: {data['source']}\n")
    print("| molecule | state | simulated (eV) | oscillator strength | reference (eV) | error |")
    print("|---|---|---|---|---|---|")
    for name, entry in data["molecules"].items():
        simulation = simulate(from_smiles(entry["smiles"]), ("uv_vis",))
        for label, energy, strength, expected in compare_excitations(simulation, entry["states"]):
            error = energy - expected
            print(f"| {name} | {label} | {energy:.2f} | {strength:.3f} | {expected:.2f} | {error:+.2f} |")


def print_kernel() -> None:
    """Print excitations of formaldehyde from this package, and from PySCF with both kernels and all pairs."""
    from pyscf import dft

    molecule = simulate(from_smiles("C=O"), ("uv_vis",)).molecule
    state = ground_state(molecule.numbers, molecule.positions / BOHR)
    reference = dft.RKS(state.molecule, xc=FUNCTIONAL)
    reference.grids.level = 3
    reference.conv_tol = 1e-10
    reference.kernel()
    rows = {
        "here": excitations(state).energies[:6],
        "here, all pairs": excitations(state, window=np.inf).energies[:6],
    }
    for label, functional in (
        ("PySCF, LDA kernel", f"0.2*HF + {KERNEL}"),
        ("PySCF, B3LYP kernel", FUNCTIONAL),
    ):
        reference.xc = functional
        tda = reference.TDA()
        tda.nstates = 6
        rows[label] = tda.kernel()[0]
    for label, energies in rows.items():
        print(f"| {label} | " + " | ".join(f"{energy * HARTREE:.3f}" for energy in energies) + " |")


def print_cost() -> None:
    """Print the CPU time, s, for C7H10O2 after imports, of the second run."""
    molecule = from_smiles("CC1(C)CC(=O)CC1=O")
    for modalities in (("ir", "raman"), ("ir", "raman", "uv_vis")):
        simulate(molecule, modalities)
        start = time.process_time()
        simulate(molecule, modalities)
        print(
            f"- {molecule.formula}, {' + '.join(modalities)}: {time.process_time() - start:.2f} CPU-seconds"
        )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", action="store_true", help="compare with PySCF's own TDA")
    options = parser.parse_args()
    data = read_experiment()
    print_frequencies(data["vibrations"])
    print()
    print_intensities()
    print()
    print_polarisabilities()
    print()
    print_excitations(data["excitations"])
    if options.kernel:
        print()
        print_kernel()
    print()
    print_cost()


if __name__ == "__main__":
    main()
