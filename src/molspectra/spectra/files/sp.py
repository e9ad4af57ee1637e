"""PerkinElmer .sp files of one spectrum (Spectrum, UV WinLab): nested blocks of a number and a size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from molspectra.errors import DamagedError, FormatError, UnitError
from molspectra.spectra.files.binary import Bytes
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.files.units import AXIS_UNITS, axis_unit, quantity

MARK = b"PEPE"
"""First bytes of a file."""

_BLOCKS = 44  # where they begin, behind the mark and a description
_CONSTANT_INTERVAL = 120  # number of the block of a spectrum with even steps
# members of that block: a word for the type of their value, then the value
_RANGE, _POINTS, _X_LABEL, _Y_LABEL, _DATA, _ALIAS = -29838, -29835, -29833, -29832, -29828, -29823


def read_sp(path: Path, file: Bytes, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the spectrum of a file; `unit` is that of an axis that has no label.

    Raises:
        InputError: the file is damaged, or holds something else than one spectrum with even steps.
    """
    blocks = [part for number, part in _parts(file, _BLOCKS) if number == _CONSTANT_INTERVAL]
    if len(blocks) != 1:
        raise FormatError(f"a PerkinElmer file with {len(blocks)} spectra of even steps (an image?), not one")
    members = dict(_parts(blocks[0], 0))
    for number, name in ((_RANGE, "range"), (_POINTS, "number of points"), (_DATA, "values")):
        if number not in members:
            raise DamagedError(f"damaged or cut short: the {name} of the spectrum is missing")
    labels = [_text(members[number]) if number in members else "" for number in (_X_LABEL, _Y_LABEL, _ALIAS)]
    x_label, y_label, title = labels
    unit_of_file = axis_unit(x_label)
    if unit_of_file is None and x_label:
        raise UnitError(f"its axis is {x_label[:40]!r}, none of {', '.join(AXIS_UNITS)}")
    if unit_of_file is None and unit is None:
        raise UnitError(f"the file does not tell the unit of its axis; give one of {', '.join(AXIS_UNITS)}")
    points, size = members[_POINTS].integer("i", 2), members[_DATA].integer("I", 2)
    if size != 8 * points:
        raise DamagedError(f"damaged: {points} points, but {size} bytes of values")
    values = members[_DATA].array("f8", 6, points)
    first, last = members[_RANGE].numbers("2d", 2)
    kind = (quantity(y_label) or y_label.lower()) if y_label else "arbitrary"
    axis = np.linspace(first, last, points)
    facts = (
        unit_of_file or str(unit),
        kind,
        None,
        title or path.stem,
        str(path),
        (),
        {"YUNITS": y_label or kind},
    )
    return [MeasuredSpectrum(axis, values, *facts)]


def _parts(file: Bytes, position: int) -> Iterator[tuple[int, Bytes]]:
    """Yield number and content of the blocks from a position on."""
    while position + 6 <= len(file.data):
        number, size = file.integer("h", position), file.integer("i", position + 2)
        yield number, file.part(position + 6, size)
        position += 6 + size


def _text(member: Bytes) -> str:
    """Return the text in a member: a word for its type, its length, and its characters."""
    return member.text(4, member.integer("H", 2))
