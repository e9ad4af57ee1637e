"""Make the stores of the benchmark page from subsets of QM9 and QM8 in numpy files.

    python scripts/prepare_subsets.py --data DIR --out DIR [--levels DIR] [--only NAME ...]

`--data` holds qm9/qm9_geometries.npz, qm9/qm9_labelled_18568.npz, qm9/qm9_vibrations_gfn2.npz (and _b) and
qm8/qm8_uv_lines.npz. Every structure is the QM9 geometry of its index, also where a spectrum was computed on
another geometry. `--levels` holds what scripts/compute_levels.py wrote, for the store `levels`. Existing
stores are kept. Frames of MD17 need no script: `molspectra prepare md17`.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row, write_store
from molspectra.errors import MolspectraError
from molspectra.spectra.modality import DOS
from molspectra.spectra.spectrum import LineSpectrum

HARTREE_EV = 27.211386245988
QM9_LEVEL = "B3LYP/6-31G(2df,p)"
LINES_LEVEL = "GFN2-xTB harmonic, on the GFN2-xTB geometry"
UV_LEVEL = "CC2, two lowest singlets"
DOS_LEVEL = "GFN2-xTB orbital energies"
LEVELS = {"uv_vis": UV_LEVEL, "ir": LINES_LEVEL, "raman": LINES_LEVEL} | dict.fromkeys(DOS, DOS_LEVEL)
LICENCE = "CC0"
PROPERTIES = {
    "mu": ("mu", "D", 1.0),
    "alpha": ("alpha", "a0^3", 1.0),
    "homo": ("homo", "eV", HARTREE_EV),
    "lumo": ("lumo", "eV", HARTREE_EV),
    "gap": ("gap", "eV", HARTREE_EV),
    "r2": ("r2", "a0^2", 1.0),
    "zpve": ("zpve", "eV", HARTREE_EV),
    "u0": ("U0", "eV", HARTREE_EV),
    "u298": ("U", "eV", HARTREE_EV),
    "h298": ("H", "eV", HARTREE_EV),
    "g298": ("G", "eV", HARTREE_EV),
    "cv": ("Cv", "cal/mol/K", 1.0),
}
"""By column: name in the file, unit in the store, factor from the unit of the file."""

Structures = dict[int, tuple[np.ndarray, np.ndarray]]


def structures(path: Path) -> Structures:
    """Return atomic numbers [N] and positions [N, 3] in Å by QM9 index."""
    with np.load(path) as data:
        counts, numbers, positions = data["n_atoms"].astype(np.int64), data["z"].astype(np.int64), data["pos"]
        ends = np.cumsum(counts)
        return {
            int(index): (numbers[end - count : end], positions[end - count : end].astype(np.float64))
            for index, end, count in zip(data["gdb_idx"], ends, counts, strict=True)
        }


def perceived(item: tuple[int, tuple[np.ndarray, np.ndarray]]) -> tuple[int, str]:
    """Return QM9 index and identity of one structure."""
    index, (numbers, positions) = item
    return index, Molecule(numbers, positions).identity


def row(index: int, structure: tuple[np.ndarray, np.ndarray], identity: str, extra: dict[str, Any]) -> Row:
    """Return the row of one structure with its labels; spectra without any intensity are left out."""
    return Row(Molecule(*structure, name=f"gdb_{index}"), identity=identity, **extra).with_usable_spectra()


def geometries(data: Path, identities: dict[int, str]) -> tuple[Metadata, Iterator[Candidate]]:
    """Return all structures without labels."""
    geometry = structures(data / "qm9/qm9_geometries.npz")
    rows = (
        Candidate(f"gdb_{index}", partial(row, index, geometry[index], identities[index], {}))
        for index in geometry
    )
    return Metadata("115,885 molecules of QM9 without labels", LICENCE, QM9_LEVEL), rows


def labelled(data: Path, identities: dict[int, str]) -> tuple[Metadata, Iterator[Candidate]]:
    """Return the molecules with properties."""
    path = data / "qm9/qm9_labelled_18568.npz"
    geometry = structures(path)
    with np.load(path) as file:
        column = {str(name): index for index, name in enumerate(file["prop_names"])}
        values = {
            int(index): {
                name: float(line[column[key]]) * factor for name, (key, _, factor) in PROPERTIES.items()
            }
            for index, line in zip(file["gdb_idx"], file["props"], strict=True)
        }
    units = {name: Quantity(unit, QM9_LEVEL) for name, (_, unit, _) in PROPERTIES.items()}
    metadata = Metadata("18,568 molecules of QM9", LICENCE, QM9_LEVEL, properties=units)
    rows = (
        Candidate(
            f"gdb_{index}",
            partial(row, index, geometry[index], identities[index], {"properties": values[index]}),
        )
        for index in geometry
    )
    return metadata, rows


def vibrations(path: Path) -> dict[int, dict[str, LineSpectrum]]:
    """Return IR and Raman lines by QM9 index."""
    lines: dict[int, dict[str, LineSpectrum]] = {}
    with np.load(path) as file:
        counts = file["n_modes"].astype(np.int64)
        arrays = {key: file[key].astype(np.float64) for key in ("wavenumber", "ir", "raman")}
        for index, end, count in zip(file["gdb_idx"], np.cumsum(counts), counts, strict=True):
            position = arrays["wavenumber"][end - count : end]
            order = np.argsort(position, kind="stable")
            lines[int(index)] = {
                name: LineSpectrum(name, position[order], arrays[name][end - count : end][order], LINES_LEVEL)
                for name in ("ir", "raman")
            }
    return lines


def excitations(path: Path) -> dict[int, LineSpectrum]:
    """Return UV-Vis lines by QM9 index."""
    lines: dict[int, LineSpectrum] = {}
    with np.load(path) as file:
        columns = [
            list(file["target_names"]).index(name) for name in ("E1-CC2", "E2-CC2", "f1-CC2", "f2-CC2")
        ]
        for index, values in zip(file["gdb_idx"], file["targets"][:, columns], strict=True):
            order = np.argsort(values[:2], kind="stable")
            strengths = np.clip(values[2:], 0.0, None)  # a few are slightly negative
            energies = values[:2][order] * HARTREE_EV
            lines[int(index)] = LineSpectrum("uv_vis", energies, strengths[order], UV_LEVEL)
    return lines


def orbital_energies(paths: Iterable[Path]) -> dict[int, dict[str, LineSpectrum]]:
    """Return the two parts of the density of states by QM9 index."""
    lines: dict[int, dict[str, LineSpectrum]] = {}
    for path in paths:
        with np.load(path) as file:
            counts, energies = file["n_levels"].astype(np.int64), file["energy"].astype(np.float64)
            indices, occupied = file["gdb_idx"].tolist(), file["n_occupied"].tolist()
        for index, end, count, filled in zip(indices, np.cumsum(counts), counts, occupied, strict=True):
            levels = energies[end - count : end]
            lines[index] = {
                name: LineSpectrum(name, part, np.ones(len(part)), DOS_LEVEL)
                for name, part in zip(DOS, (levels[:filled], levels[filled:]), strict=True)
            }
    return lines


def spectra(data: Path, identities: dict[int, str]) -> tuple[Metadata, Iterator[Candidate]]:
    """Return structures with IR and Raman lines, UV-Vis lines, or both."""
    lines = vibrations(data / "qm9/qm9_vibrations_gfn2.npz")
    for index, spectrum in excitations(data / "qm8/qm8_uv_lines.npz").items():
        lines.setdefault(index, {})["uv_vis"] = spectrum
    source = "QM9 structures; IR and Raman lines computed with GFN2-xTB, UV-Vis lines of QM8"
    return _with_lines(data, identities, lines, source)


def levels(data: Path, identities: dict[int, str], folder: Path) -> tuple[Metadata, Iterator[Candidate]]:
    """Return all structures with their density of states, and every other line spectrum that is known."""
    lines = orbital_energies(sorted(folder.glob("levels-*.npz")))
    others = [vibrations(data / f"qm9/qm9_vibrations_gfn2{part}.npz") for part in ("", "_b")]
    for index, spectra in (item for part in others for item in part.items()):
        lines.setdefault(index, {}).update(spectra)
    for index, spectrum in excitations(data / "qm8/qm8_uv_lines.npz").items():
        lines.setdefault(index, {})["uv_vis"] = spectrum
    source = (
        "QM9 structures; orbital energies, IR and Raman lines computed with GFN2-xTB, UV-Vis lines of QM8"
    )
    return _with_lines(data, identities, lines, source)


def _with_lines(
    data: Path, identities: dict[int, str], lines: dict[int, dict[str, LineSpectrum]], source: str
) -> tuple[Metadata, Iterator[Candidate]]:
    """Return the structures of the given lines, by QM9 index."""
    geometry = structures(data / "qm9/qm9_geometries.npz")
    names = {name for spectra in lines.values() for name in spectra}
    level_of = {name: level for name, level in LEVELS.items() if name in names}
    metadata = Metadata(source, LICENCE, QM9_LEVEL, lines=level_of)
    rows = (
        Candidate(
            f"gdb_{index}", partial(row, index, geometry[index], identities[index], {"spectra": lines[index]})
        )
        for index in sorted(lines)
    )
    return metadata, rows


STORES: dict[str, Callable[[Path, dict[int, str]], tuple[Metadata, Iterator[Candidate]]]] = {
    "geometries": geometries,
    "labelled": labelled,
    "spectra": spectra,
}


def main() -> None:
    """Make the stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the numpy files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stores")
    parser.add_argument("--levels", type=Path, help="folder of compute_levels.py, for the store levels")
    parser.add_argument("--only", nargs="+", choices=("levels", *STORES))
    parser.add_argument("--processes", type=int, default=2, help="processes that perceive bonds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stores = dict(STORES)
    if options.levels is not None:
        stores["levels"] = partial(levels, folder=options.levels)
    wanted = [name for name in options.only or stores if not (options.out / f"{name}.arrow").exists()]
    if "levels" in wanted and "levels" not in stores:
        parser.error("levels: give --levels with the folder of scripts/compute_levels.py")
    identities: dict[int, str] = {}
    if wanted:
        geometry = structures(options.data / "qm9/qm9_geometries.npz")
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            identities = dict(pool.imap(perceived, geometry.items(), chunksize=200))
    for name in wanted:
        metadata, rows = stores[name](options.data, identities)
        path = options.out / f"{name}.arrow"
        written = write_store(path, rows, metadata, on_error="skip")
        for rejection in written.rejected:
            print(f"rejected: {rejection}", file=sys.stderr)
        print(f"{path}: {written.rows} rows, {written.by_geometry} without bonds, sha256 {written.hash[:16]}")


if __name__ == "__main__":
    try:
        main()
    except MolspectraError as error:
        print(f"prepare_subsets: error: {error}", file=sys.stderr)
        sys.exit(2)
