"""Rows of an endless made-up dataset, shared by tests of stores and importers."""

from collections.abc import Callable

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Metadata, Quantity, Row
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

GRID = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3) * 1.4


@pytest.fixture(scope="session")
def metadata() -> Metadata:
    return Metadata(
        source="made up",
        licence="CC0-1.0",
        level="imagination",
        lines={"ir": "harmonic", "raman": "harmonic"},
        samples={"uv_vis": "detector"},
        properties={"gap": Quantity("eV", "guess"), "U0": Quantity("Hartree")},
        forces=Quantity("kcal/mol/Å", "guess"),
        notes={"seed": "0", "größe": "klein"},
    )


@pytest.fixture(scope="session")
def make_row() -> Callable[[int], Row]:
    """Row number i of an endless made-up dataset in which every column has gaps."""

    def make(i: int) -> Row:
        rng = np.random.default_rng(i)
        n = 1 + i % 20
        molecule = Molecule(
            rng.integers(1, 10, n),
            GRID[:n] + rng.normal(0, 0.05, (n, 3)),
            smiles="C" if i % 4 == 1 else None,
            charge=i % 3 - 1 if n > 1 else 0,
            name=f"molecule ü{i}" if i % 2 else None,
        )
        spectra: dict[str, LineSpectrum | SampledSpectrum] = {}
        for name in ("ir", "raman"):
            if (i + len(name)) % 3:
                lines = 0 if i % 5 == 4 else 3 * n
                position = np.sort(rng.uniform(500, 3500, lines))
                spectra[name] = LineSpectrum(name, position, rng.uniform(0, 100, lines), "harmonic")
        if i % 5:
            spectra["uv_vis"] = SampledSpectrum("uv_vis", rng.uniform(0, 1, 701), "detector")
        values = {"gap": float(i), "U0": -76.0 - i * 1e-9}
        properties = {name: value for k, (name, value) in enumerate(values.items()) if (i + k) % 3}
        forces = rng.normal(size=(n, 3)) if i % 4 else None
        return Row(molecule, spectra, properties, forces, identity=f"ID{i:06d}")

    return make
