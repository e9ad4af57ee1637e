"""Processor time per structure of `molspectra prepare pcqm4mv2`, for both published forms and identities.

    python benchmarks/prepare_pcqm4mv2.py                 # 4,000 made-up structures
    python benchmarks/prepare_pcqm4mv2.py --structures 20000

Molecules of PCQM4Mv2's size (30 atoms on average) with slightly different coordinates are written in the
published formats and prepared; minutes are what all 3,378,606 structures would take on one core.
"""

import argparse
import io
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.pcqm4mv2 import STRUCTURES

SMILES = (
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "COc1ccc(CCNC(C)=O)cc1OC",
    "CCN(CC)CCOC(=O)c1ccccc1",
    "CN1CCC(CC1)C(O)c1ccncc1",
    "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "CC1(C)CC(NC(=O)C2CC2)CC(C)(C)N1",
    "O=S(=O)(NC1CCCCC1)c1ccc(Cl)cc1",
    "CCOC(=O)c1sc(N)c(C#N)c1C",
)


def molecules() -> list[Any]:
    """RDKit molecules with hydrogens and a force-field conformer."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    made = []
    for smiles in SMILES:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(mol, randomSeed=1)
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol)
        made.append(mol)
    return made


def write(folder: Path, count: int) -> float:
    """Write both archives of `count` structures; return their mean number of atoms."""
    from rdkit import Chem

    rng, text, atoms = np.random.default_rng(0), io.StringIO(), 0
    made = molecules()
    with zipfile.ZipFile(folder / "pcqm4m-v2_xyz.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            mol = Chem.Mol(made[number % len(made)])
            conformer = mol.GetConformer()
            places = conformer.GetPositions() + rng.normal(0, 0.01, (mol.GetNumAtoms(), 3))
            for index, place in enumerate(places.tolist()):
                conformer.SetAtomPosition(index, place)
            text.write(Chem.MolToMolBlock(mol) + "$$$$\n")
            rows = zip(mol.GetAtoms(), places, strict=True)
            lines = (f"{atom.GetSymbol()} {x:.6f} {y:.6f} {z:.6f}\n" for atom, (x, y, z) in rows)
            archive.writestr(f"pcqm4m-v2_xyz/0/{number}.xyz", f"{len(places)}\n\n{''.join(lines)}")
            atoms += len(places)
    data = text.getvalue().encode()
    with tarfile.open(folder / "pcqm4m-v2-train.sdf.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("pcqm4m-v2-train.sdf")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return atoms / count


def main() -> None:
    """Write, prepare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--structures", type=int, default=4000)
    count = parser.parse_args().structures
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{count:,} structures of {write(folder, count):.1f} atoms on average")
        for file in ("pcqm4m-v2-train.sdf.tar.gz", "pcqm4m-v2_xyz.zip"):
            for identity in ("inchikey", "geometry"):
                start = time.process_time()
                report = prepare(
                    "pcqm4mv2",
                    folder / file,
                    folder / "out.arrow",
                    options={"identity": identity},
                    overwrite=True,
                    show=False,
                )
                each = (time.process_time() - start) / count
                print(
                    f"{file}, identity={identity}: {1e3 * each:.2f} ms per structure, "
                    f"{each * STRUCTURES / 60:.0f} min for all; {report.peak_mebibytes:.0f} MiB"
                )


if __name__ == "__main__":
    main()
