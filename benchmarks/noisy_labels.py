"""How far the labels of a clean frame are from those of the frame that noisy nodes show to the model.

    python benchmarks/noisy_labels.py [--store bundled-ethanol] [--sigma 0.005] [--frames 40]

Energies and forces are GFN2-xTB's (needs the extra "simulate"); noise is centred per molecule.
"""

import argparse

import numpy as np

from molspectra.simulation.units import BOHR, KCAL
from molspectra.simulation.xtb import Xtb, energy_gradient
from molspectra.training.data import open_store


def main() -> None:
    """Print mean absolute changes of energies and force components."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default="bundled-ethanol", help="frames to move")
    parser.add_argument("--sigma", type=float, default=0.005, help="noise per coordinate in Å")
    parser.add_argument("--frames", type=int, default=40, help="how many, evenly spaced")
    options = parser.parse_args()
    store, random = open_store(options.store), np.random.default_rng(0)
    changes = []
    for row in np.linspace(0, len(store) - 1, options.frames).astype(int):
        molecule = store.molecule(int(row))
        noise = random.normal(0, options.sigma, molecule.positions.shape)
        clean, moved = molecule.positions, molecule.positions + noise - noise.mean(0)
        xtb = Xtb(molecule.numbers, clean / BOHR, molecule.charge)
        (energy, gradient), (other, other_gradient) = (
            energy_gradient(xtb.run(positions / BOHR)) for positions in (clean, moved)
        )
        forces = gradient * KCAL / BOHR, other_gradient * KCAL / BOHR
        changes.append(
            (abs(other - energy) * KCAL, np.abs(forces[1] - forces[0]).mean(), np.abs(forces[0]).mean())
        )
    energy, force, size = np.mean(changes, axis=0)
    print(f"{options.frames} frames, noise of {options.sigma} Å")
    print(f"energy: mean absolute change {energy:.3f} kcal/mol")
    print(f"forces: mean absolute change {force:.2f} of {size:.1f} kcal/mol/Å")


if __name__ == "__main__":
    main()
