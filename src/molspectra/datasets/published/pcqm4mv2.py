"""PCQM4Mv2: 3,378,606 structures of PubChemQC, from the zip of XYZ files or the SDF in its tar archive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from molspectra.chem.elements import atomic_number
from molspectra.chem.identity import geometry_hash
from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Metadata
from molspectra.datasets.formats.archives import open_text
from molspectra.datasets.formats.sdf_table import blocks
from molspectra.datasets.formats.zip_members import count_members, zip_members
from molspectra.datasets.importer import Candidate, Importer, Opened, Row, choice
from molspectra.errors import FormatError, NotFoundError, ValueRangeError

STRUCTURES = 3_378_606
"""Structures of the published training set; validation and test molecules have none."""

LEVEL = "B3LYP/6-31G* (PubChemQC)"

_ZIP, _SDF, _TAR = "pcqm4m-v2_xyz.zip", "pcqm4m-v2-train.sdf", "pcqm4m-v2-train.sdf.tar.gz"
_COUNT = re.compile(r"[A-Z][a-z]?(\d*)")
_NUMBERED = re.compile(r"(?:^|/)(\d{1,9})\.xyz$")
_IDENTITIES = {
    "inchikey": "from the bonds of the SDF, or bonds perceived in an XYZ file",
    "geometry": "hash of the contacts between atoms, which no other dataset shares",
}


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Open the structures in one of the two published forms; there are no spectra, and no labels are read."""
    identity = choice(options, "identity", _IDENTITIES, "inchikey")
    path = _file_of(raw)
    zipped = path.suffix.lower() == ".zip"
    reader: Callable[[int], Iterator[Candidate]] = partial(_from_zip if zipped else _from_sdf, path, identity)
    if not zipped:
        next(reader(0), None)
    return Opened(
        metadata=Metadata(
            source="PCQM4Mv2 (OGB-LSC, Hu et al. 2021) of PubChemQC (Nakata and Shimazaki 2017)",
            licence="CC BY 4.0",
            level=LEVEL,
            notes={"file": path.name, "identity": _IDENTITIES[identity]},
        ),
        candidates=reader,
        total=count_members(path) if zipped else STRUCTURES,
        expected=STRUCTURES,
    )


PCQM4MV2 = Importer(
    "pcqm4mv2",
    "PCQM4Mv2",
    f"{_TAR}, {_ZIP}, or the folder with one of them (the SDF is taken where both are there)",
    {
        "identity": "inchikey (default) or geometry: for XYZ files in half the time, but the molecules are "
        "then not recognised in other datasets, so that leaks between them stay unseen"
    },
    _open,
)
"""Importer `pcqm4mv2`."""


def _file_of(raw: Path) -> Path:
    """Return the published file that `raw` is or contains."""
    if not raw.is_dir():
        if raw.suffix.lower() in (".zip", ".sdf") or raw.name.lower().endswith((".tar.gz", ".tgz", ".tar")):
            return raw
        raise NotFoundError(f"{raw}: neither {_TAR} nor {_ZIP}")
    for name in (_TAR, _SDF, _ZIP):
        if (raw / name).is_file():
            return raw / name
    raise NotFoundError(f"{raw}: neither {_TAR} nor {_ZIP} is in this folder")


def _from_zip(path: Path, identity: str, start: int) -> Iterator[Candidate]:
    """Yield the candidates of the zip of XYZ files, in the order of its directory."""
    for member, read in zip_members(path, start):
        number = _NUMBERED.search(member)
        name = f"pcqm4m-v2 {int(number[1])}" if number else member[:80]
        yield Candidate(name, partial(_xyz_row, read, name if number else None, identity))


def _xyz_row(read: Callable[[], bytes], name: str | None, identity: str) -> Row:
    """Return the row of one XYZ file."""
    if name is None:
        raise FormatError("it is not called <number>.xyz, as the structures of PCQM4Mv2 are")
    lines = read().decode("ascii", "replace").splitlines()
    try:
        count = int(lines[0])
        words = [line.split() for line in lines[2 : 2 + count]]
        numbers = np.array([atomic_number(symbol) for symbol, *_ in words])
        positions = np.array([[float(x), float(y), float(z)] for _, x, y, z, *_ in words])
    except (ValueError, IndexError) as error:
        raise FormatError("it is not an XYZ file: number of atoms, comment, symbol x y z per atom") from error
    if not 0 < count == len(numbers) or any(line.strip() for line in lines[2 + count :]):
        raise FormatError(f"it does not have the {count} atoms that its first line states")
    molecule = Molecule(numbers, positions, name=name)
    return Row(molecule, identity=_by_geometry(molecule) if identity == "geometry" else None)


def _from_sdf(path: Path, identity: str, start: int) -> Iterator[Candidate]:
    """Yield the candidates of the SDF, named by the record's number, which is the row of OGB's table."""
    plain = path.suffix.lower() == ".sdf"
    with open_text(path.parent if plain else path, path.name if plain else _SDF) as file:
        for number, (_, block) in enumerate(blocks(file, str(path))):
            if number >= start:
                name = f"pcqm4m-v2 {number}"
                yield Candidate(name, partial(_block_row, block, name, identity))


def _block_row(block: str, name: str, identity: str) -> Row:
    """Return the row of one record, a V2000 MOL block with explicit hydrogens in 3D."""
    lines = block.split("\n")
    counts = lines[3] if len(lines) > 3 else ""
    if "M  END" not in block or not counts[:3].strip().isdecimal() or counts.rstrip()[-5:] != "V2000":
        raise FormatError("the record is cut short, or is not a V2000 MOL block")
    atoms = lines[4 : 4 + int(counts[:3])]
    try:
        numbers = np.array([atomic_number(line[31:34].strip()) for line in atoms])
        positions = np.array([[float(line[:10]), float(line[10:20]), float(line[20:30])] for line in atoms])
    except ValueError as error:
        raise FormatError("an atom line does not have three coordinates") from error
    molecule = Molecule(numbers, positions, charge=_charge(lines[4 + len(atoms) :]), name=name)
    if identity == "geometry":
        return Row(molecule, identity=_by_geometry(molecule))
    return Row(molecule, identity=_by_bonds(block, molecule))


def _by_bonds(block: str, molecule: Molecule) -> str | None:
    """Return the identity from the bonds of a MOL block by InChI, None if they leave valences open.

    InChI fills open valences with hydrogens. One or two of them may be a radical or a carbene, which gets its
    identity from its geometry; more are hydrogens that the record lacks.
    """
    from rdkit import rdBase
    from rdkit.Chem import inchi

    with rdBase.BlockLogs():
        text = str(inchi.MolBlockToInchi(block) or "")
    layers = text.split("/")
    if len(layers) < 2:
        return None
    if "." not in layers[1] and not any(layer.startswith("p") for layer in layers[2:]):
        more = sum(int(number or 1) for number in _COUNT.findall(layers[1])) - len(molecule)
        if more > 2:
            raise ValueRangeError(f"{more} hydrogen atoms have no coordinates; add explicit hydrogens in 3D")
        if layers[1] != molecule.formula:
            return None
    return str(inchi.InchiToInchiKey(text))[:14] or None


def _charge(lines: list[str]) -> int:
    """Return the total charge: the sum over the `M  CHG` lines, each `M  CHGnn8` and nn pairs `aaa vvv`."""
    try:
        return sum(sum(map(int, line.split()[4::2])) for line in lines if line.startswith("M  CHG"))
    except ValueError as error:
        raise FormatError("a line of charges (M  CHG) cannot be read") from error


def _by_geometry(molecule: Molecule) -> str:
    return geometry_hash(molecule.numbers, molecule.positions)
