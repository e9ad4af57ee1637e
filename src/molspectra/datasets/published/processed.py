"""The paper's processed file: QM9S with the 19 targets of QM9, as the graph library collates a dataset.

`torch.save((data, slices))`: all molecules in one array per field, and the first row of each molecule. Arrays
are views on the mapped file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Row
from molspectra.datasets.formats.pickled import as_array, is_dense, load_pickled
from molspectra.datasets.importer import Candidate, Importer, Opened, choice
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES, quantities
from molspectra.datasets.published.qm9s import ROWS, metadata, qm9_identities, sampled_spectra
from molspectra.datasets.published.qm9s_join import NOT_CHECKED, Features, check_join, groups_of, neighbours
from molspectra.datasets.published.qm9s_structures import record_fields
from molspectra.errors import FormatError, UnitError
from molspectra.simulation.units import HARTREE
from molspectra.spectra.modality import MODALITIES

FILE = "data_with_uv_ir_raman.pt"
"""Name of the file."""

TARGETS = tuple(quantities())
"""Columns of `y` in their order: as in the graph library's QM9, energies in eV."""

THERMAL = 0.0256926
"""kT at 298.15 K, eV: the enthalpy minus the internal energy of one ideal gas molecule."""

_FIELDS = {"uv_vis": "uv", "ir": "ir", "raman": "raman"}
_SAMPLE = 1_000
_AGREEING = 0.9  # share of the sample in which the targets must fit their names and units


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Open the file; check units and order of the targets, and that spectra belong to structures."""
    dtype = choice(options, "dtype", dict.fromkeys(("float32", "float16")), "float32")
    identities = qm9_identities(options.get("qm9"))
    path = raw / FILE if raw.is_dir() else raw
    molecules = Molecules(path)
    notes = {"targets": _check_targets(path, molecules)} if molecules.targets is not None else {}
    notes |= _check_spectra(molecules)
    return Opened(
        metadata=_metadata(molecules, dtype),
        candidates=partial(_candidates, molecules, identities),
        total=len(molecules),
        expected=ROWS,
        notes=notes,
    )


class Molecules:
    """The arrays of the file.

    Attributes:
        names: `gdb_k`, one per molecule.
        spectra: samples [M, points] by modality.
        targets: [M, 19], or None where the file has none.

    Raises:
        InputError: if one is missing, or they do not fit together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        content = load_pickled(path, ("torch_geometric.",))
        if not isinstance(content, tuple) or len(content) not in (2, 3):
            raise self._unfit("it holds no (data, slices)")
        fields, slices = record_fields(content[0]), content[1]
        if fields is None or not isinstance(slices, dict):
            raise self._unfit("it holds no (data, slices)")
        names = fields.get("name")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise self._unfit("it has no list of names")
        self.names: list[str] = names
        self._begins = self._column(slices, "pos", (len(names) + 1,)).astype(np.int64)
        atoms = int(self._begins[-1])
        same = np.array_equal(self._begins, self._column(slices, "z", (len(names) + 1,)))
        if self._begins[0] or (np.diff(self._begins) < 1).any() or not same:
            raise self._unfit("its slices of z and pos do not ascend or differ")
        self._positions = self._column(fields, "pos", (atoms, 3))
        self._numbers = self._column(fields, "z", (atoms,))
        self.spectra = {
            name: self._column(fields, key, (len(names), MODALITIES[name].points))
            for name, key in _FIELDS.items()
            if key in fields
        }
        if not self.spectra:
            raise self._unfit("it has none of uv, ir and raman")
        targets = fields.get("y")
        self.targets = None if targets is None else self._column(fields, "y", (len(names), len(TARGETS)))

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.names)

    def numbers(self, row: int) -> npt.NDArray[np.int64]:
        """Atomic numbers [N]."""
        return self._numbers[self._begins[row] : self._begins[row + 1]].astype(np.int64)

    def positions(self, row: int) -> npt.NDArray[np.float64]:
        """Coordinates [N, 3], Å."""
        return self._positions[self._begins[row] : self._begins[row + 1]].astype(np.float64)

    def values(self, row: int) -> dict[str, float]:
        """Return the finite ones of the 19 targets of a molecule, by name."""
        if self.targets is None:
            return {}
        targets = zip(TARGETS, self.targets[row].astype(np.float64).tolist(), strict=True)
        return {name: value for name, value in targets if np.isfinite(value)}

    def _column(self, fields: Mapping[Any, Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        value = fields.get(name)
        if not is_dense(value) or value.shape != shape:
            actual = tuple(value.shape) if is_dense(value) else "missing"
            raise self._unfit(f"{name} is {actual}, not of shape {shape}")
        try:
            return as_array(value)
        except TypeError as error:
            raise self._unfit(f"{name} has numbers of type {value.dtype}") from error

    def _unfit(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: not the processed file of QM9S: {what}")


def _metadata(molecules: Molecules, dtype: str) -> Metadata:
    """Return the description of the store."""
    about = metadata(molecules.spectra, dtype)
    extra = {"axes": "assumed to be those of QM9S: the file holds none", "targets": "float32 in the file"}
    return replace(
        about,
        source=f"{about.source}; as processed by the paper's authors, with the targets of QM9",
        properties=quantities() if molecules.targets is not None else {},
        notes={**about.notes, **extra},
    )


def _check_targets(path: Path, molecules: Molecules) -> str:
    """Check by relations between the targets that they are in the usual order and in eV.

    Gap = LUMO - HOMO; H - U = kT at 298.15 K; A ≥ B ≥ C; U₀ minus the free atoms is the atomisation energy.
    """
    assert molecules.targets is not None
    rows = np.unique(np.linspace(0, len(molecules) - 1, min(len(molecules), _SAMPLE)).astype(np.int64))
    y = dict(zip(TARGETS, molecules.targets[rows].astype(np.float64).T, strict=True))
    rounding = 2.0**-22 * np.abs(y["u0"])  # of float32, twice
    references = np.array([_reference(molecules.numbers(int(row))) for row in rows])
    checks = {
        "gap = LUMO - HOMO": np.abs(y["gap"] - y["lumo"] + y["homo"]) < 0.01,
        "H - U = kT": np.abs(y["h298"] - y["u298"] - THERMAL) < 1e-3 + rounding,
        "G < U0 < U < H": (y["g298"] < y["u0"]) & (y["u0"] < y["u298"]) & (y["u298"] < y["h298"]),
        "A >= B >= C": (y["A"] >= y["B"] * (1 - 1e-5)) & (y["B"] >= y["C"] * (1 - 1e-5)),
        "atomisation energy = U0 - free atoms": np.abs(y["u0"] - references - y["u0_atom"]) < 0.02 + rounding,
        "gap between 1 and 25 eV": (y["gap"] > 1) & (y["gap"] < 25),
    }
    for name, holds in checks.items():
        if holds.mean() < _AGREEING:
            raise UnitError(
                f"{path}: y is not in the usual order and units: {name} holds for {holds.mean():.0%} of "
                f"{len(rows)} molecules; energies must be in eV"
            )
    shares = ", ".join(f"{name} ({holds.mean():.1%})" for name, holds in checks.items())
    return f"order and units of y checked on {len(rows)} molecules: {shares}"


def _reference(numbers: npt.NDArray[np.int64]) -> float:
    """Energy of the free atoms, eV; not a number for elements outside QM9."""
    atoms = ATOMIC_ENERGIES["u0"]
    return sum(atoms.get(number, float("nan")) for number in numbers.tolist()) * HARTREE


def _check_spectra(molecules: Molecules) -> dict[str, str]:
    """Check that spectra belong to structures of the same row."""
    vibrational = {name: spectra for name, spectra in molecules.spectra.items() if name != "uv_vis"}
    if not vibrational:
        return NOT_CHECKED

    @cache
    def groups(row: int) -> Features | None:
        return groups_of(molecules.numbers(row), molecules.positions(row))

    def spectra(row: int) -> dict[str, npt.NDArray[Any]]:
        return {name: samples[row] for name, samples in vibrational.items()}

    return check_join(len(molecules), neighbours(len(molecules)), groups, spectra)


def _candidates(molecules: Molecules, identities: Mapping[str, str], start: int) -> Iterator[Candidate]:
    """Yield the molecules from `start` on."""
    for row in range(start, len(molecules)):
        yield Candidate(molecules.names[row], partial(_row, molecules, identities, row))


def _row(molecules: Molecules, identities: Mapping[str, str], row: int) -> Row:
    """Return one row."""
    name = molecules.names[row]
    molecule = Molecule(molecules.numbers(row), molecules.positions(row), name=name)
    samples = {modality: spectra[row] for modality, spectra in molecules.spectra.items()}
    spectra, left_out = sampled_spectra(samples)
    return Row(molecule, spectra, molecules.values(row), identity=identities.get(name), left_out=left_out)


PROCESSED = Importer(
    "qm9s-processed",
    "QM9S, the paper's processed file",
    f"the file {FILE}, or the folder with it",
    {
        "dtype": "float32 (default) | float16: how samples are stored",
        "qm9": "a prepared store of QM9 to take identities from, by name; else they come from the bonds",
    },
    _open,
)
"""Importer `qm9s-processed`."""
