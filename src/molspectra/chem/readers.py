"""Molecules from files, SMILES, RDKit and ASE."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from molspectra.chem.molecule import Molecule, whole
from molspectra.chem.records import Entry, check_readable
from molspectra.chem.sdf import molecule_of_graph, sdf_entries
from molspectra.chem.smiles import csv_entries, from_smiles, smi_entries
from molspectra.chem.xyz import xyz_entries
from molspectra.errors import FormatError, InputError, MolspectraError, SettingError, ValueRangeError, hint

__all__ = [
    "FORMATS",
    "Rejection",
    "from_ase",
    "from_rdkit",
    "from_smiles",
    "is_single",
    "molecule_from",
    "read_molecules",
    "to_ase",
]

FORMATS: dict[str, Callable[[Path], Iterator[Entry]]] = {
    "smi": smi_entries,
    "csv": csv_entries,
    "sdf": sdf_entries,
    "mol": sdf_entries,
    "xyz": xyz_entries,
    "extxyz": xyz_entries,
}
"""Readers by format, which is also the suffix of the file."""

OnError = Literal["raise", "skip"]
"""Whether bad input stops everything, or is left out and listed."""


@dataclass(frozen=True)
class Rejection:
    """One record of a file that was skipped.

    Attributes:
        path: the file.
        where: position of the record in it.
        reason: why it was skipped, one line.
    """

    path: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}, {self.where}: {self.reason}"


@dataclass(frozen=True)
class ErrorPolicy:
    """Whether bad input stops everything ("raise") or is listed in `rejected` ("skip").

    Raises:
        SettingError: `on_error` is another word.
    """

    on_error: OnError = "raise"
    rejected: list[Rejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_on_error(self.on_error)

    def reject(self, path: str, where: str, error: MolspectraError) -> None:
        """Raise, or record the molecule or sample as rejected, according to the policy.

        Raises:
            InputError: with "raise"; of the class of `error` where that is an InputError.
        """
        if self.on_error == "skip":
            self.rejected.append(Rejection(path, where, str(error)))
        elif isinstance(error, InputError):
            raise error.with_context(f"{path}, {where}") from error
        else:
            raise InputError(f"{path}, {where}: {error}") from error

    def nothing_left(self, work: str) -> InputError:
        """The error of a result without any row, with the first rejection."""
        first = self.rejected[0] if self.rejected else "nothing was given"
        return InputError(f"nothing could be {work}: {first}")


def check_on_error(on_error: str) -> None:
    """Refuse a policy for bad input that there is not.

    Raises:
        SettingError: it is neither "raise" nor "skip".
    """
    if on_error not in ("raise", "skip"):
        raise SettingError(f"on_error must be 'raise' or 'skip', not {on_error!r}")


def read_molecules(
    path: str | PathLike[str],
    format: str | None = None,
    *,
    on_error: Literal["raise", "skip"] = "raise",
    rejected: list[Rejection] | None = None,
) -> Iterator[Molecule]:
    """Yield the molecules of a file one by one; the file is never held in memory as a whole.

    Args:
        path: file of SMILES (`.smi`, `.csv` with a column `smiles`), SDF (`.sdf`, `.mol`) or XYZ (`.xyz`,
            `.extxyz`).
        format: one of `FORMATS`; None takes it from the suffix.
        on_error: "raise" stops at the first invalid record; "skip" appends it to `rejected` and goes on.
        rejected: list of the skipped records; required with "skip", so that none is skipped silently.

    Raises:
        InputError: immediately if the file cannot be read or its format is unknown; during the iteration at
            an invalid record, with file and record, or if the file contains no molecule. Files that are not
            text and wrong headers raise under "skip" too.
    """
    entries = open_entries(path, format)
    check_on_error(on_error)
    if on_error == "skip" and rejected is None:
        raise SettingError("on_error='skip' needs a list 'rejected' that receives the bad records")
    return _molecules(Path(path), entries, None if on_error == "raise" else rejected)


def open_entries(path: str | PathLike[str], format: str | None = None) -> Iterator[Entry]:
    """Open a file of molecules, to be parsed on demand; arguments and errors as `read_molecules`."""
    source = Path(path)
    kind = (format or source.suffix.removeprefix(".")).lower()
    check_readable(source)
    if kind not in FORMATS:
        raise FormatError(f"{source}: unknown format {kind!r} of a file of molecules; {hint(kind, FORMATS)}")
    return FORMATS[kind](source)


def _molecules(path: Path, entries: Iterator[Entry], rejected: list[Rejection] | None) -> Iterator[Molecule]:
    entry = None
    for entry in entries:
        try:
            molecule = entry.molecule()
        except InputError as error:
            if rejected is None:
                raise error.with_context(f"{path}, {entry.where}") from error
            rejected.append(Rejection(str(path), entry.where, str(error)))
        else:
            yield molecule
    if entry is None:
        raise FormatError(f"{path} holds no molecules")


def from_ase(atoms: Any) -> Molecule:
    """Return the molecule of an `ase.Atoms`.

    The charge is `info["charge"]`, or else the sum of the initial charges; `info["smiles"]` and
    `info["name"]` are used if present.

    Raises:
        InputError: periodic boundary conditions, a fractional charge, or an invalid `Molecule`.
    """
    if atoms.pbc.any():
        raise ValueRangeError("a periodic structure is not a molecule; set pbc to False")
    total = float(atoms.info.get("charge", atoms.get_initial_charges().sum()))
    charge = whole(total)
    if charge is None:
        raise ValueRangeError(f"the charges of the atoms add up to {total:g}, which is not a whole number")
    label = {key: str(atoms.info[key]) for key in ("smiles", "name") if atoms.info.get(key) is not None}
    return Molecule(atoms.numbers, atoms.positions, charge=charge, **label)


def from_rdkit(mol: Any, name: str | None = None) -> Molecule:
    """Return the molecule of an `rdkit.Chem.Mol`.

    With a three-dimensional conformer it has these coordinates, in the order of the atoms; all hydrogens must
    be there. Without one it is that of `from_smiles`, whose order of atoms is that of the canonical SMILES.

    Args:
        mol: atoms and bonds; it is not changed.
        name: of the molecule; None takes its property `_Name`.

    Raises:
        InputError: missing hydrogens, dummy atoms, isotopes, or what `from_smiles` refuses.
    """
    from rdkit import Chem

    if name is None and mol.HasProp("_Name"):
        name = mol.GetProp("_Name").strip() or None
    if mol.GetNumConformers() and mol.GetConformer().Is3D():
        return molecule_of_graph(Chem.Mol(mol), name)
    return from_smiles(Chem.MolToSmiles(Chem.RemoveHs(mol)), name)


def is_single(item: object) -> bool:
    """Return whether something is one molecule (or SMILES), not several."""
    return isinstance(item, Molecule | str) or hasattr(item, "GetNumAtoms") or hasattr(item, "get_positions")


def molecule_from(item: Any, name: str | None = None) -> Molecule:
    """Return a molecule as it is, or that of a SMILES, an `rdkit.Chem.Mol` or an `ase.Atoms`.

    Args:
        item: the molecule in any of these forms.
        name: its name; used for SMILES and RDKit molecules.

    Raises:
        InputError: anything else, or what cannot be read.
    """
    if isinstance(item, Molecule):
        return item
    if isinstance(item, str):
        return from_smiles(item, name)
    if hasattr(item, "GetNumAtoms"):
        return from_rdkit(item, name)
    if hasattr(item, "get_positions"):
        return from_ase(item)
    if item is None or (isinstance(item, float) and item != item):  # pandas marks a missing text by NaN
        raise FormatError("the SMILES is missing")
    raise FormatError(
        "expected a SMILES, a Molecule, an RDKit molecule or ASE atoms, "
        f"not an object of type {type(item).__name__}"
    )


@dataclass(frozen=True)
class Unread:
    """An item that `molecule_from` will read; it can be pickled, without loss, for other processes.

    RDKit's own pickles lack the properties, such as the name, and have coordinates in single precision. The
    calculator of `ase.Atoms` stays here: many cannot be pickled, and none is needed.
    """

    item: Any
    name: str | None = None

    def __call__(self) -> Molecule:
        """Return its molecule; errors as `molecule_from`."""
        return molecule_from(self.item, self.name)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle an RDKit molecule in RDKit's binary form with all that it holds."""
        if hasattr(self.item, "calc"):
            return Unread, (self.item.copy(), self.name)
        if not hasattr(self.item, "ToBinary"):
            return Unread, (self.item, self.name)
        from rdkit.Chem import PropertyPickleOptions as Options

        return _from_binary, (self.item.ToBinary(Options.AllProps | Options.CoordsAsDouble), self.name)


def _from_binary(binary: Any, name: str | None) -> Unread:
    from rdkit import Chem

    return Unread(Chem.Mol(binary), name)


def to_ase(molecule: Molecule) -> Any:
    """Return `ase.Atoms` with the charge in `info["charge"]`, and SMILES and name in `info` if known."""
    from ase import Atoms

    info: dict[str, str | int] = {"charge": molecule.charge}
    info.update({key: value for key in ("smiles", "name") if (value := getattr(molecule, key)) is not None})
    return Atoms(numbers=molecule.numbers, positions=molecule.positions, info=info)
