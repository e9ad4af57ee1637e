"""Galactic SPC files (GRAMS, and the export of many instruments): new format of either byte order, and old.

The format is public: Galactic Industries, "Universal Data Format Specification" (1997). Not read with the
package `spc-io`, which knows one byte order of the new format only and needs pandas and pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.errors import DamagedError, FormatError, UnitError
from molspectra.spectra.files.binary import Bytes, check_count, plain
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.files.units import AXIS_UNITS, axis_unit, quantity

VERSIONS = {0x4B: "<", 0x4C: ">", 0x4D: "<"}
"""Second byte of a file, and byte order of its numbers."""

_OLD = 0x4D
_FLOATS = -128  # exponent of values that are no fixed-point fractions
_HEADER, _OLD_HEADER, _SUBHEADER = 512, 224, 32  # bytes
_SHORT, _MULTI, _LABELS, _OWN_AXES, _AXIS = 1, 4, 32, 64, 128  # flags
_AXES = {1: "cm⁻¹", 2: "µm", 3: "nm", 13: "cm⁻¹", 14: "eV"}
_RAMAN_SHIFT = 13
_VALUES = {
    0: "arbitrary",
    2: "absorbance",
    3: "absorptivity",  # Kubelka-Munk
    4: "intensity",
    10: "absorbance",  # log 1/R
    11: "percent",  # of what, the file does not tell
    12: "intensity",
    13: "intensity",
    128: "transmittance",
    129: "reflectance",
}
_FTIR, _OTHER = 4, {1: "chromatogram", 2: "chromatogram", 3: "chromatogram", 8: "X-ray diffractogram"}
_OTHER |= {9: "mass spectrum", 10: "NMR spectrum", 12: "fluorescence spectrum", 13: "atomic spectrum"}
_OTHER |= {14: "chromatogram"}
_ABSORBING = ("absorbance", "absorptivity", "transmittance", "reflectance", "percent")
_MODALITIES = {7: "uv_vis", 11: "raman"}


def is_spc(head: bytes) -> bool:
    """Whether a file with these first bytes is in this format; a text file holds no NUL."""
    return len(head) > 31 and head[1] in VERSIONS and b"\0" in head[:32]


@dataclass(frozen=True)
class _Header:
    """Facts of the main header; `start` is where the data begin."""

    flags: int
    technique: int
    exponent: int
    points: int
    ends: tuple[float, float]
    count: int
    types: tuple[int, int]
    title: str
    labels: list[str]
    start: int

    @classmethod
    def read(cls, file: Bytes) -> _Header:
        flags, version = file.data[0], file.data[1]
        if version == _OLD:
            exponent = file.integer("h", 2)
            points, first, last = file.numbers("3f", 4)
            technique, count = 0, 1
            types, comment, labels, start = 16, 64, 194, _OLD_HEADER
        else:
            technique, exponent = file.integer("B", 2), file.integer("b", 3)
            points, first, last = file.integer("I", 4), *file.numbers("2d", 8)
            count = file.integer("I", 24)
            types, comment, labels, start = 28, 88, 218, _HEADER
        if not 0 <= points <= len(file.data):  # also nan and infinity
            raise DamagedError(f"damaged: it announces {points:g} points")
        words = file.data[labels : labels + 30].decode("latin-1").split("\0")
        return cls(
            flags,
            technique,
            exponent,
            int(points),
            (first, last),
            count,
            (file.integer("B", types), file.integer("B", types + 1)),
            file.text(comment, 130),
            [plain(word) for word in words[:2]] if flags & _LABELS else ["", ""],
            start,
        )


def read_spc(path: Path, file: Bytes, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the spectra of a file; `unit` is that of an axis whose unit the file does not tell.

    Raises:
        InputError: the file is damaged, holds something else than spectra, or does not tell the unit.
    """
    file = replace(file, order=VERSIONS[file.data[1]])
    header, old = _Header.read(file), file.data[1] == _OLD
    if header.technique in _OTHER:
        raise FormatError(f"an SPC file that holds a {_OTHER[header.technique]}")
    flags, (x_type, y_type), (x_label, y_label) = header.flags, header.types, header.labels
    if old and flags & (_MULTI | _OWN_AXES | _AXIS):
        raise FormatError(
            "an SPC file of the old format with several spectra or listed positions is not read"
        )
    count = header.count if flags & _MULTI else 1
    check_count(count)
    axis_of_file = axis_unit(x_label) if x_label else _AXES.get(x_type)
    if axis_of_file is None and (x_label or x_type):
        raise UnitError(f"its axis is {x_label[:40]!r} or of type {x_type}, none of {', '.join(AXIS_UNITS)}")
    if axis_of_file is None and unit is None:
        raise UnitError(f"the file does not tell the unit of its axis; give one of {', '.join(AXIS_UNITS)}")
    kind = (quantity(y_label) or y_label.lower()) if y_label else _VALUES.get(y_type, f"of SPC type {y_type}")
    raman = x_type == _RAMAN_SHIFT or "raman" in x_label.lower()
    modality = "raman" if raman else _MODALITIES.get(header.technique)
    if modality is None and header.technique == _FTIR and axis_of_file in ("cm⁻¹", "µm"):
        modality = "ir" if kind in _ABSORBING else None  # FT-Raman has the same technique, and intensities
    position = header.start
    position = header.start
    axis: npt.NDArray[np.float64] | None = None
    if flags & _AXIS and not flags & _OWN_AXES:
        axis = file.array("f4", position, header.points)
        position += 4 * header.points
    spectra = []
    for number in range(1, count + 1):
        own = file.integer("b", position + 1)  # of a single spectrum, 0 or the same as in the main header
        exponent, other = (own, header.exponent) if flags & _MULTI else (header.exponent, own)
        floats = _FLOATS in (exponent, other)
        if other not in (0, exponent) and (floats or not flags & _MULTI):
            raise FormatError(f"spectrum {number}: its two headers differ on the exponent of its numbers")
        points = file.integer("I", position + 16) if flags & _OWN_AXES else header.points
        position += _SUBHEADER
        if flags & _OWN_AXES:
            axis = file.array("f4", position, points)
            position += 4 * points
        form = "f4" if floats else "i2" if flags & _SHORT else "i4"
        values = file.array(form, position, points)
        if old and form == "i4":  # the high word stands first
            words = file.array("u2", position, 2 * points).reshape(-1, 2)
            values = (words[:, 0] * 2.0**16 + words[:, 1] + 2.0**31) % 2.0**32 - 2.0**31
        position += points * int(form[1])
        spectra.append(
            MeasuredSpectrum(
                np.linspace(*header.ends, points) if axis is None else axis,
                values if floats else values * 2.0 ** (exponent - 8 * int(form[1])),
                axis_of_file or str(unit),
                kind,
                modality,
                header.title or path.stem,
                f"{path}, spectrum {number}" if count > 1 else str(path),
                header={"YUNITS": y_label or kind},
            )
        )
    return spectra
