"""Renishaw WDF files (WiRE) of one or a few spectra: blocks of a name and a size."""

from __future__ import annotations

from pathlib import Path

from molspectra.errors import DamagedError, UnitError
from molspectra.spectra.files.binary import Bytes, check_count
from molspectra.spectra.files.measured import MeasuredSpectrum

MARK = b"WDF1"
"""First bytes of a file."""

_BLOCK = 16  # bytes of name, number and size
_POINTS, _COUNT, _VALUES, _TITLE, _TITLE_SIZE = 60, 72, 152, 240, 160  # in the first block
_RAMAN_SHIFT = 1
_UNITS = {_RAMAN_SHIFT: "cm⁻¹", 3: "nm", 4: "eV", 5: "µm"}
_QUANTITIES = {0: "arbitrary", 6: "intensity", 7: "intensity", 17: "intensity", 18: "intensity"}


def read_wdf(path: Path, file: Bytes, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the spectra of a file; `unit` is not needed: a file tells its own.

    Raises:
        InputError: the file is damaged, holds a map, or the unit of its axis is none of a spectrum.
    """
    points, count = file.integer("I", _POINTS), file.integer("Q", _COUNT)
    check_count(count)
    blocks: dict[bytes, Bytes] = {}
    position = 0
    while position + _BLOCK <= len(file.data) and len(blocks) < 100:
        size = file.integer("Q", position + 8)
        if size < _BLOCK:
            raise DamagedError(f"damaged: a block of {size} bytes at byte {position}")
        blocks.setdefault(file.data[position : position + 4], file.part(position, size))
        position += size
    for name in (b"XLST", b"DATA"):
        if name not in blocks:
            raise DamagedError(f"damaged or cut short: its block {name.decode()} is missing")
    axis_type = blocks[b"XLST"].integer("I", _BLOCK + 4)
    if axis_type not in _UNITS:
        raise UnitError(
            f"its axis is of the type {axis_type}; known: 1 (Raman shift), 3 (nm), 4 (eV), 5 (µm)"
        )
    axis = blocks[b"XLST"].array("f4", _BLOCK + 8, points)
    value_type = file.integer("I", _VALUES)
    kind = _QUANTITIES.get(value_type, f"of WDF type {value_type}")
    return [
        MeasuredSpectrum(
            axis,
            blocks[b"DATA"].array("f4", _BLOCK + 4 * points * index, points),
            _UNITS[axis_type],
            "intensity" if kind == "arbitrary" and axis_type == _RAMAN_SHIFT else kind,
            "raman" if axis_type == _RAMAN_SHIFT else None,
            file.text(_TITLE, _TITLE_SIZE) or path.stem,
            f"{path}, spectrum {index + 1}" if count > 1 else str(path),
            header={"YUNITS": kind},
        )
        for index in range(count)
    ]
