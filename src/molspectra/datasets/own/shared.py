"""Shared by the importers of users' own data: options, names and units of properties, records to rows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.chem.charges import is_total_charge
from molspectra.chem.molecule import Molecule
from molspectra.data.store.schema import Quantity
from molspectra.data.store.writer import Row
from molspectra.datasets.importer import choice
from molspectra.errors import FormatError, InputError, NotFoundError, UnitError, ValueRangeError, hint
from molspectra.spectra.plausible import check_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

BOHR = 0.529177210903
"""Å in one bohr (CODATA 2018)."""

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
IN_SPLIT = {"split": "column (field) of words train, val and test, kept for data.split: column"}
ARRAYS = {**OPTIONS, **POSITIONS, **FORCES, "spectra_level": "level of theory of the spectra"}
"""Options of the formats whose columns are arrays."""

_UNITS = """
eV meV Hartree kcal/mol kJ/mol cm⁻¹ cm^-1 D e·Å e·a0 a0^3 Å^3 a0^2 Å^2 cal/mol/K J/mol/K GHz MHz K °C
eV/Å meV/Å Hartree/bohr Hartree/a0 kcal/mol/Å kJ/mol/Å g/mol u Å nm g/cm^3 mol/L V % ppm Pa bar
"""
_KNOWN = {unit.casefold(): unit for unit in _UNITS.split()} | {"debye": "D", "ha": "Hartree"}
_PURE = ("1", "-", "none", "dimensionless")
_HEADED = re.compile(r"^(.*?)\s*(?:\[([^\[\]]*)\]|\(([^()]*)\)|\s/\s*(\S+))\s*$")
_LONGEST_HEADER = 200
_PARTS = {"train": 0.0, "val": 1.0, "valid": 1.0, "validation": 1.0, "test": 2.0}
_MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-"))


@dataclass(frozen=True)
class OwnOptions:
    """Options of an importer of own data, parsed and checked.

    Attributes:
        units: unit of each property, under the name that the user gave it.
        properties: names of the requested properties, None for all.
        level: level of theory, "" where not given.
        source: origin of the data.
        licence: terms of use.
        scale: factor that converts coordinates of the file to Å.
        forces: key of the forces, None without.
        energy: key of the energy, None without.
        split: key of the parts of a split, None without.
    """

    units: Mapping[str, str]
    properties: tuple[str, ...] | None
    level: str
    source: str
    licence: str
    scale: float = 1.0
    forces: str | None = None
    energy: str | None = None
    split: str | None = None


def own_options(options: Mapping[str, str], source: str) -> OwnOptions:
    """Parse the options that importers of own data share.

    Args:
        options: as given on the command line.
        source: default of the option `source`.
    """
    units = {key.removeprefix("unit."): value for key, value in options.items() if key.startswith("unit.")}
    for name, given in units.items():
        checked_unit(given, f"option unit.{name}")
    properties: tuple[str, ...] | None = None
    if "properties" in options:
        properties = tuple(word.strip() for word in options["properties"].split(",") if word.strip())
        properties = () if properties == ("none",) else properties
    unit = choice(options, "positions", {"angstrom": 1, "bohr": 1}, "angstrom")
    return OwnOptions(
        units,
        properties,
        options.get("level", ""),
        options.get("source", source),
        options.get("licence", ""),
        BOHR if unit == "bohr" else 1.0,
        options.get("forces"),
        options.get("energy"),
        options.get("split"),
    )


def check_charge_name(names: Iterable[str], where: str) -> None:
    """Refuse a total charge under another name than `charge`, which would be taken for a property.

    Raises:
        FormatError: if there is one, and no `charge`.
    """
    names = list(names)
    other = next((name for name in names if is_total_charge(name, "")), None)
    if other is not None and "charge" not in names:
        raise FormatError(f"{where}: rename {other!r} to 'charge', so that it is read as the total charge")


def checked_unit(unit: str, where: str) -> str:
    """Return the unit as it is stored: without spaces around it, "" for a pure number.

    Raises:
        UnitError: if it is empty, too long, or differs from a known unit by its capitals only.
    """
    text = unit.strip()
    if text.casefold() in _PURE:
        return ""
    if not text or len(text) > 40 or not text.isprintable():
        raise UnitError(f"{where}: {unit[:40]!r} is not a unit; a pure number has the unit 1")
    known = _KNOWN.get(text.casefold(), text)
    if known != text and known.casefold() == text.casefold():
        raise UnitError(f"{where}: unknown unit {text!r}; did you mean {known!r}?")
    return known


def split_header(text: str) -> tuple[str, str | None]:
    """Split a column header such as `gap [eV]`, `gap (eV)` or `gap / eV` into name and unit (or None)."""
    text = " ".join(text.split())
    match = _HEADED.match(text) if len(text) <= _LONGEST_HEADER else None  # takes the square of the length
    if match is None or not match[1]:
        return text, None
    return match[1], next(part for part in match.groups()[1:] if part is not None)


def column_name(text: str) -> str:
    """Return a valid column name of a store: other characters than letters, digits and _ become _."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text.strip()).strip("_")
    return (name if name[:1].isalpha() else f"p_{name}")[:64]


@dataclass(frozen=True)
class Selection:
    """The properties taken from a file.

    Attributes:
        columns: key in the file -> name in the store.
        quantities: name in the store -> unit and level.
        left_out: numeric keys of the file that were not requested.
    """

    columns: Mapping[str, str]
    quantities: Mapping[str, Quantity]
    left_out: tuple[str, ...] = ()

    def notes(self, others: Iterable[str] = (), kind: str = "other") -> dict[str, str]:
        """Return notes for the store's metadata on the columns that were not taken.

        Args:
            others: columns that hold no properties.
            kind: what these hold.
        """
        left_out = {"columns_left_out": self.left_out, f"{kind}_columns_left_out": tuple(others)}
        return {key: summary_of(names) for key, names in left_out.items() if names}


def as_remarks(notes: Mapping[str, str]) -> dict[str, str]:
    """Return notes of the metadata with the spelling of the report."""
    return {key.replace("_", " "): text for key, text in notes.items()}


def select_properties(stated: Mapping[str, str | None], options: OwnOptions, where: str) -> Selection:
    """Choose the properties of a file and settle their units.

    Args:
        stated: the unit that the file states, or None, by the key of each numeric column.
        options: the user's choice; properties may be named as in the file or as in the store.
        where: the file, for messages.

    Raises:
        InputError: if a requested property is missing, has no unit or two, or two share a name.
    """
    names = {key: column_name(split_header(key)[0]) for key in stated}
    energy = None if options.energy is None else _key(options.energy, names, where, "energy")
    if energy is not None:
        names[energy] = "energy"
    keys = list(names)
    if options.properties is not None:
        keys = [_key(word, names, where, "properties") for word in options.properties]
        keys += [energy] if energy is not None and energy not in keys else []
    units = {
        _key(word, names, where, "unit"): unit for word, unit in options.units.items() if word != "forces"
    }
    quantities: dict[str, Quantity] = {}
    silent: list[str] = []
    for key in keys:
        about = f"{where}: property {key[:40]!r}"
        in_file, given = stated[key], units.get(key)
        unit = in_file if given is None else given
        if unit is None:
            silent.append(key)
            continue
        unit = checked_unit(unit, about)
        if in_file is not None and given is not None and unit != checked_unit(in_file, about):
            raise UnitError(f"{about} is in {in_file!r}, not in {given!r}")
        if names[key] in quantities:
            raise FormatError(f"{where}: two properties would be called {names[key]!r}; rename one of them")
        quantities[names[key]] = Quantity(unit, options.level)
    if silent:
        shown = ", ".join(repr(key[:40]) for key in silent[:8]) + (" …" if len(silent) > 8 else "")
        advice = f"give --option unit.{names[silent[0]]}=eV (1 for a pure number), or choose with properties="
        raise UnitError(f"{where}: no unit is stated for {shown}; {advice}")
    left_out = tuple(key for key in names if key not in keys)
    return Selection({key: names[key] for key in keys}, quantities, left_out)


def _key(word: str, names: Mapping[str, str], where: str, option: str) -> str:
    """Return the key of the file that a word of the user stands for."""
    if word in names:
        return word
    for key, name in names.items():
        if word in (name, split_header(key)[0]):
            return key
    near = hint(word, dict.fromkeys([*names, *names.values()]), label="it has")
    raise NotFoundError(f"{where} has no numeric column {word!r} (option {option}); {near}")


def force_quantity(options: OwnOptions, where: str, key: str | None = None) -> Quantity | None:
    """Return unit and level of the forces, None without forces.

    Args:
        options: the user's choice.
        where: the file, for messages.
        key: key of forces that are read without being requested.

    Raises:
        UnitError: if their unit is not stated.
    """
    if (key or options.forces) is None:
        return None
    if "forces" not in options.units:
        raise UnitError(f"{where}: no unit is stated for the forces; give --option unit.forces=eV/Å")
    return Quantity(checked_unit(options.units["forces"], "option unit.forces"), options.level)


def number(text: str) -> float | None:
    """Parse a cell; None if it marks a missing value (empty, NA, nan, null).

    Raises:
        InputError: if it holds something else, or a number that is not finite.
    """
    word = text.strip()
    if is_missing(word):
        return None
    try:
        value = float(word.replace("_", "?"))  # Python takes 1_000 for a number
    except ValueError as error:
        raise FormatError(f"{word[:40]!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueRangeError(f"{word[:40]!r} is not a finite number")
    return value


def part_of(text: str) -> float | None:
    """Return the number of the part of a split that a cell names (see `SPLIT`), None where it names none.

    Raises:
        ValueRangeError: if it holds another word.
    """
    word = text.strip()
    if is_missing(word):
        return None
    if word.casefold() not in _PARTS:
        raise ValueRangeError(
            f"{word[:40]!r} is no part of a split; write train, val or test, or leave it empty"
        )
    return _PARTS[word.casefold()]


def is_missing(text: str) -> bool:
    """Whether a cell marks a missing value."""
    return text.strip().casefold() in _MISSING


def is_number(text: str) -> bool:
    """Whether a cell holds a number, finite or not."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


class ParsedSpectrum(NamedTuple):
    """One spectrum, and the conversions that were applied, in words that many spectra share."""

    spectrum: LineSpectrum | SampledSpectrum
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParsedRecord:
    """One record of a file, not yet checked; spectra by modality.

    Attributes:
        molecule: builds the structure, coordinates in Å.
        values: properties by their name in the store; NaN where the file has none.
        forces: [N, 3] or None.
        identity: split key that the file gives, None if it gives none.
        spectra: builds each spectrum; one that cannot be built is left out of the row.
    """

    molecule: Callable[[], Molecule]
    values: Mapping[str, float] = field(default_factory=dict)
    forces: npt.NDArray[Any] | None = None
    identity: str | None = None
    spectra: Mapping[str, Callable[[], ParsedSpectrum]] = field(default_factory=dict)


def row_of(record: ParsedRecord) -> Row:
    """Return the row of one record."""
    molecule = record.molecule()
    values = {name: float(value) for name, value in record.values.items() if not np.isnan(value)}
    if record.forces is not None and not np.isfinite(record.forces).all():
        raise ValueRangeError("a force is not a finite number")
    spectra: dict[str, LineSpectrum | SampledSpectrum] = {}
    left_out: dict[str, str] = {}
    changes: list[str] = []
    for name, build in record.spectra.items():
        try:
            spectrum, conversions = build()
            check_spectrum(spectrum)
        except InputError as error:
            left_out[name] = str(error)
            continue
        spectra[name] = spectrum
        changes.extend(f"{name}: {change}" for change in conversions)
    return Row(molecule, spectra, values, record.forces, record.identity, left_out, tuple(changes))


def lines_from_arrays(
    name: str, position: npt.NDArray[Any], intensity: npt.NDArray[Any], level: str
) -> ParsedSpectrum:
    """Sort the lines of a modality, positions and intensities [lines], by position."""
    if position.shape != intensity.shape:
        raise ValueRangeError(f"{len(position)} positions but {len(intensity)} intensities")
    order = np.argsort(position, kind="stable")
    return ParsedSpectrum(LineSpectrum(name, position[order], intensity[order], level))


def summary_of(words: Iterable[str], most: int = 20) -> str:
    """Summarise words for a note: their number, and the first of them."""
    words = list(words)
    shown = ", ".join(words[:most]) + (", …" if len(words) > most else "")
    return f"{len(words)}: {shown}" if words else "0"
