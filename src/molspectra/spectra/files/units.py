"""Names that files give to units and quantities, and what they mean here."""

from __future__ import annotations

import re

from molspectra.errors import InputError

AXIS_UNITS = ("cm⁻¹", "nm", "µm", "eV")
"""Units of the axis of a measured spectrum."""

QUANTITIES: dict[str, str] = {
    "absorbance": "decadic absorbance",
    "transmittance": "transmitted fraction, 0 to 1",
    "percent transmittance": "transmitted part in per cent",
    "reflectance": "reflected fraction, 0 to 1",
    "percent reflectance": "reflected part in per cent",
    "absorptivity": "anything proportional to absorbance: molar absorptivity, cross section",
    "log absorptivity": "decadic logarithm of the molar absorptivity",
    "intensity": "Raman intensity, counts, arbitrary units",
    "density": "a density per unit of the axis, such as oscillator strength per nm",
}
"""What the ordinate of a measured spectrum can be."""

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
    """The unit of an axis that a file calls `text`, None where it is none of `AXIS_UNITS`."""
    return _UNIT_WORDS.get(_plain(text))


def quantity(text: str) -> str | None:
    """The quantity of an ordinate that a file calls `text`, None where it is none of `QUANTITIES`."""
    word = _plain(text)
    if "%" in word:
        word = {
            "%T": "PERCENT TRANSMITTANCE",
            "T%": "PERCENT TRANSMITTANCE",
            "%R": "PERCENT REFLECTANCE",
        }.get(word.replace(" ", ""), "PERCENT " + _plain(word.replace("%", "")))
    return _QUANTITY_WORDS.get(word)


def asked_unit(unit: str) -> str:
    """The unit that a user names.

    Raises:
        InputError: if it is none of `AXIS_UNITS`; the message lists them.
    """
    found = unit if unit in AXIS_UNITS else axis_unit(unit)
    if found is None:
        raise InputError(f"unknown unit {unit!r} of a spectral axis; known: {', '.join(AXIS_UNITS)}")
    return found


def asked_quantity(name: str) -> str:
    """The quantity that a user names.

    Raises:
        InputError: if it is none of `QUANTITIES`; the message lists them.
    """
    found = name if name in QUANTITIES else quantity(name)
    if found is None:
        raise InputError(f"unknown quantity {name!r} of a spectrum; known: {', '.join(QUANTITIES)}")
    return found


def header_unit(text: str) -> set[str]:
    """All units of an axis that a header of text names, as a unit or as a word for it."""
    found = {axis_unit(word) for word in re.split(r"[\s,;()\[\]|\"]+", text)}
    found |= {axis_unit(word) for word in _UNIT_WORDS if " " in word and word in _plain(text)}
    return {unit for unit in found if unit is not None}


def header_quantity(text: str) -> set[str]:
    """All quantities of an ordinate that a header of text names; percentages where a % stands in it."""
    plain = _plain(text)
    found = {quantity(word) for word in re.split(r"[\s,;()\[\]|/\"]+", text)}
    found |= {each for word, each in _QUANTITY_WORDS.items() if " " in word and word in plain}
    names = {name for name in found if name is not None}
    if "%" in plain:
        names = {f"percent {name}" if f"percent {name}" in QUANTITIES else name for name in names}
    return names


def _plain(text: str) -> str:
    """Upper case, single spaces."""
    return " ".join(text.upper().replace("_", " ").split())
