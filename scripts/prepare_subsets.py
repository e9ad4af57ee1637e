"""Make the stores of the benchmark page from subsets of QM9, QM8 and MD17 in numpy files.

    python scripts/prepare_subsets.py --data DIR --out DIR [--only NAME ...]

`--data` holds qm9/qm9_geometries.npz, qm9/qm9_labelled_18568.npz, qm9/qm9_vibrations_gfn2.npz,
qm8/qm8_uv_lines.npz and md17/md17_<molecule>.npz. Every structure is the QM9 geometry of its index, also
where a spectrum was computed on another geometry. Existing stores are kept.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row, write_store
from molspectra.errors import MolspectraError
from molspectra.spectra.spectrum import LineSpectrum

HARTREE_EV = 27.211386245988
QM9_LEVEL = "B3LYP/6-31G(2df,p)"
LINES_LEVEL = "GFN2-xTB harmonic, on the GFN2-xTB geometry"
UV_LEVEL = "CC2, two lowest singlets"
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

MOLECULES = ("aspirin", "ethanol")
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
    """Return the row of one structure with its labels."""
    return Row(Molecule(*structure, name=f"gdb_{index}"), identity=identity, **extra)


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


def spectra(data: Path, identities: dict[int, str]) -> tuple[Metadata, Iterator[Candidate]]:
    """Return structures with IR and Raman lines, UV-Vis lines, or both."""
    geometry = structures(data / "qm9/qm9_geometries.npz")
    lines: dict[int, dict[str, LineSpectrum]] = {}
    with np.load(data / "qm9/qm9_vibrations_gfn2.npz") as file:
        ends = np.cumsum(file["n_modes"].astype(np.int64))
        arrays = {key: file[key].astype(np.float64) for key in ("wavenumber", "ir", "raman")}
        for index, end, count in zip(file["gdb_idx"], ends, file["n_modes"].astype(np.int64), strict=True):
            position = arrays["wavenumber"][end - count : end]
            order = np.argsort(position, kind="stable")
            lines[int(index)] = {
                name: LineSpectrum(name, position[order], arrays[name][end - count : end][order], LINES_LEVEL)
                for name in ("ir", "raman")
            }
    with np.load(data / "qm8/qm8_uv_lines.npz") as file:
        columns = [
            list(file["target_names"]).index(name) for name in ("E1-CC2", "E2-CC2", "f1-CC2", "f2-CC2")
        ]
        for index, values in zip(file["gdb_idx"], file["targets"][:, columns], strict=True):
            order = np.argsort(values[:2], kind="stable")
            strengths = np.clip(values[2:], 0.0, None)  # a few are slightly negative
            lines.setdefault(int(index), {})["uv_vis"] = LineSpectrum(
                "uv_vis", values[:2][order] * HARTREE_EV, strengths[order], UV_LEVEL
            )
    metadata = Metadata(
        "QM9 structures; IR and Raman lines computed with GFN2-xTB, UV-Vis lines of QM8",
        LICENCE,
        QM9_LEVEL,
        lines={"uv_vis": UV_LEVEL, "ir": LINES_LEVEL, "raman": LINES_LEVEL},
    )
    rows = (
        Candidate(
            f"gdb_{index}", partial(row, index, geometry[index], identities[index], {"spectra": lines[index]})
        )
        for index in sorted(lines)
    )
    return metadata, rows


def trajectory(molecule: str, data: Path, identities: dict[int, str]) -> tuple[Metadata, Iterator[Candidate]]:
    """Return the frames of one MD17 molecule with the original labels."""
    with np.load(data / f"md17/md17_{molecule}.npz") as file:
        numbers, positions = file["z"], file["R"].astype(np.float64)
        energies, forces, frames = file["E"].reshape(-1), file["F"], file["frame"]
    identity = Molecule(numbers, positions[0]).identity

    def frame(index: int) -> Row:
        structure = Molecule(numbers, positions[index], name=f"{molecule} frame {frames[index]}")
        return Row(structure, {}, {"energy": float(energies[index])}, forces[index], identity)

    level = "PBE+vdW-TS"
    metadata = Metadata(
        f"MD17 {molecule}, 2,000 frames",
        "free for research",
        f"{level} molecular dynamics at 500 K",
        properties={"energy": Quantity("kcal/mol", level)},
        forces=Quantity("kcal/mol/Å", level),
    )
    rows = (Candidate(f"frame {number}", partial(frame, index)) for index, number in enumerate(frames))
    return metadata, rows


STORES: dict[str, Callable[[Path, dict[int, str]], tuple[Metadata, Iterator[Candidate]]]] = {
    "geometries": geometries,
    "labelled": labelled,
    "spectra": spectra,
    **{molecule: partial(trajectory, molecule) for molecule in MOLECULES},
}


def main() -> None:
    """Make the stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the numpy files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stores")
    parser.add_argument("--only", nargs="+", choices=tuple(STORES), default=tuple(STORES))
    parser.add_argument("--processes", type=int, default=2, help="processes that perceive bonds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in options.only if not (options.out / f"{name}.arrow").exists()]
    identities: dict[int, str] = {}
    if {"geometries", "labelled", "spectra"} & set(wanted):
        geometry = structures(options.data / "qm9/qm9_geometries.npz")
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            identities = dict(pool.imap(perceived, geometry.items(), chunksize=200))
    for name in wanted:
        metadata, rows = STORES[name](options.data, identities)
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
