"""Molecules as people have them (files, stores, lists, tables), built one by one; bad ones are named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from molspectra.chem.elements import SYMBOLS
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import FORMATS, Rejection, from_smiles
from molspectra.chem.records import check_readable
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.store import Store
from molspectra.errors import InputError, MolspectraError, hint
from molspectra.training.data import open_store
from molspectra.training.progress import progress

NAMES = ("name", "id", "title")
"""Columns of a table that name a molecule, the first that is there."""

SUFFIXES = (*FORMATS, "parquet", "arrow")
"""Suffixes of files with molecules."""

OnError = Literal["raise", "skip"]
Molecules = (
    str | os.PathLike[str] | Store | Molecule | Sequence[str | Molecule] | Any
)  # the last: a table with the Arrow interface, such as a pandas or polars frame


@dataclass(frozen=True)
class Given:
    """Something that was given and is still to be built.

    Attributes:
        path: the file, or what to call a list.
        where: its place there, for people.
        build: makes it; a MolspectraError is the reason why it is bad.
        identity: split key where it is known already.
    """

    path: str
    where: str
    build: Callable[[], Any]
    identity: str | None = None


@dataclass(frozen=True)
class Built:
    """A molecule with the file or list that it comes from, its place there, and its identity."""

    path: str
    where: str
    molecule: Molecule
    identity: str


@dataclass(frozen=True)
class Policy:
    """What happens with what cannot be used: it stops everything ("raise"), or is listed ("skip").

    Raises:
        InputError: another word than these.
    """

    on_error: OnError = "raise"
    rejected: list[Rejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse other words."""
        if self.on_error not in ("raise", "skip"):
            raise InputError(f"on_error must be 'raise' or 'skip', not {self.on_error!r}")

    def refuse(self, path: str, where: str, reason: object) -> None:
        """Do what is to be done.

        Raises:
            InputError: with "raise".
        """
        rejection = Rejection(path, where, str(reason))
        if self.on_error == "raise":
            raise InputError(str(rejection))
        self.rejected.append(rejection)


def given_molecules(molecules: Molecules, smiles: str = "smiles") -> tuple[Iterable[Given], int | None]:
    """Molecules in any form, and how many there are where that is known.

    Args:
        molecules: path of a file (`SUFFIXES`), name of a bundled store, a store, a molecule, a list of SMILES
            and molecules, or a table with the Arrow interface.
        smiles: column of a table that holds SMILES.

    Raises:
        InputError: a file that is missing, empty or of an unknown format, or a table without the column.
    """
    if isinstance(molecules, Store):
        return _of_store(molecules), len(molecules)
    if isinstance(molecules, Molecule):
        return [Given("molecules", "item 1", lambda: molecules)], 1
    if isinstance(molecules, str | os.PathLike):
        return _of_file(os.fspath(molecules))
    if hasattr(molecules, "__arrow_c_stream__"):
        return _of_table(molecules, smiles)
    try:
        items = list(molecules)
    except TypeError as error:
        kind = type(molecules).__name__
        raise InputError(
            f"molecules: expected a file, store, list or table, not an object of type {kind}"
        ) from error
    found = [Given("molecules", f"item {n}", partial(_molecule, each)) for n, each in enumerate(items, 1)]
    return found, len(found)


def _of_store(store: Store) -> Iterator[Given]:
    for row, identity in enumerate(store.identities):
        yield Given(str(store.path), f"row {row}", partial(store.molecule, row), identity)


def _of_file(text: str) -> tuple[Iterable[Given], int | None]:
    path = Path(text)
    kind = path.suffix.removeprefix(".").lower()
    if text in BUNDLED and not path.exists():
        store = open_store(text)
        return _of_store(store), len(store)
    if not path.exists() and not kind:
        raise InputError(f"{text}: no such file; SMILES are given as a list")
    check_readable(path)
    if kind == "arrow":
        store = Store(path)
        return _of_store(store), len(store)
    if kind == "parquet":
        return _of_parquet(path)
    if kind not in FORMATS:
        raise InputError(f"{path}: unknown format {kind!r} of a file of molecules; {hint(kind, SUFFIXES)}")
    return (Given(text, where, build) for where, build in FORMATS[kind](path)), None


def _of_parquet(path: Path) -> tuple[Iterable[Given], int | None]:
    from molspectra.datasets.own.parquet import PARQUET

    opened = PARQUET.open(path, {"properties": "none", "unit.forces": "eV/Å"})  # neither is looked at
    found = (Given(str(path), each.name, each.make) for each in opened.candidates(0))
    return found, opened.total


def _of_table(table: Any, smiles: str) -> tuple[Iterable[Given], int | None]:
    import pyarrow as pa

    try:
        columns = pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError("table: not a frame with columns; give one with SMILES in it, or a list") from error
    if smiles not in columns.column_names:
        near = hint(smiles, columns.column_names, label="it has")
        raise InputError(f"table: no column {smiles!r} with SMILES; {near}")
    texts = columns[smiles].to_pylist()
    key = next((name for name in NAMES if name in columns.column_names), None)
    names = [None] * len(texts) if key is None else columns[key].to_pylist()
    pairs = enumerate(zip(texts, names, strict=True))
    found = [Given("table", f"row {row}", partial(_molecule, each, name)) for row, (each, name) in pairs]
    return found, len(found)


def _molecule(given: object, name: object = None) -> Molecule:
    """A molecule from a SMILES or itself.

    Raises:
        InputError: neither, or a bad SMILES.
    """
    if isinstance(given, Molecule):
        return given
    if given is None or given != given:  # pandas marks a missing text by NaN
        raise InputError("the SMILES is missing")
    if not isinstance(given, str):
        raise InputError(f"expected a SMILES or a Molecule, not an object of type {type(given).__name__}")
    return from_smiles(given, None if name is None or name != name else str(name))


def batches(
    given: Iterable[Given],
    total: int | None,
    size: int,
    policy: Policy,
    *,
    elements: frozenset[int] | None = None,
    title: str = "molecules",
    show: bool = False,
) -> Iterator[list[Built]]:
    """Build molecules and hand them out in batches.

    Args:
        given: what to build.
        total: how many, for the progress shown.
        size: molecules per batch.
        policy: for those that cannot be used.
        elements: atomic numbers that a model knows; None for all.
        title: of the progress.
        show: progress on standard error.

    Raises:
        InputError: a bad molecule with "raise"; none at all; a size below 1.
    """
    if size < 1:
        raise InputError(f"batch_size must be at least 1, not {size}")
    source, done = iter(given), 0
    with progress(title, total, show=show) as advance:
        while block := list(islice(source, size)):
            done += len(block)
            built = [found for each in block if (found := _built(each, policy, elements)) is not None]
            if built:
                yield built
            advance(done, f"{len(policy.rejected)} left out" if policy.rejected else "")
    if not done:
        raise InputError("there are no molecules in what was given")


def _built(given: Given, policy: Policy, elements: frozenset[int] | None) -> Built | None:
    """The molecule; None where it cannot be used and the policy goes on."""
    try:
        made = given.build()
        molecule: Molecule = getattr(made, "molecule", made)  # a row of a store, or a molecule itself
        strange = set(molecule.numbers.tolist()) - elements if elements is not None else set()
        if strange:
            raise InputError(_unknown(strange, elements or frozenset()))
        identity = given.identity or getattr(made, "identity", None) or molecule.identity
        return Built(given.path, given.where, molecule, identity)
    except MolspectraError as error:
        policy.refuse(given.path, given.where, error)
        return None


def _unknown(strange: set[int], elements: frozenset[int]) -> str:
    names, known = (", ".join(SYMBOLS[n] for n in sorted(numbers)) for numbers in (strange, elements))
    return f"the model was not trained on {names}, only on {known}"


def identity_columns(built: Sequence[Built]) -> dict[str, list[str | None]]:
    """What tells which molecule a line of a result is: its place, identity, name, SMILES and formula."""
    return {
        "source": [each.where for each in built],
        "identity": [each.identity for each in built],
        "name": [each.molecule.name for each in built],
        "smiles": [each.molecule.smiles for each in built],
        "formula": [each.molecule.formula for each in built],
    }
