"""The molecules that are measured: QM9-like ones, aspirin, and chains of any length; labels are made up."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.spectra.spectrum import LineSpectrum

LEAST_ATOMS = 16.6
"""Atoms per molecule, on average, that QM9-like molecules have at least; QM9 itself has 18.0."""

UV_LINES = 138
"""Excitations of a QM9-like molecule."""

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
RANGES = {"uv_vis": (4.0, 16.0), "ir": (50.0, 4000.0), "raman": (50.0, 4000.0)}


def qm9_like(count: int, seed: int = 0) -> list[Molecule]:
    """Molecules with `LEAST_ATOMS` on average: QM9 geometries where MOLSPECTRA_SHARED has them, else bundled.

    Of the molecules there are, the smallest are left out until the mean is reached; the rest is drawn from
    without putting back, as long as there is enough.
    """
    folder = os.environ.get("MOLSPECTRA_SHARED")
    path = Path(folder) / "data" / "qm9" / "qm9_geometries.npz" if folder else None
    rng = np.random.default_rng(seed)
    if path is not None and path.is_file():
        with np.load(path) as file:
            sizes, numbers, positions = file["n_atoms"].astype(np.int64), file["z"], file["pos"]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        chosen = _drawn(sizes, count, rng)
        parts = [slice(bounds[row], bounds[row + 1]) for row in chosen]
        return [Molecule(numbers[part].astype(np.int64), positions[part].astype(float)) for part in parts]
    store = bundled()
    return [store.molecule(int(row)) for row in _drawn(store.atom_counts, count, rng)]


def _drawn(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of `count` molecules, the smallest left out so that the rest has the mean that is wanted."""
    order = np.argsort(sizes, kind="stable")[::-1]
    means = np.cumsum(sizes[order], dtype=float) / np.arange(1, len(order) + 1)
    large = order[means >= LEAST_ATOMS]
    return rng.choice(large, count, replace=count > len(large))


def aspirins(count: int, seed: int = 0, sigma: float = 0.05) -> list[Molecule]:
    """Copies of aspirin, 21 atoms, moved at random by `sigma` Å per coordinate."""
    rng, one = np.random.default_rng(seed), from_smiles(ASPIRIN)
    return [
        one.with_positions(one.positions + rng.normal(0, sigma, one.positions.shape)) for _ in range(count)
    ]


def chains(atoms: int, count: int, seed: int = 0) -> list[Molecule]:
    """Copies of the unbranched alkane with the number of atoms nearest to `atoms`, slightly moved."""
    rng, one = np.random.default_rng(seed), from_smiles("C" * max(1, round((atoms - 2) / 3)))
    return [
        one.with_positions(one.positions + rng.normal(0, 0.05, one.positions.shape)) for _ in range(count)
    ]


def store_of(molecules: Sequence[Molecule], path: Path, seed: int = 0) -> Store:
    """A store of molecules with random lines, as many as such molecules have, energies and forces."""
    metadata = Metadata(
        source="made up",
        licence="CC0-1.0",
        lines=dict.fromkeys(RANGES, "made up"),
        properties={"gap": Quantity("eV", "made up"), "energy": Quantity("kcal/mol", "made up")},
        forces=Quantity("kcal/mol/Å", "made up"),
    )
    write_store(path, _rows(molecules, np.random.default_rng(seed)), metadata)
    return Store(path)


def _rows(molecules: Sequence[Molecule], rng: np.random.Generator) -> Iterator[Row]:
    for place, molecule in enumerate(molecules):
        modes = max(1, 3 * len(molecule) - 6)
        spectra = {}
        for name, (low, high) in RANGES.items():
            lines = UV_LINES if name == "uv_vis" else modes
            intensity = rng.uniform(0, 50, lines)
            spectra[name] = LineSpectrum(name, np.sort(rng.uniform(low, high, lines)), intensity, "made up")
        values = {name: float(rng.normal()) for name in ("gap", "energy")}
        forces = rng.normal(0, 1, (len(molecule), 3))
        yield Row(molecule, spectra, values, forces, identity=f"MADEUP{place:06d}")
