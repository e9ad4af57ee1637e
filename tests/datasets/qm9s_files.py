"""The files of QM9S in their published formats, for a few dozen small molecules."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from molspectra.datasets.published.qm9s_join import groups_of
from molspectra.spectra.modality import IR, RAMAN, UV_VIS

PUBLISHED = {kind.name: kind for kind in (UV_VIS, IR, RAMAN)}

SMILES = [
    *("C", "N", "O", "C#C", "C#N", "CC", "CO", "CC#C", "CC#N", "CN", "CCC", "CCO", "COC", "C1CC1", "C1CO1"),
    *("CC(C)O", "CC(C)N", "CCC#N", "CCC#C", "OCCO", "NCCO", "CC(C)C", "CNC", "CC(O)C#N", "NCC#N", "OCC#C"),
    *("C1CCC1", "OC1CC1", "NC1CC1", "N#CC1CC1", "C#CC1CC1", "COCC", "CCCC", "CCCO", "CCCN", "FCCF", "FCC#N"),
    *("OCC(O)C", "CC(C)(C)C", "CC(C)(C)O", "CC(C)(C)N", "CC(C)(C)C#N", "C1CCOC1", "C1CCNC1", "C1CCCC1"),
    *(
        "OC1CCC1",
        "NC1CCC1",
        "N#CC#N",
        "FC(F)(F)F",
        "FC(F)(F)C#N",
        "CCCCO",
        "CCCCN",
        "CCCC#C",
        "CCOCC",
        "CCCCC",
    ),
    *("OCCC#N", "NCCC#C", "CNCC", "CC(F)C", "CC(O)CO", "OC1COC1", "C1COC1", "CC1CC1", "C#CCC#C", "NCCN"),
]
SHORT = {"uv_vis": "uv", "ir": "ir", "raman": "raman"}


@dataclass(frozen=True)
class Molecule:
    number: int
    smiles: str
    z: np.ndarray
    pos: np.ndarray


@cache
def molecules() -> list[Molecule]:
    order = np.random.default_rng(0).permutation(len(SMILES))
    built = []
    for position, index in enumerate(order):
        mol = Chem.AddHs(Chem.MolFromSmiles(SMILES[index]))
        AllChem.EmbedMolecule(mol, randomSeed=7)
        z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        number = 1 + position + position // 3  # QM9S leaves some molecules of QM9 out
        built.append(Molecule(number, SMILES[index], z, mol.GetConformer().GetPositions()))
    return built


def spectra_of(molecule: Molecule, seed: int) -> dict[str, np.ndarray]:
    """Samples with the bands that the groups of the molecule have."""
    random, groups = np.random.default_rng(seed), groups_of(molecule.z, molecule.pos)
    lines = [(random.uniform(600, 1700), random.uniform(1, 50)) for _ in range(6)]
    lines += [(3680.0, 30.0)] * groups["hydroxyl"] + [(3420.0, 8.0)] * groups["amine"]
    lines += [(2210.0, 40.0)] * groups["triple"] + [(2960.0, 60.0)] * groups["hydrogen"]
    spectra = {}
    for name in ("ir", "raman"):
        axis = PUBLISHED[name].axis()
        spectra[name] = sum(
            height * random.uniform(0.5, 1) * 6 / np.pi / ((axis - centre) ** 2 + 36)
            for centre, height in lines
        )
    spectra["uv_vis"] = np.exp(-((UV_VIS.axis() - random.uniform(5, 9)) ** 2))
    return spectra


def tables(count: int | None = None) -> dict[str, np.ndarray]:
    rows = [spectra_of(molecule, seed) for seed, molecule in enumerate(molecules()[:count])]
    return {name: np.array([row[name] for row in rows]) for name in PUBLISHED}


def write_table(path: Path, axis: np.ndarray, rows: np.ndarray, end: str = "\n") -> None:
    lines = ["," + ",".join(repr(float(value)) for value in axis)]
    lines += [f"{number}," + ",".join(repr(float(value)) for value in row) for number, row in enumerate(rows)]
    path.write_bytes((end.join(lines) + end).encode())


def write_tables(folder: Path, values: dict[str, np.ndarray]) -> None:
    for name, rows in values.items():
        write_table(folder / f"{SHORT[name]}_boraden.csv", PUBLISHED[name].axis(), rows)


@contextmanager
def graph_classes() -> Iterator[tuple[type, type]]:
    """Classes with the names of the graph library, for as long as a file is written."""
    names = ("", ".data", ".data.data", ".data.storage")
    modules = {f"torch_geometric{name}": types.ModuleType(f"torch_geometric{name}") for name in names}
    data, storage = type("Data", (), {}), type("GlobalStorage", (), {})
    data.__module__, storage.__module__ = "torch_geometric.data.data", "torch_geometric.data.storage"
    vars(modules[data.__module__])["Data"] = data
    vars(modules[storage.__module__])["GlobalStorage"] = storage
    sys.modules.update(modules)
    try:
        yield data, storage
    finally:
        for name in modules:
            del sys.modules[name]


def graphs(entries: list[dict[str, Any]], data: type, storage: type, old: bool = False) -> list[Any]:
    """Objects as the graph library pickles them; `old` before its version 2."""
    records = []
    for fields in entries:
        graph = data()
        if old:
            vars(graph).update({"x": None, "edge_index": None, **fields})
        else:
            store = storage()
            vars(store).update({"_mapping": dict(fields), "_parent": graph})  # a cycle, as in the real ones
            vars(graph)["_store"] = store
        records.append(graph)
    return records


def fields_of(molecule: Molecule) -> dict[str, Any]:
    return {
        "edge_index": torch.zeros(2, 3, dtype=torch.long),
        "pos": torch.tensor(molecule.pos, dtype=torch.float32),
        "number": molecule.number,
        "smile": molecule.smiles,
        "z": torch.tensor(molecule.z),
        "polar": torch.rand(1, 3, 3),
    }


def write_list(path: Path, given: list[Molecule], old: bool = False) -> None:
    with graph_classes() as classes:
        torch.save(graphs([fields_of(molecule) for molecule in given], *classes, old=old), path)


def write_folder(folder: Path, given: list[Molecule]) -> None:
    folder.mkdir()
    width = 9
    for number, molecule in enumerate(given, 1):
        rows: list[list[Any]] = [
            [number, molecule.number, molecule.smiles, len(molecule.z)],
            [-1000.0],
        ]
        rows += [[0.1] * 9 for _ in range(8)]
        rows += [[float(z), *xyz] for z, xyz in zip(molecule.z, molecule.pos, strict=True)]
        rows += [[0.5] * width for _ in range(2 * len(molecule.z))]
        lines = ["," + ",".join(map(str, range(width)))]
        for index, row in enumerate(rows):
            cells = [str(index), *map(str, row), *[""] * (width - len(row))]
            lines.append(",".join(cells))
        (folder / f"{number:06d}.csv").write_text("\n".join(lines) + "\n")
