"""Words that files use for units, quantities and modalities, and what each one means."""

from __future__ import annotations

import re
from collections.abc import Collection

from molspectra.errors import UnitError

AXIS_UNITS = ("cm⁻¹", "nm", "µm", "eV")
"""Units that the axis of a measured spectrum can have."""

QUANTITIES: dict[str, str] = {
    "absorbance": "decadic absorbance",
    "transmittance": "transmitted fraction, 0 to 1",
    "percent transmittance": "transmitted fraction in per cent",
    "reflectance": "reflected fraction, 0 to 1",
    "percent reflectance": "reflected fraction in per cent",
    "percent absorption": "absorbed fraction in per cent, 100 less the percent transmittance",
    "absorptivity": "anything proportional to absorbance: molar absorptivity, cross section",
    "log absorptivity": "decadic logarithm of the molar absorptivity",
    "intensity": "Raman intensity, counts, arbitrary units",
    "density": "a density per unit of the axis, such as oscillator strength per nm",
}
"""Quantities that the ordinate of a measured spectrum can be, with their meaning."""

_UNIT_WORDS = {
    "CM-1": "cm⁻¹",
    "WAVENUMBER": "cm⁻¹",
    "WAVENUMBERS": "cm⁻¹",
    "WAVE NUMBER": "cm⁻¹",
    "WELLENZAHL": "cm⁻¹",
    "RAMAN SHIFT": "cm⁻¹",
    "NANOMETERS": "nm",
    "NANOMETER": "nm",
    "NANOMETRES": "nm",
    "NANOMETRE": "nm",
    "NM": "nm",
    "MICROMETERS": "µm",
    "MICROMETER": "µm",
    "MICROMETRES": "µm",
    "MICROMETRE": "µm",
    "MICRONS": "µm",
    "MICRON": "µm",
    "UM": "µm",
    "ΜM": "µm",  # the capital of µ is a Greek letter
    "EV": "eV",
    "ELECTRONVOLT": "eV",
    "ELECTRONVOLTS": "eV",
    "ELECTRON VOLT": "eV",
    "ELECTRON VOLTS": "eV",
}
_QUANTITY_WORDS = {
    "ABSORBANCE": "absorbance",
    "ABS": "absorbance",
    "OPTICAL DENSITY": "absorbance",
    "EXTINCTION": "absorbance",
    "EXTINKTION": "absorbance",
    "ABSORBTION": "absorption",
    "ABSORPTION": "absorption",  # absorbance, but in per cent the absorbed fraction
    "TRANSMITTANCE": "transmittance",
    "TRANSMISSION": "transmittance",
    "REFLECTANCE": "reflectance",
    "MOLAR ABSORPTIVITY": "absorptivity",
    "ABSORPTIVITY": "absorptivity",
    "EPSILON": "absorptivity",
    "EPS": "absorptivity",
    "ε".upper(): "absorptivity",
    "MOLAR EXTINCTION": "absorptivity",
    "EXTINCTION COEFFICIENT": "absorptivity",
    "MOLAR EXTINCTION COEFFICIENT": "absorptivity",
    "ABSORPTION COEFFICIENT": "absorptivity",
    "MOLAR ABSORPTION COEFFICIENT": "absorptivity",
    "ABSORPTION CROSS SECTION": "absorptivity",
    "CROSS SECTION": "absorptivity",
    "INTENSITY": "intensity",
    "INTENS": "intensity",
    "CNT": "intensity",
    "CPS": "intensity",
    "COUNTS": "intensity",
    "ARBITRARY": "arbitrary",  # intensity, but also the unit of other quantities
    "ARB": "arbitrary",
    "A.U.": "arbitrary",
    "RAMAN ACTIVITY": "intensity",
    "DENSITY": "density",
}
_ARBITRARY = {"arbitrary": "intensity"}
_NIST_ABSORPTIVITY = "(MICROMOL/MOL)-1M-1 (BASE 10)"
_IN_PER_CENT = {
    "transmittance": "percent transmittance",
    "reflectance": "percent reflectance",
    "absorption": "percent absorption",
    "absorbance": "percent absorbance",  # could be the absorbed fraction too: none of `QUANTITIES`
}


def _any_of(words: dict[str, str]) -> str:
    """Return a pattern of any of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_MINUS = "[-−–—‐‑\u00ad⁻]"
# spellings of a reciprocal: cm^-1, cm**-1, cm⁻¹, cm^{-1}, cm\+(-1)
_RECIPROCAL = re.compile(
    r"(?<![^\W\d_])(CM|MOL|M) ?(?:\^|\*\*|\\\+|<SUP>)? ?(?P<open>[({])? ?"
    rf"{_MINUS} ?[1¹](?!\d)(?(open) ?[)}}])(?:</SUP>)?"
)
_PER_CM = re.compile(r"(?<![\w.])1 ?/ ?CM(?!\w)")
# M⁻¹ cm⁻¹ and its like belong to an ordinate
_MOLAR = re.compile(
    r"(?:MOL|M)-1 ?[·⋅*.×/]? ?(?:(?:L|DM3|DM\^3|DM³) ?)?[·⋅*.]? ?CM-1|CM-1 ?[·⋅*.×/]? ?(?:MOL|M)-1"
)
# 785 nm, 4 cm⁻¹ and 5 % are amounts, not the unit of a column
_AMOUNT = re.compile(r"(?<![\w.,])\d[\d.,]* ?(?:CM-1|NM|ΜM|UM|EV|%)(?!\w)")
_UNIT = re.compile(rf"(?<!\w)(?:{_any_of(_UNIT_WORDS)})(?!\w)")
_BRACKETS = re.compile(
    r"(?:WAVELENGTHS?|WAVE ?NUMBERS?|ENERGY|FREQUENCY|RAMAN SHIFT) ?[(\[] ?([^\s()\[\]]{1,5}) ?[)\]]"
)
_LOG_RATIO = re.compile(
    rf"(?<![^\W\d_])(?:LOG ?(?:10)? ?\(? ?1 ?/ ?[TR]|{_MINUS} ?LOG ?(?:10)? ?\(? ?[TR])(?!\w) ?\)?"
)
_LETTER = re.compile(r"% ?([TR])(?!\w)|(?<!\w)([TR]) ?[(\[/]? ?%|PER ?CENT ([TR])(?!\w)")
_PER_CENT = re.compile(r"%|(?<!\w)(?:PER ?CENT|PCT)(?![^\W_])")
_ONLY_PER_CENT = re.compile(r"[\s()\[\]/]*%[\s()\[\]]*")
_QUANTITY = re.compile(
    r"(?<![^\W\d_])(?P<log>(?:LOG(?:ARITHM)? ?(?:10)?(?: OF)?|LG) ?\(? ?)?"
    rf"(?P<name>{_any_of(_QUANTITY_WORDS)})(?![^\W_])"
)
_OTHER = re.compile(r"DERIVATIVE|VARIANCE|DEVIATION|UNCERTAINTY|ERROR")
_SETTING = re.compile(r"[=:] ?[-+]?[\d.]")
_MODALITIES = {
    "raman": re.compile(r"(?<![^\W\d_])RAMAN(?![^\W_])"),
    "ir": re.compile(r"(?<![^\W\d_])(?:INFRA-?RED|FT-?IR)"),
    "uv_vis": re.compile(r"(?<![^\W\d_])(?:UV|ULTRA-?VIOLET)"),
}


def axis_unit(text: str) -> str | None:
    """Return the axis unit that the words `text` of a file mean; None if they name none, or several."""
    units = _units(text)
    return units.pop() if len(units) == 1 and units <= set(AXIS_UNITS) else None


def quantity(text: str) -> str | None:
    """Return the quantity that the words `text` of a file mean; None if it is none of `QUANTITIES`."""
    names = set(map(known_quantity, named_quantities(text)))
    return names.pop() if len(names) == 1 and names <= set(QUANTITIES) else None


def named_modality(text: str) -> str | None:
    """Return the modality that the words `text` of a file name; None if they name none, or several."""
    names = [name for name, pattern in _MODALITIES.items() if pattern.search(text.upper())]
    return names[0] if len(names) == 1 else None


def known_quantity(name: str) -> str:
    """Return the quantity that a name of `header_names` stands for: arbitrary is an intensity."""
    return _ARBITRARY.get(name, name)


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


def settled(given: str, named: Collection[str]) -> str | None:
    """Return the unit or quantity on which a user and a file agree; None if they contradict each other.

    Args:
        given: one of `AXIS_UNITS` or `QUANTITIES`, as the user says.
        named: all units or quantities that the file names; none says nothing.

    What only one of them calls per cent is in per cent. Arbitrary units may be of any quantity, and a per
    cent absorbance could be the absorbed fraction, so there the user decides.
    """
    if not named or given in named or {"arbitrary", "percent absorbance"} & set(named):
        return given
    if f"percent {given}" in named:
        return f"percent {given}"
    return given if given.removeprefix("percent ") in named else None


def header_names(lines: list[list[str]]) -> tuple[set[str], set[str]]:
    """Return the axis units and the quantities that a header names, given the fields of its lines.

    The line nearest to the data that names one decides: it heads the columns. A line of two fields whose
    first one is of these words names the unit in the first and the quantity in the second. Amounts (785 nm,
    5 %) name nothing; a setting (Laser (nm)=532) does if no other line names a unit or quantity, and so does
    "a.u." (arbitrary), which is also the unit of others. A % counts beside the quantity, or alone below it.
    A second column with another heading has no known quantity, whatever stands above it.
    """
    settings: list[tuple[str, str]] = []
    columns: list[tuple[str, str]] = []
    for fields in lines:
        text = " ".join(fields)
        two = len(fields) == 2 and bool(_units(fields[0]) or named_quantities(fields[0]))
        setting = _SETTING.search(_normal(text)) is not None
        (settings if setting else columns).append((fields[0], fields[1]) if two else (text, text))
    columns = settings + columns
    units = next((units for x, _ in reversed(columns) if (units := _units(x))), set())
    named = [named_quantities(y) for _, y in columns]
    heads = [index for index, (x, y) in enumerate(columns) if x != y and _units(x)]
    if heads and not named[heads[-1]] and re.search(r"[^\W\d_]", _normal(columns[heads[-1]][1])):
        named[: heads[-1]] = [set()] * heads[-1]
    chosen = [index for index, names in enumerate(named) if names - {"arbitrary"}]
    chosen = chosen or [index for index, names in enumerate(named) if names]
    if not chosen:
        return units, set()
    quantities = named[chosen[-1]]
    if any(_ONLY_PER_CENT.fullmatch(y) for _, y in columns[chosen[-1] + 1 :]):
        quantities = {_IN_PER_CENT.get(name, name) for name in quantities}
    return units, quantities


def _units(text: str) -> set[str]:
    """Return all axis units that a text names, by the unit itself or by another word (wavenumber).

    A unit in brackets that is none of `AXIS_UNITS` (wavelength (Å)) is returned as it is.
    """
    plain = _normal(text)
    others = {word for word in _BRACKETS.findall(plain) if not _UNIT.search(word)}
    return others or {_UNIT_WORDS[word] for word in _UNIT.findall(plain)}


def named_quantities(text: str) -> set[str]:
    """Return all quantities that a text names; some are none of `QUANTITIES` (arbitrary, log absorbance)."""
    if _NIST_ABSORPTIVITY in _plain(text):
        return {"absorptivity"}
    plain = _LOG_RATIO.sub("ABSORBANCE", _normal(text))
    if plain == "A":  # as a word among others it is an article
        return {"absorbance"}
    if _OTHER.search(plain):
        return set()
    plain = _LETTER.sub(
        lambda match: f" % {'REFLECTANCE' if 'R' in match.groups() else 'TRANSMITTANCE'} ", plain
    )
    names = set()
    for match in _QUANTITY.finditer(plain):
        name = _QUANTITY_WORDS[match["name"]]
        if _PER_CENT.search(plain):
            name = _IN_PER_CENT.get(name, name)
        name = "absorbance" if name == "absorption" else name
        names.add(f"log {name}" if match["log"] else name)
    return names - {"arbitrary"} or names


def _normal(text: str) -> str:
    """Return the text as `_plain`, every reciprocal centimetre as CM-1, without amounts and molar units."""
    plain = _PER_CM.sub("CM-1", _RECIPROCAL.sub(r"\1-1", _plain(text)))
    return _AMOUNT.sub(" ", _MOLAR.sub(" ", plain))


def _plain(text: str) -> str:
    """Return the text in upper case, with single spaces in place of blanks and underscores."""
    return " ".join(text.upper().replace("_", " ").split())
