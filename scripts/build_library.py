"""Build the library that measured spectra are searched in: all bundled molecules, at "dft" or "scaled".

    python scripts/build_library.py --out build/library           # GFN2-xTB Hessians
    python scripts/build_library.py --out build/library --dft     # those of B3LYP, small molecules first
    python scripts/build_library.py --out build/library --pack    # correct them and write the store

Interrupted, the first two continue. The first starts from the minima of the bundled dataset where it has
them: 1 s of one core per molecule, 2 s for others. The second takes half a minute for three heavy atoms and
five minutes for seven; it leaves out what the package's library has at B3LYP, may be stopped at any time, and
several may run at once. The third applies the corrections of the package (`fit_valence.py`) and keeps the
entries of the package's library for which nothing better is there; a new fit needs all Hessians.
"""

import argparse
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from build_bundled import MOLECULES, SEED, read_list
from rdkit import Chem

from molspectra.chem.identity import identity_from_smiles
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled, bundled_path
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.store import Store
from molspectra.data.store.writer import Row, write_store
from molspectra.errors import MolspectraError
from molspectra.simulation.api import levels_of_theory, minimum
from molspectra.simulation.harmonic import harmonic
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR
from molspectra.simulation.valence import corrected
from molspectra.simulation.vibrations import infrared, masses_of, normal_modes
from molspectra.simulation.xtb import FieldDerivatives, field_derivatives
from molspectra.spectra.spectrum import LineSpectrum

COMMON = MOLECULES.with_name("common.txt")
"""Names of molecules that chemists meet every day."""
CORNERSTONES = ("C=COC(C)=O",)
"""Further molecules, for kinds of bonds that the small ones lack."""
WEAKEST = 5e-3
"""Lines below this share of the strongest are left out of the library."""
FINEST = 1 / 128, 1 / 2
"""Coordinates are rounded to this, Å, and wavenumbers, cm⁻¹; intensities to 3 %: the file packs better."""


def listed() -> list[tuple[str, str, str]]:
    """SMILES, name and identity of every molecule."""
    rows = [(row["smiles"], row["name"]) for row in read_list(MOLECULES)]
    return [(smiles, name, identity_from_smiles(smiles)) for smiles, name in rows]


def rows_of(store: Store) -> dict[str, int]:
    """Rows of a store by identity."""
    return {identity: row for row, identity in enumerate(store.identities)}


def compute(out: Path) -> None:
    """Compute minimum, Hessian and dipole derivatives of the molecules that are missing, a file for each."""
    store = bundled()
    known = rows_of(store)
    for smiles, name, identity in listed():
        try:
            row = known.get(identity)
            compute_one(out / f"{identity}.npz", smiles, name, None if row is None else store.molecule(row))
        except MolspectraError as error:
            print(f"{smiles}: {error}", flush=True)


def compute_one(path: Path, smiles: str, name: str, start: Molecule | None) -> None:
    """Write the GFN2-xTB results of one molecule, unless they are there."""
    if path.exists():
        return
    molecule = start or from_smiles(smiles, name=name or None, seed=SEED)
    positions, hessian, result = minimum(molecule, molecule.positions / BOHR)
    fields = field_derivatives(molecule.numbers, positions, molecule.charge, result)
    hidden = path.with_name(f".{path.name}")
    arrays = {"hessian": hessian.astype(np.float32), "dipole": fields.dipole.astype(np.float32)}
    np.savez_compressed(hidden, numbers=molecule.numbers, positions=positions, **arrays)
    os.replace(hidden, path)


def chosen() -> list[tuple[str, str, str]]:
    """Molecules for B3LYP: the smallest and common ones, then all others with a name; the cheapest first."""
    common = set(COMMON.read_text(encoding="utf-8").splitlines())
    cost = {}
    for smiles, name, identity in listed():
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        heavy = molecule.GetNumHeavyAtoms()
        is_first = heavy <= 2 or (name and heavy == 3) or name in common or smiles in CORNERSTONES
        if is_first or name:
            cost[smiles, name, identity] = (not is_first, 14 * heavy + 5 * molecule.GetNumAtoms())
    return sorted(cost, key=cost.__getitem__)


def compute_dft(out: Path) -> None:
    """Compute minima, Hessians and dipole derivatives of B3LYP, a file for each, beside those of GFN2-xTB."""
    folder = out / "dft"
    folder.mkdir(exist_ok=True)
    shipped = bundled("bundled-library")
    rows, is_better = rows_of(shipped), shipped.column("b3lyp")
    for smiles, name, identity in chosen():
        path, start = folder / f"{identity}.npz", out / f"{identity}.npz"
        busy = path.with_suffix(".busy")
        if path.exists() or busy.exists() or (identity in rows and is_better[rows[identity]] == 1):
            continue
        busy.touch()
        try:
            compute_one(start, smiles, name, None)
            data = np.load(start)
            hessian, dipole = (data[key].astype(np.float64) for key in ("hessian", "dipole"))
            with one_thread(["pyscf.dft", "pyscf.hessian"]):
                found = harmonic(data["numbers"], data["positions"], 0, hessian)
            hidden = folder / f".{identity}.npz"
            start_arrays = {"x0": data["positions"], "H0": hessian, "d0": dipole}
            found_arrays = {"x": found.positions, "H": found.hessian, "d": found.dipole}
            np.savez(hidden, smiles=smiles, numbers=data["numbers"], **start_arrays, **found_arrays)
            os.replace(hidden, path)
            print(name or smiles, flush=True)
        except MolspectraError as error:
            print(f"{name or smiles}: {error}", flush=True)
        finally:
            busy.unlink()


def mixed_levels() -> dict[str, str]:
    """Level of theory of geometries and lines, which the property b3lyp tells apart."""
    plain, better = (levels_of_theory(("ir",), level=level) for level in ("scaled", "dft"))
    return {name: f"{better[name]} where b3lyp is 1, else {plain[name]}" for name in plain}


def entries(out: Path) -> Iterator[Row]:
    """Yield the rows in the order of the list: own results or those of the package; print what is missing."""
    levels, shipped = mixed_levels(), bundled("bundled-library")
    rows, is_better = rows_of(shipped), shipped.column("b3lyp")
    for smiles, name, identity in listed():
        path, better = out / f"{identity}.npz", out / "dft" / f"{identity}.npz"
        row = rows.get(identity)
        if row is not None and not better.exists() and (is_better[row] == 1 or not path.exists()):
            kept = shipped.row(row)
            if any(spectrum.level != levels["ir"] for spectrum in kept.spectra.values()):
                raise SystemExit(f"{name or smiles}: the package has it at another level, compute all anew")
            yield kept
            continue
        if not path.exists():
            print(f"missing: {name or smiles}")
            continue
        data, method = np.load(path), "GFN2-xTB"
        numbers, positions, hessian, dipole = (data[k] for k in ("numbers", "positions", "hessian", "dipole"))
        if better.exists():
            data, method = np.load(better), "B3LYP/def2-SVP"
            positions, hessian, dipole = (data[key] for key in ("x", "H", "d"))
        hessian = hessian.astype(np.float64)
        fields = FieldDerivatives(dipole.astype(np.float64), np.zeros((len(hessian), 3, 3)))
        hessian, fields = corrected(method, numbers, positions, hessian, fields)
        modes = normal_modes(masses_of(numbers), positions, hessian)
        strength = infrared(modes, fields)
        kept = strength >= WEAKEST * strength.max()
        mantissa, exponent = np.frexp(strength[kept])
        lines = LineSpectrum(
            "ir",
            np.round(modes.wavenumbers[kept] / FINEST[1]) * FINEST[1],
            np.ldexp(np.round(mantissa * 32) / 32, exponent),
            levels["ir"],
        )
        rounded = np.round(positions * BOHR / FINEST[0]) * FINEST[0]
        molecule = Molecule(numbers, rounded, smiles=smiles, name=name or None)
        yield Row(molecule, {"ir": lines}, {"b3lyp": float(better.exists())}).with_usable_spectra()


def pack(out: Path) -> None:
    """Write the store and its manifest."""
    rows, levels = list(entries(out)), mixed_levels()
    metadata = Metadata(
        "computed by molspectra (scripts/build_library.py)",
        "MIT",
        levels["geometry"],
        lines={"ir": levels["ir"]},
        properties={"b3lyp": Quantity("1", "")},
    )
    target = bundled_path("bundled-library")
    written = write_store(target, rows, metadata, overwrite=True)
    manifest = {
        "molecules": written.rows,
        "named": sum(row.molecule.name is not None for row in rows),
        "content_sha256": written.hash,
        "b3lyp": sum(row.properties["b3lyp"] == 1 for row in rows),
        "levels": levels,
        "lines": sum(len(lines) for row in rows for lines in row.spectra.values()),
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
    steps = parser.add_mutually_exclusive_group()
    steps.add_argument("--dft", action="store_true", help="compute Hessians of B3LYP")
    steps.add_argument("--pack", action="store_true", help="write the store from what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    step = pack if options.pack else compute_dft if options.dft else compute
    step(options.out)


if __name__ == "__main__":
    main()
