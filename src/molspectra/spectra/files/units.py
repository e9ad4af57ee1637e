"""Words that files use for units and quantities, and the unit or quantity that each one means."""

from __future__ import annotations

import re

from molspectra.errors import UnitError

AXIS_UNITS = ("cm⁻¹", "nm", "µm", "eV")
"""Units that the axis of a measured spectrum can have."""

QUANTITIES: dict[str, str] = {
    "absorbance": "decadic absorbance",
    "transmittance": "transmitted fraction, 0 to 1",
    "percent transmittance": "transmitted fraction in per cent",
    "reflectance": "reflected fraction, 0 to 1",
    "percent reflectance": "reflected fraction in per cent",
    "absorptivity": "anything proportional to absorbance: molar absorptivity, cross section",
    "log absorptivity": "decadic logarithm of the molar absorptivity",
    "intensity": "Raman intensity, counts, arbitrary units",
    "density": "a density per unit of the axis, such as oscillator strength per nm",
}
"""Quantities that the ordinate of a measured spectrum can be, with their meaning."""

_UNIT_WORDS = {
    "1/CM": "cm⁻¹",
    "CM-1": "cm⁻¹",
    "CM^-1": "cm⁻¹",
    "CM⁻¹": "cm⁻¹",
    "CM**-1": "cm⁻¹",
    "CM−1": "cm⁻¹",
    "WAVENUMBER": "cm⁻¹",
    "WAVENUMBERS": "cm⁻¹",
    "RAMAN SHIFT": "cm⁻¹",
    "NANOMETERS": "nm",
    "NANOMETER": "nm",
    "NANOMETRES": "nm",
    "NM": "nm",
    "MICROMETERS": "µm",
    "MICROMETER": "µm",
    "MICROMETRES": "µm",
    "MICRONS": "µm",
    "UM": "µm",
    "ΜM": "µm",  # the capital of µ is a Greek letter
    "EV": "eV",
    "ELECTRONVOLT": "eV",
    "ELECTRONVOLTS": "eV",
    "ELECTRON VOLTS": "eV",
}
_QUANTITY_WORDS = {
    "ABSORBANCE": "absorbance",
    "ABS": "absorbance",
    "ABSORBANCE UNITS": "absorbance",
    "ABSORPTION": "absorbance",
    "OPTICAL DENSITY": "absorbance",
    "TRANSMITTANCE": "transmittance",
    "TRANSMISSION": "transmittance",
    "PERCENT TRANSMITTANCE": "percent transmittance",
    "PERCENT TRANSMISSION": "percent transmittance",
    "TRANSMITTANCE PERCENT": "percent transmittance",
    "REFLECTANCE": "reflectance",
    "PERCENT REFLECTANCE": "percent reflectance",
    "MOLAR ABSORPTIVITY": "absorptivity",
    "ABSORPTIVITY": "absorptivity",
    "EPSILON": "absorptivity",
    "MOLAR EXTINCTION": "absorptivity",
    "MOLAR ABSORPTION COEFFICIENT": "absorptivity",
    "(MICROMOL/MOL)-1M-1 (BASE 10)": "absorptivity",
    "LOGARITHM EPSILON": "log absorptivity",
    "LOG EPSILON": "log absorptivity",
    "LOG(EPSILON)": "log absorptivity",
    "INTENSITY": "intensity",
    "RAMAN INTENSITY": "intensity",
    "COUNTS": "intensity",
    "ARBITRARY UNITS": "intensity",
    "ARB. UNITS": "intensity",
    "A.U.": "intensity",
    "RAMAN ACTIVITY": "intensity",
    "DENSITY": "density",
}


def axis_unit(text: str) -> str | None:
    """Return the axis unit that the word `text` of a file means; None if it is none of `AXIS_UNITS`."""
    return _UNIT_WORDS.get(_plain(text))


def quantity(text: str) -> str | None:
    """Return the quantity that the word `text` of a file means; None if it is none of `QUANTITIES`."""
    word = _plain(text)
    if "%" in word:
        word = {
            "%T": "PERCENT TRANSMITTANCE",
            "T%": "PERCENT TRANSMITTANCE",
            "%R": "PERCENT REFLECTANCE",
        }.get(word.replace(" ", ""), "PERCENT " + _plain(word.replace("%", "")))
    return _QUANTITY_WORDS.get(word)


def asked_unit(unit: str) -> str:
    """Return the axis unit that a user gives in any spelling that files use.

    Raises:
        UnitError: it is none of `AXIS_UNITS`; the message lists them.
    """
    known = axis_unit(unit)
    if known is None:
        raise UnitError(f"unknown unit {unit!r} of a spectral axis; known: {', '.join(AXIS_UNITS)}")
    return known


def asked_quantity(name: str) -> str:
    """Return the quantity that a user gives in any spelling that files use.

    Raises:
        UnitError: it is none of `QUANTITIES`; the message lists them.
    """
    known = name if name in QUANTITIES else quantity(name)
    if known is None:
        raise UnitError(f"unknown quantity {name!r} of a spectrum; known: {', '.join(QUANTITIES)}")
    return known


def header_unit(text: str) -> set[str]:
    """Return all axis units that a header names, by the unit itself or by another word (wavenumber)."""
    plain = _plain(text)
    units = {axis_unit(word) for word in re.split(r"[\s,;()\[\]|\"]+", text)}
    units |= {unit for phrase, unit in _UNIT_WORDS.items() if " " in phrase and phrase in plain}
    return {unit for unit in units if unit is not None}


def header_quantity(text: str) -> set[str]:
    """Return all quantities that a header names; those in per cent if it contains a %."""
    plain = _plain(text)
    words = {quantity(word) for word in re.split(r"[\s,;()\[\]|/\"]+", text)}
    words |= {name for phrase, name in _QUANTITY_WORDS.items() if " " in phrase and phrase in plain}
    names = {name for name in words if name is not None}
    if "%" in plain:
        names = {f"percent {name}" if f"percent {name}" in QUANTITIES else name for name in names}
    return names


def _plain(text: str) -> str:
    """Return the text in upper case, with single spaces in place of blanks and underscores."""
    return " ".join(text.upper().replace("_", " ").split())
