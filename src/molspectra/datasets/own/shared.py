"""What the importers of users' own data share: options, names and units of properties, and rows."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Quantity
from molspectra.data.store.writer import Row
from molspectra.datasets.importer import Opened, choice
from molspectra.errors import InputError
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

BOHR = 0.529177210903
"""Å in one bohr (CODATA 2018)."""

MAX_ATOMS = 2_000
"""Larger structures are rejected: the checks of a structure grow with the square of its size."""

OPTIONS: dict[str, str] = {
    "unit.NAME": "unit of the property NAME, such as unit.gap=eV; 1 for a pure number",
    "properties": "names of the properties to take, separated by commas, or none; all if not given",
    "level": "level of theory (or instrument) of structures, properties and forces",
    "source": "where the data come from",
    "licence": "under which terms",
}
"""Options of every importer of own data."""

POSITIONS = {"positions": "unit of the coordinates: angstrom (default) or bohr"}
FORCES = {
    "forces": "key of the forces on the atoms; their unit in unit.forces",
    "energy": "key of the energy, stored as property 'energy'; its unit in unit.energy",
}

_UNITS = """
eV meV Hartree kcal/mol kJ/mol cm⁻¹ cm^-1 D e·Å e·a0 a0^3 Å^3 a0^2 Å^2 cal/mol/K J/mol/K GHz MHz K °C
eV/Å meV/Å Hartree/bohr Hartree/a0 kcal/mol/Å kJ/mol/Å g/mol u Å nm g/cm^3 mol/L V % ppm Pa bar
"""
_KNOWN = {unit.casefold(): unit for unit in _UNITS.split()} | {"debye": "D", "ha": "Hartree"}
_PURE = ("1", "-", "none", "dimensionless")
_HEADED = re.compile(r"^(.*?)\s*(?:\[([^\]]*)\]|\(([^)]*)\)|\s/\s*(\S+))\s*$")
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-"))


@dataclass(frozen=True)
class OwnImporter:
    """An importer of one format of own data; see `molspectra.datasets.importer.Importer`.

    Attributes:
        name: what `molspectra prepare` calls it.
        title: its name for people.
        files: what `--raw` must hold, in words.
        options: names of its options, each with its help.
        opener: opens the files.
    """

    name: str
    title: str
    files: str
    options: Mapping[str, str]
    opener: Callable[[Path, Mapping[str, str]], Opened]

    def open(self, raw: Path, options: Mapping[str, str]) -> Opened:
        """Open the raw files.

        Raises:
            InputError: if they are not what they should be, or an option has a wrong value.
        """
        return self.opener(raw, options)


@dataclass(frozen=True)
class OwnOptions:
    """Options of an importer of own data, read and checked.

    Attributes:
        units: by property, as the user names it.
        properties: properties asked for, None for all that there are.
        level: level of theory, "" where not given.
        source: where the data come from.
        licence: under which terms.
        scale: factor on the coordinates of the file that makes them Å.
        forces: key of the forces, None where there are none.
        energy: key of the energy, None where there is none.
    """

    units: Mapping[str, str]
    properties: tuple[str, ...] | None
    level: str
    source: str
    licence: str
    scale: float = 1.0
    forces: str | None = None
    energy: str | None = None

    def __post_init__(self) -> None:
        """Refuse a unit that differs from a known one by its capitals only."""
        for name, unit in self.units.items():
            checked_unit(unit, f"option unit.{name}")


def own_options(options: Mapping[str, str], source: str) -> OwnOptions:
    """Read the options that importers of own data share.

    Args:
        options: as given on the command line.
        source: what to say where no source is given.

    Raises:
        InputError: at a value that cannot be.
    """
    units = {key.removeprefix("unit."): value for key, value in options.items() if key.startswith("unit.")}
    wanted: tuple[str, ...] | None = None
    if "properties" in options:
        wanted = tuple(word.strip() for word in options["properties"].split(",") if word.strip())
        wanted = () if wanted == ("none",) else wanted
    unit = choice(options, "positions", {"angstrom": 1, "bohr": 1}, "angstrom")
    return OwnOptions(
        units,
        wanted,
        options.get("level", ""),
        options.get("source", source),
        options.get("licence", ""),
        BOHR if unit == "bohr" else 1.0,
        options.get("forces"),
        options.get("energy"),
    )


def checked_unit(unit: str, where: str) -> str:
    """The unit as it is stored: without spaces around it, "" for a pure number.

    Raises:
        InputError: if it is empty, too long, or differs from a known unit by its capitals only.
    """
    text = unit.strip()
    if text.casefold() in _PURE:
        return ""
    if not text or len(text) > 40 or not text.isprintable():
        raise InputError(f"{where}: {unit[:40]!r} is not a unit; a pure number has the unit 1")
    known = _KNOWN.get(text.casefold(), text)
    if known != text and known.casefold() == text.casefold():
        raise InputError(f"{where}: unknown unit {text!r}; did you mean {known!r}?")
    return known


def split_header(text: str) -> tuple[str, str | None]:
    """Name and unit of a column header such as `gap [eV]`, `gap (eV)` or `gap / eV`; None without a unit."""
    found = _HEADED.match(text.strip())
    if found is None or not found[1]:
        return text.strip(), None
    return found[1], next(part for part in found.groups()[1:] if part is not None)


def column_name(text: str) -> str:
    """A name that a column of a store can have: other characters than letters, digits and _ become _."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text.strip()).strip("_")
    return (name if name[:1].isalpha() else f"p_{name}")[:64]


@dataclass(frozen=True)
class Selection:
    """The properties taken from a file.

    Attributes:
        columns: key in the file -> name in the store.
        quantities: name in the store -> unit and level.
        left_out: keys that are in the file and were not asked for.
    """

    columns: Mapping[str, str]
    quantities: Mapping[str, Quantity]
    left_out: tuple[str, ...] = ()

    def notes(self, others: Iterable[str] = (), kind: str = "other") -> dict[str, str]:
        """What the store's metadata say of columns that were not taken, `others` for what they hold."""
        left_out = {"columns_left_out": self.left_out, f"{kind}_columns_left_out": tuple(others)}
        return {key: listed(names) for key, names in left_out.items() if names}


def spoken(notes: Mapping[str, str]) -> dict[str, str]:
    """Notes of the metadata as the report has them."""
    return {key.replace("_", " "): text for key, text in notes.items()}


def selection(found: Mapping[str, str | None], options: OwnOptions, where: str) -> Selection:
    """Choose the properties of a file and settle their units.

    Args:
        found: numeric columns of the file, each with the unit that the file states, or None.
        options: what the user asked for; properties may be named as in the file or as in the store.
        where: the file, for messages.

    Raises:
        InputError: if a property asked for is not there, or has no unit, or two, or two share a name.
    """
    names = {key: column_name(split_header(key)[0]) for key in found}
    if options.energy is not None:
        names[_key(options.energy, names, where, "energy")] = "energy"
    wanted = list(names)
    if options.properties is not None:
        wanted = [_key(word, names, where, "properties") for word in options.properties]
        wanted += [
            key for key, name in names.items() if name == "energy" and options.energy and key not in wanted
        ]
    units = {
        _key(word, names, where, "unit"): unit for word, unit in options.units.items() if word != "forces"
    }
    quantities: dict[str, Quantity] = {}
    for key in wanted:
        stated = found[key]
        unit = units.get(key, stated)
        if unit is None:
            continue
        checked = checked_unit(unit, f"{where}: property {key!r}")
        if (
            stated is not None
            and key in units
            and checked != checked_unit(stated, f"{where}: property {key!r}")
        ):
            raise InputError(f"{where}: property {key!r} is in {stated!r}, not in {units[key]!r}")
        if names[key] in quantities:
            raise InputError(f"{where}: two properties would be called {names[key]!r}; rename one of them")
        quantities[names[key]] = Quantity(checked, options.level)
    silent = [key for key in wanted if names[key] not in quantities]
    if silent:
        shown = ", ".join(repr(key) for key in silent[:8]) + (" …" if len(silent) > 8 else "")
        advice = f"give --option unit.{names[silent[0]]}=eV (1 for a pure number), or choose with properties="
        raise InputError(f"{where}: no unit is stated for {shown}; {advice}")
    left_out = tuple(key for key in names if key not in wanted)
    return Selection({key: names[key] for key in wanted}, quantities, left_out)


def _key(word: str, names: Mapping[str, str], where: str, option: str) -> str:
    """The key of the file that a user means by a word."""
    if word in names:
        return word
    for key, name in names.items():
        if word in (name, split_header(key)[0]):
            return key
    close = difflib.get_close_matches(word, [*names, *names.values()], n=1)
    known = ", ".join(list(names)[:20]) or "none"
    hint = f"did you mean {close[0]!r}?" if close else f"it has: {known}"
    raise InputError(f"{where} has no numeric column {word!r} (option {option}); {hint}")


def force_quantity(options: OwnOptions, where: str, key: str | None = None) -> Quantity | None:
    """Unit and level of the forces, None where none are asked for.

    Args:
        options: what the user asked for.
        where: the file, for messages.
        key: forces that the file has, where the user need not ask for them.

    Raises:
        InputError: if their unit is not stated.
    """
    if (key or options.forces) is None:
        return None
    if "forces" not in options.units:
        raise InputError(f"{where}: no unit is stated for the forces; give --option unit.forces=eV/Å")
    return Quantity(checked_unit(options.units["forces"], "option unit.forces"), options.level)


def number(text: str) -> float | None:
    """The number that a cell holds, None where it says that there is none (empty, NA, nan, null).

    Raises:
        InputError: if it is something else, or not finite.
    """
    word = text.strip()
    if is_missing(word):
        return None
    try:
        value = float(word.replace("_", "?"))  # Python takes 1_000 for a number
    except ValueError as error:
        raise InputError(f"{word[:40]!r} is not a number") from error
    if not math.isfinite(value):
        raise InputError(f"{word[:40]!r} is not a finite number")
    return value


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().casefold() in _MISSING


def is_number(text: str) -> bool:
    """Whether a cell holds a number, finite or not."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


class Built(NamedTuple):
    """One spectrum, and what was altered on the way from its source, in words that many spectra share."""

    spectrum: LineSpectrum | SampledSpectrum
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What a file says of one molecule, not yet checked; spectra by modality.

    Attributes:
        molecule: builds the structure, coordinates in Å.
        values: properties by their name in the store; NaN where the file has none.
        forces: [N, 3] or None.
        identity: split key that the file gives, None if it gives none.
        spectra: builds each spectrum; one that cannot be built is left out, and the row stays.
        left_out: spectra that the molecule lacks, each with the reason.
    """

    molecule: Callable[[], Molecule]
    values: Mapping[str, float] = field(default_factory=dict)
    forces: npt.NDArray[Any] | None = None
    identity: str | None = None
    spectra: Mapping[str, Callable[[], Built]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def row_of(known: Known) -> Row:
    """The row of one record.

    Raises:
        InputError: if the structure, a property or the forces cannot be.
    """
    molecule = known.molecule()
    values = {name: float(value) for name, value in known.values.items() if not np.isnan(value)}
    if known.forces is not None and not np.isfinite(known.forces).all():
        raise InputError("a force is not a finite number")
    spectra: dict[str, LineSpectrum | SampledSpectrum] = {}
    left_out, changes = dict(known.left_out), list[str]()
    for name, build in known.spectra.items():
        try:
            spectrum, altered = build()
            heights = spectrum.intensity if isinstance(spectrum, LineSpectrum) else spectrum.values
            if heights.size and not heights.any():
                raise InputError("all intensities are zero")
            spectra[name] = spectrum
            changes.extend(f"{name}: {change}" for change in altered)
        except InputError as error:
            left_out[name] = str(error)
    return Row(molecule, spectra, values, known.forces, known.identity, left_out, tuple(changes))


def listed(words: Iterable[str], most: int = 20) -> str:
    """Words for a note: their number, and the first of them by name."""
    found = list(words)
    shown = ", ".join(found[:most]) + (", …" if len(found) > most else "")
    return f"{len(found)}: {shown}" if found else "0"
