"""QM9S: IR, Raman and UV-Vis spectra of 129,817 molecules of QM9, from its published tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Row
from molspectra.datasets.importer import Candidate, Importer, Opened, choice
from molspectra.datasets.published.qm9s_join import NOT_CHECKED, Features, check_join, groups_of, neighbours
from molspectra.datasets.published.qm9s_spectra import Samples, SpectrumTable
from molspectra.datasets.published.qm9s_structures import PickledStructures, Structures, TableStructures
from molspectra.errors import FormatError, InputError, MismatchError, NotFoundError
from molspectra.spectra.modality import MODALITIES
from molspectra.spectra.spectrum import SampledSpectrum

ROWS = 129_817
"""Rows of each table as published."""

LEVEL = "B3LYP/def-TZVP"
"""Level of theory of geometries and spectra."""

LEVELS = {
    "uv_vis": "TD-B3LYP/def-TZVP (QM9S)",
    "ir": f"{LEVEL}, frequencies × 0.965, Lorentzian, FWHM 12 cm⁻¹ (QM9S)",
    "raman": f"{LEVEL}, frequencies × 0.965, Lorentzian, FWHM 12 cm⁻¹ (QM9S)",
}
"""Level of theory and broadening of each kind of spectrum."""

SOURCE = (
    "QM9S: Z. Zou, Y. Zhang, L. Liang, M. Wei, J. Leng, J. Jiang, Y. Luo, W. Hu, A deep learning model for "
    "predicting selected organic molecular spectra, Nat. Comput. Sci. 3, 957 (2023), figshare 24235333"
)
LICENCE = "as stated at figshare 24235333"

_TABLES = {"uv_vis": "uv", "ir": "ir", "raman": "raman"}
_FILES = (
    "a folder with any of ir_boraden.csv, raman_boraden.csv and uv_boraden.csv, and with qm9s.pt, the "
    "folder qm9s_csv or qm9s_csv.zip"
)


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Open tables and structures, compare sizes, and check by the spectra that they belong together."""
    dtype = choice(options, "dtype", dict.fromkeys(("float32", "float16")), "float32")
    tables = _tables(raw)
    identities = qm9_identities(options.get("qm9"))
    structures = _structures(raw)
    rows = _common_rows(tables, structures)
    notes = {"join": "row i of a table belongs to entry i of the list"}
    notes |= _check(tables, structures, rows)
    return Opened(
        metadata=metadata(tables, dtype),
        candidates=partial(_candidates, tables, structures, identities),
        total=len(structures),
        expected=ROWS,
        notes=notes,
    )


def metadata(modalities: Iterable[str], dtype: str) -> Metadata:
    """Return the description of a store of QM9S."""
    return Metadata(
        source=SOURCE,
        licence=LICENCE,
        level=LEVEL,
        samples={name: LEVELS[name] for name in modalities},
        sample_dtype=dtype,
        notes={"axes": "those of the published tables: IR and Raman 500 to 4000 cm⁻¹, UV-Vis 1 to 15 eV"},
    )


def qm9_identities(store: str | None) -> Mapping[str, str]:
    """Return the identities of a prepared store of QM9 by name (`gdb_k`); none without a store.

    Raises:
        InputError: if it is no store, or its rows have no such names.
    """
    if store is None:
        return {}
    import pyarrow as pa

    from molspectra.data.store.store import Store

    Store(store)  # which checks the file
    with pa.memory_map(store) as file:
        table = pa.ipc.open_file(file).read_all().select(["name", "identity"])
        pairs = zip(*(column.to_pylist() for column in table.columns), strict=True)
        identities = {name: identity for name, identity in pairs if name and name.startswith("gdb_")}
    if not identities:
        raise MismatchError(f"option qm9={store!r}: its rows have no names like gdb_1; give a store of QM9")
    return identities


def sampled_spectra(
    row: Mapping[str, npt.NDArray[np.floating] | FormatError],
) -> tuple[dict[str, SampledSpectrum], dict[str, str]]:
    """Return the spectra of a row by modality, and why others are left out.

    A spectrum is left out if it could not be read, if a sample is negative or not finite, or all are zero.
    """
    spectra, left_out = {}, {}
    for name, samples in row.items():
        if isinstance(samples, FormatError):
            left_out[name] = str(samples)
        elif not np.isfinite(samples).all():
            left_out[name] = "a sample is not a finite number"
        elif samples.min() < 0:
            left_out[name] = "a sample is negative"
        elif not samples.any():
            left_out[name] = "all samples are zero"
        else:
            spectra[name] = SampledSpectrum(name, samples.astype(np.float64), LEVELS[name])
    return spectra, left_out


def _tables(raw: Path) -> dict[str, SpectrumTable]:
    """Open the tables of the folder, by modality."""
    tables = {}
    for name, short in _TABLES.items():
        for spelling in ("boraden", "broaden"):  # the published names have the former
            path = raw / f"{short}_{spelling}.csv"
            if path.is_file() and name not in tables:
                tables[name] = SpectrumTable(path, MODALITIES[name])
    if not tables:
        raise NotFoundError(f"{raw}: no spectra; it must be {_FILES}")
    return tables


def _structures(raw: Path) -> Structures:
    if (raw / "qm9s.pt").is_file():
        return PickledStructures(raw / "qm9s.pt")
    for name in ("qm9s_csv", "qm9s_csv.zip"):
        if (raw / name).exists():
            return TableStructures(raw / name)
    raise NotFoundError(f"{raw}: no structures; it must be {_FILES}")


def _common_rows(tables: Mapping[str, SpectrumTable], structures: Structures) -> int:
    """Return the number of rows; the list may have one structure more."""
    counts = {table.path.name: table.rows for table in tables.values()}
    rows = min(counts.values())
    if len(set(counts.values())) > 1 or not 0 <= len(structures) - rows <= 1:
        listing = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise MismatchError(
            f"{next(iter(tables.values())).path.parent}: numbers of rows differ: {listing}, structures "
            f"{len(structures)}; a file is cut short or of another release"
        )
    return rows


def _check(tables: Mapping[str, SpectrumTable], structures: Structures, rows: int) -> dict[str, str]:
    """Check by the spectra that row i belongs to entry i, and not as in other plausible ways of joining."""
    vibrational = {name: table for name, table in tables.items() if name != "uv_vis"}
    if not vibrational:
        return NOT_CHECKED

    @cache
    def groups(entry: int) -> Features | None:
        try:
            structure = structures[entry]
            return groups_of(structure.numbers, structure.positions)
        except (InputError, ValueError, IndexError):
            return None

    @lru_cache(maxsize=1024)
    def spectra(row: int) -> dict[str, Samples]:
        rows = {name: table.spectrum(row) for name, table in vibrational.items()}
        return {name: samples for name, samples in rows.items() if not isinstance(samples, InputError)}

    return check_join(rows, _other_joins(structures, rows), groups, spectra)


def _other_joins(structures: Structures, rows: int) -> dict[str, Callable[[int], int | None]]:
    """Wrong ways to join, each from a row to an entry: by QM9's number, and by neighbouring rows."""
    by_number = {int(number): entry for entry, number in enumerate(structures.numbers()) if number > 0}
    joins = neighbours(rows)
    if by_number:
        joins["row number = QM9's number"] = by_number.get
        joins["row number = QM9's number - 1"] = lambda row: by_number.get(row + 1)
    return joins


def _candidates(
    tables: Mapping[str, SpectrumTable],
    structures: Structures,
    identities: Mapping[str, str],
    start: int,
) -> Iterator[Candidate]:
    """Yield the entries from `start` on; the tables are read from their beginning, in step."""
    streams = [table.spectra(start) for table in tables.values()]
    rows: Iterator[tuple[Samples | FormatError, ...]] = zip(*streams, strict=True)
    for entry in range(start, len(structures)):
        samples = dict(zip(tables, next(rows, ()), strict=False))
        yield Candidate(f"entry {entry}", partial(_row, structures, identities, entry, samples))


def _row(
    structures: Structures,
    identities: Mapping[str, str],
    entry: int,
    samples: Mapping[str, Samples | FormatError],
) -> Row:
    """Return the row of one entry."""
    if not samples:
        raise NotFoundError("it has no row in the tables of spectra")
    structure = structures[entry]
    name = f"gdb_{structure.number}"
    molecule = Molecule(structure.numbers, structure.positions, smiles=structure.smiles, name=name)
    spectra, left_out = sampled_spectra(samples)
    return Row(molecule, spectra=spectra, identity=identities.get(name), left_out=left_out)


QM9S = Importer(
    "qm9s",
    "QM9S",
    _FILES,
    {
        "dtype": "float32 (default) | float16: how samples are stored; float16 rounds to one part in 2,000",
        "qm9": "a prepared store of QM9 to take identities from, by QM9's number; else they come from SMILES",
    },
    _open,
)
"""Importer `qm9s`."""
