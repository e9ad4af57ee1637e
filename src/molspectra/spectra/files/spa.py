"""Thermo SPA files (OMNIC) of one spectrum: a table of sections, of which two are needed.

The format is not published by its maker; this is the part of it on which public descriptions agree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molspectra.errors import DamagedError, FormatError, UnitError
from molspectra.spectra.files.binary import Bytes
from molspectra.spectra.files.measured import MeasuredSpectrum

MARK = b"Spectral Data File"
"""First bytes of a file."""

_TITLE, _TITLE_SIZE = 30, 256
_COUNT, _TABLE, _ENTRY = 294, 304, 16  # bytes: number of sections, their table, an entry of it
_HEADER, _VALUES = 2, 3  # kinds of sections
_UNITS = {1: "cm⁻¹", 3: "nm", 4: "µm", 32: "cm⁻¹"}
_RAMAN_SHIFT = 32
_QUANTITIES = {
    11: "percent reflectance",
    12: "absorbance",  # log 1/R
    16: "percent transmittance",
    17: "absorbance",
    20: "absorptivity",  # Kubelka-Munk
    31: "intensity",
}
_RAMAN = 31


def read_spa(path: Path, file: Bytes, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the spectrum of a file; `unit` is not needed: a file tells its own.

    Raises:
        InputError: the file is damaged, or holds something else than one spectrum.
    """
    sections: dict[int, list[Bytes]] = {_HEADER: [], _VALUES: []}
    for index in range(file.integer("H", _COUNT)):
        entry = _TABLE + _ENTRY * index
        section = file.integer("B", entry)
        if section in sections:
            offset, size = file.integer("I", entry + 2), file.integer("I", entry + 6)
            sections[section].append(file.part(offset, size))
    found = [len(each) for each in sections.values()]
    if found != [1, 1]:
        raise FormatError(f"an OMNIC file with {found[1]} spectra and {found[0]} headers, and one is read")
    (header,), (numbers,) = sections.values()
    points = header.integer("I", 4)
    if len(numbers.data) != 4 * points:
        raise DamagedError(f"damaged: {points} points, but {len(numbers.data)} bytes of values")
    axis_type, value_type = header.integer("B", 8), header.integer("B", 12)
    if axis_type not in _UNITS:
        raise UnitError(f"its axis is of the type {axis_type}; known: 1 and 32 (cm⁻¹), 3 (nm), 4 (µm)")
    values, (first, last) = numbers.array("f4", 0, points), header.numbers("2f", 16)
    kind = _QUANTITIES.get(value_type, f"of OMNIC type {value_type}")
    raman = axis_type == _RAMAN_SHIFT or value_type == _RAMAN
    return [
        MeasuredSpectrum(
            np.linspace(first, last, points),
            values,
            _UNITS[axis_type],
            kind,
            "raman" if raman else None,
            file.text(_TITLE, _TITLE_SIZE) or path.stem,
            str(path),
            header={"YUNITS": kind},
        )
    ]
