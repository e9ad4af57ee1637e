"""Build the library that measured spectra are searched in: all bundled molecules at the level "scaled".

    python scripts/build_library.py --out build/library          # Hessians; interrupted, it continues
    python scripts/build_library.py --out build/library --pack   # correct them and write the store

The first step starts from the minima of the bundled dataset where it has them: 1 s of one core per molecule,
2 s for others. The second applies the corrections of the package, so a new fit needs no new Hessians.
"""

import argparse
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from build_bundled import MOLECULES, SEED, read_list

from molspectra.chem.identity import identity_from_smiles
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled, bundled_path
from molspectra.data.store.store import write_store
from molspectra.datasets.simulated import simulated_metadata, simulated_row
from molspectra.errors import MolspectraError
from molspectra.simulation.api import Simulation, levels_of_theory, minimum
from molspectra.simulation.units import BOHR
from molspectra.simulation.valence import corrected
from molspectra.simulation.vibrations import infrared, masses_of, normal_modes
from molspectra.simulation.xtb import FieldDerivatives, field_derivatives
from molspectra.spectra.spectrum import LineSpectrum

WEAKEST = 3e-3
"""Lines below this share of the strongest are left out of the library."""
FINEST = 1 / 256, 1 / 4
"""Coordinates are rounded to this, Å, and wavenumbers, cm⁻¹; intensities to 1.5 %: the file packs better."""


def listed() -> list[tuple[str, str, str]]:
    """SMILES, name and identity of every molecule."""
    rows = [(row["smiles"], row["name"]) for row in read_list(MOLECULES)]
    return [(smiles, name, identity_from_smiles(smiles)) for smiles, name in rows]


def compute(out: Path) -> None:
    """Compute minimum, Hessian and dipole derivatives of the molecules that are missing, a file for each."""
    out.mkdir(parents=True, exist_ok=True)
    store = bundled()
    known = {identity: row for row, identity in enumerate(store.identities)}
    for smiles, name, identity in listed():
        path = out / f"{identity}.npz"
        if path.exists():
            continue
        try:
            row = known.get(identity)
            molecule = (
                from_smiles(smiles, name=name or None, seed=SEED) if row is None else store.molecule(row)
            )
            positions, hessian, result = minimum(molecule, molecule.positions / BOHR)
            fields = field_derivatives(molecule.numbers, positions, molecule.charge, result)
        except MolspectraError as error:
            print(f"{smiles}: {error}", flush=True)
            continue
        hidden = out / f".{identity}.npz"
        arrays = {"hessian": hessian.astype(np.float32), "dipole": fields.dipole.astype(np.float32)}
        np.savez_compressed(hidden, numbers=molecule.numbers, positions=positions, **arrays)
        os.replace(hidden, path)


def simulations(out: Path) -> Iterator[Simulation]:
    """Yield the corrected results in the order of the list; print what is missing."""
    levels = levels_of_theory(("ir",), level="scaled")
    for smiles, name, identity in listed():
        path = out / f"{identity}.npz"
        if not path.exists():
            print(f"missing: {name or smiles}")
            continue
        data = np.load(path)
        numbers, positions = data["numbers"], data["positions"]
        hessian = data["hessian"].astype(np.float64)
        fields = FieldDerivatives(data["dipole"].astype(np.float64), np.zeros((len(hessian), 3, 3)))
        hessian, fields = corrected("GFN2-xTB", numbers, positions, hessian, fields)
        modes = normal_modes(masses_of(numbers), positions, hessian)
        strength = infrared(modes, fields)
        kept = strength >= WEAKEST * strength.max()
        mantissa, exponent = np.frexp(strength[kept])
        lines = LineSpectrum(
            "ir",
            np.round(modes.wavenumbers[kept] / FINEST[1]) * FINEST[1],
            np.ldexp(np.round(mantissa * 64) / 64, exponent),
            levels["ir"],
        )
        rounded = np.round(positions * BOHR / FINEST[0]) * FINEST[0]
        molecule = Molecule(numbers, rounded, smiles=smiles, name=name or None)
        yield Simulation(molecule, {"ir": lines}, {}, levels)


def pack(out: Path) -> None:
    """Write the store and its manifest."""
    results = list(simulations(out))
    metadata = simulated_metadata(
        results[0], source="computed by molspectra (scripts/build_library.py)", licence="MIT", notes={}
    )
    target = bundled_path("bundled-library")
    written = write_store(target, map(simulated_row, results), metadata, overwrite=True)
    manifest = {
        "molecules": written.rows,
        "named": sum(result.molecule.name is not None for result in results),
        "content_sha256": written.hash,
        "levels": results[0].levels,
        "lines": sum(len(result.lines["ir"]) for result in results),
        "weakest_line": WEAKEST,
        "versions": {name: version(name) for name in ("molspectra", "tblite", "numpy", "rdkit")},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    target.with_suffix(".json").write_text(text, encoding="utf-8")
    print(f"{written.rows} molecules, {target.stat().st_size / 1e6:.2f} MB: {target}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the Hessians")
    parser.add_argument("--pack", action="store_true", help="write the store from what is there")
    options = parser.parse_args()
    pack(options.out) if options.pack else compute(options.out)


if __name__ == "__main__":
    main()
