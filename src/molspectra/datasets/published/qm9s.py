"""QM9S: IR, Raman and UV-Vis spectra of 129,817 molecules of QM9, from its published tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache, partial
from itertools import chain, repeat
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Row
from molspectra.datasets.importer import Candidate, Opened, choice
from molspectra.datasets.published.qm9s_join import Features, check_join, groups_of
from molspectra.datasets.published.qm9s_spectra import SpectrumTable
from molspectra.datasets.published.qm9s_structures import PickledStructures, Structures, TableStructures
from molspectra.errors import InputError
from molspectra.spectra.modality import MODALITIES, Modality
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
_OPTIONS = {
    "dtype": "float32 (default) | float16: how samples are stored; float16 rounds to one part in 2,000",
    "qm9": "a prepared store of QM9 to take identities from, by QM9's number; else they come from SMILES",
}


class Qm9s:
    """Importer of QM9S; see `molspectra.datasets.importer.Importer`."""

    name = "qm9s"
    title = "QM9S"
    files = (
        "a folder with any of ir_boraden.csv, raman_boraden.csv and uv_boraden.csv, and with qm9s.pt, the "
        "folder qm9s_csv or qm9s_csv.zip"
    )
    options: Mapping[str, str] = MappingProxyType(_OPTIONS)

    def open(self, raw: Path, options: Mapping[str, str]) -> Opened:
        """Open tables and structures, compare sizes, and check by the spectra that they belong together.

        Raises:
            InputError: if a file is missing, damaged or has another axis, or the join does not hold.
        """
        dtype = choice(options, "dtype", dict.fromkeys(("float32", "float16")), "float32")
        tables = _tables(raw)
        identities = qm9_identities(options.get("qm9"))
        structures = _structures(raw)
        rows = _common_rows(tables, structures)
        notes = {"join": "row i of a table belongs to entry i of the list"}
        notes |= _check(tables, structures, rows)
        return Opened(
            metadata=metadata({name: LEVELS[name] for name in tables}, dtype),
            candidates=partial(_candidates, tables, structures, identities, rows),
            total=len(structures),
            expected=ROWS,
            notes=lambda: notes,
        )


def metadata(levels: Mapping[str, str], dtype: str) -> Metadata:
    """Return the description of a store of QM9S."""
    return Metadata(
        source=SOURCE,
        licence=LICENCE,
        level=LEVEL,
        samples=dict(levels),
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
        found = {name: identity for name, identity in pairs if name and name.startswith("gdb_")}
    if not found:
        raise InputError(f"option qm9={store!r}: its rows have no names like gdb_1; give a store of QM9")
    return found


def sampled(kind: Modality, samples: npt.NDArray[np.floating], level: str) -> SampledSpectrum:
    """Return a spectrum.

    Raises:
        InputError: if it is empty (all zero), or a sample is negative or not finite.
    """
    if not np.isfinite(samples).all():
        raise InputError("a sample is not a finite number")
    if samples.min() < 0:
        raise InputError("a sample is negative")
    if not samples.any():
        raise InputError("all samples are zero")
    return SampledSpectrum(kind.name, samples.astype(np.float64), level)


def collected(
    names: Mapping[str, Callable[[], npt.NDArray[np.floating]]], levels: Mapping[str, str]
) -> tuple[dict[str, SampledSpectrum], dict[str, str]]:
    """Return the spectra of a row by modality, and why others are left out."""
    spectra, left_out = {}, {}
    for name, read in names.items():
        try:
            spectra[name] = sampled(MODALITIES[name], read(), levels[name])
        except InputError as error:
            left_out[name] = str(error)
    return spectra, left_out


def _tables(raw: Path) -> dict[str, SpectrumTable]:
    """Open all tables that are there."""
    tables = {}
    for name, short in _TABLES.items():
        for spelling in ("boraden", "broaden"):  # the published names have the former
            path = raw / f"{short}_{spelling}.csv"
            if path.is_file() and name not in tables:
                tables[name] = SpectrumTable(path, MODALITIES[name])
    if not tables:
        raise InputError(f"{raw}: no spectra; it must be {Qm9s.files}")
    return tables


def _structures(raw: Path) -> Structures:
    if (raw / "qm9s.pt").is_file():
        return PickledStructures(raw / "qm9s.pt")
    for name in ("qm9s_csv", "qm9s_csv.zip"):
        if (raw / name).exists():
            return TableStructures(raw / name)
    raise InputError(f"{raw}: no structures; it must be {Qm9s.files}")


def _common_rows(tables: Mapping[str, SpectrumTable], structures: Structures) -> int:
    """Return the number of rows, which must be that of the structures (one spare structure is let pass)."""
    counts = {table.path.name: table.rows for table in tables.values()}
    rows = min(counts.values())
    if len(set(counts.values())) > 1 or not 0 <= len(structures) - rows <= 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(
            f"{next(iter(tables.values())).path.parent}: numbers of rows differ: {found}, structures "
            f"{len(structures)}; a file is cut short or of another release"
        )
    return rows


def _check(tables: Mapping[str, SpectrumTable], structures: Structures, rows: int) -> dict[str, str]:
    """Check the join against those that have been mistaken for it."""
    vibrational = {name: table for name, table in tables.items() if name != "uv_vis"}
    if not vibrational:
        return {"check of the join": "not made: it needs IR or Raman spectra"}

    @cache
    def groups(entry: int) -> Features | None:
        try:
            one = structures[entry]
            return groups_of(one.numbers, one.positions)
        except (InputError, ValueError, IndexError):
            return None

    @lru_cache(maxsize=1024)
    def spectra(row: int) -> dict[str, npt.NDArray[np.float32]]:
        found = {}
        for name, table in vibrational.items():
            try:
                found[name] = table.values(table.line(row))
            except InputError:
                continue  # named when the row is read for good
        return found

    return check_join(rows, _other_joins(structures, rows), groups, spectra)


def _other_joins(structures: Structures, rows: int) -> dict[str, Callable[[int], int | None]]:
    """Ways to join that go wrong: by QM9's number instead of the place, and by neighbouring rows."""
    by_number = {int(number): entry for entry, number in enumerate(structures.numbers()) if number > 0}
    joins: dict[str, Callable[[int], int | None]] = {
        "one row later": lambda row: row + 1 if row + 1 < rows else None,
        "one row earlier": lambda row: row - 1 if row > 0 else None,
    }
    if by_number:
        joins["row number = QM9's number"] = by_number.get
        joins["row number = QM9's number - 1"] = lambda row: by_number.get(row + 1)
    return joins


def _candidates(
    tables: Mapping[str, SpectrumTable],
    structures: Structures,
    identities: Mapping[str, str],
    rows: int,
    start: int,
) -> Iterator[Candidate]:
    """Yield the entries from `start` on, the tables read in step."""
    streams = [table.lines(start) for table in tables.values()]
    lines: Iterator[tuple[bytes, ...] | None] = zip(*streams, strict=True)
    for entry, line in zip(range(start, len(structures)), chain(lines, repeat(None)), strict=False):
        read = None if line is None else dict(zip(tables, line, strict=True))
        yield Candidate(f"entry {entry}", partial(_row, tables, structures, identities, entry, read))


def _row(
    tables: Mapping[str, SpectrumTable],
    structures: Structures,
    identities: Mapping[str, str],
    entry: int,
    lines: Mapping[str, bytes] | None,
) -> Row:
    """Return the row of one entry.

    Raises:
        InputError: if its structure cannot be used, or it has no row in the tables.
    """
    if lines is None:
        raise InputError("it has no row in the tables of spectra")
    one = structures[entry]
    name = f"gdb_{one.number}"
    molecule = Molecule(one.numbers, one.positions, smiles=one.smiles, name=name)
    reads = {each: partial(tables[each].values, line) for each, line in lines.items()}
    spectra, left_out = collected(reads, LEVELS)
    return Row(molecule, spectra=spectra, identity=identities.get(name), left_out=left_out)


QM9S = Qm9s()
