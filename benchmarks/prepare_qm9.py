"""Time of `molspectra prepare qm9` on files of the published size and format, on one core.

The files are made from the QM9 molecules in `../shared/data/qm9` (or --data): the labelled ones are
repeated with coordinates moved by up to 0.01 Å until there are as many as in QM9. Their SMILES and InChI
have the right formula and the usual length, but made-up bonds. They lie in a temporary folder that is
removed at the end.

    python benchmarks/prepare_qm9.py [--form xyz|sdf] [--molecules 133885]
"""

import argparse
import bz2
import io
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rdkit import Chem

from molspectra.chem.elements import SYMBOLS, hill_formula
from molspectra.chem.identity import perceived_bonds
from molspectra.chem.molecule import Molecule
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.qm9 import LIST, TOTAL, UNCHARACTERISED
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES
from molspectra.simulation.units import KCAL

Labelled = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Index, atomic numbers, coordinates, the 15 published scalars."""


SDF_SOURCES = 2000
"""Molecules that are repeated for the SDF file; finding their bonds takes about 10 ms each."""


def molecules(data: Path, count: int, sources: int | None = None) -> Iterator[Labelled]:
    """Yield the labelled molecules, again and again with moved coordinates."""
    arrays = np.load(data / "qm9_labelled_18568.npz")
    ends = np.cumsum(arrays["n_atoms"].astype(np.int64))[:sources]
    numbers, positions = arrays["z"].astype(np.int64), arrays["pos"].astype(np.float64)
    scalars = arrays["props"]
    generator = np.random.default_rng(0)
    for number in range(count):
        source = number % len(ends)
        atoms = slice(ends[source - 1] if source else 0, ends[source])
        moved = positions[atoms] + generator.uniform(-0.01, 0.01, positions[atoms].shape)
        yield number + 1, numbers[atoms], moved, scalars[source]


def xyz(molecule: Labelled) -> str:
    """One file of the archive, as published."""
    index, numbers, positions, scalars = molecule
    lines = [str(len(numbers)), f"gdb {index}\t" + "\t".join(f"{value:.10g}" for value in scalars) + "\t"]
    for number, (x, y, z) in zip(numbers, positions, strict=True):
        lines.append(f"{SYMBOLS[number]}\t{x: .10f}\t{y: .10f}\t{z: .10f}\t{-0.1: .6f}")
    lines.append("\t".join(f"{1000 + 7.1234 * mode:.4f}" for mode in range(3 * len(numbers) - 6)))
    chain = "-".join(str(atom) for atom in range(1, int((numbers > 1).sum()) + 1))
    smiles = "".join(SYMBOLS[number] for number in numbers if number > 1)
    inchi = f"InChI=1S/{hill_formula(numbers)}/c{chain}/h1-2H"
    return "\n".join([*lines, f"{smiles}\t{smiles}\t", f"{inchi}\t{inchi}", ""])


def write_xyz(folder: Path, source: Iterator[Labelled]) -> None:
    """Write `dsgdb9nsd.xyz.tar.bz2`."""
    with (
        bz2.open(folder / "dsgdb9nsd.xyz.tar.bz2", "wb", compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for molecule in source:
            content = xyz(molecule).encode()
            member = tarfile.TarInfo(f"dsgdb9nsd_{molecule[0]:06}.xyz")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def bonds_of(numbers: np.ndarray, positions: np.ndarray) -> list[tuple[int, int, int]]:
    """Bonds as first atom, second atom, order, all from 1."""
    mol = perceived_bonds(Molecule(numbers, positions))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return [
        (bond.GetBeginAtomIdx() + 1, bond.GetEndAtomIdx() + 1, int(bond.GetBondTypeAsDouble()))
        for bond in mol.GetBonds()
    ]


def write_sdf(folder: Path, source: Iterator[Labelled]) -> None:
    """Write `gdb9.sdf` and `gdb9.sdf.csv`."""
    names = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv"
    known: dict[int, list[tuple[int, int, int]]] = {}
    with (folder / "gdb9.sdf").open("w") as sdf, (folder / "gdb9.sdf.csv").open("w") as table:
        table.write(f"{names},u0_atom,u298_atom,h298_atom,g298_atom\n")
        for index, numbers, positions, scalars in source:
            bonds = known.setdefault(index % SDF_SOURCES, [])
            if not bonds:
                bonds += bonds_of(numbers, positions)
            lines = [f"gdb_{index}", "  -OEChem-03231823243D", ""]
            lines.append(f"{len(numbers):3}{len(bonds):3}  0     0  0  0  0  0  0999 V2000")
            lines += [
                f"{x:10.4f}{y:10.4f}{z:10.4f} {SYMBOLS[number]:<3} 0  0  0  0  0  0  0  0  0  0  0  0"
                for number, (x, y, z) in zip(numbers, positions, strict=True)
            ]
            lines += [f"{one:3}{other:3}{order:3}  0  0  0  0" for one, other, order in bonds]
            sdf.write("\n".join([*lines, "M  END", "$$$$", ""]))
            energies = zip(scalars[10:14], ATOMIC_ENERGIES.values(), strict=True)
            atomisation = [
                (own - sum(free[atom] for atom in numbers.tolist())) * KCAL for own, free in energies
            ]
            table.write(
                ",".join([f"gdb_{index}", *(f"{each:.12g}" for each in [*scalars, *atomisation])]) + "\n"
            )


def write_list(folder: Path, count: int) -> None:
    """Write `uncharacterized.txt` with nine lines before the rows and one after them."""
    rule = "=" * 158
    left_out = np.linspace(1, count, min(UNCHARACTERISED, count // 2)).astype(int)
    rows = [f"{index:6}  NC(=N)C#N  NC(=N)C#N  [NH]C(=[NH2])C#N  6.036217" for index in left_out]
    before = ["", "List of molecules among the 133885 GDB9 molecules", "", "", "", rule, "# Index", rule, ""]
    (folder / LIST).write_text("\n".join([*before, *rows, rule, ""]))


def main() -> None:
    """Write the files, prepare them, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/qm9")
    parser.add_argument("--molecules", type=int, default=TOTAL)
    parser.add_argument("--form", choices=("xyz", "sdf"), default="xyz")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        sources = None if options.form == "xyz" else SDF_SOURCES
        source = molecules(options.data, options.molecules, sources)
        (write_xyz if options.form == "xyz" else write_sdf)(folder, source)
        write_list(folder, options.molecules)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"made {options.molecules} molecules, {size:.0f} MB, in {time.perf_counter() - began:.0f} s")
        report = prepare("qm9", folder, folder / "qm9.arrow", show=False)
        print(report.text())
        print(f"store: {(folder / 'qm9.arrow').stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
