"""JCAMP-DX files of infrared, Raman and UV-Vis spectra (versions 4.24 and 5.0).

Not read with the package `jcamp` 1.3, which only prints a message when a line fails its check or the number
of values is wrong, reads the text NaN as packed digits, and lets a second block overwrite the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.errors import DamagedError, FormatError, InputError, UnitError, ValueRangeError
from molspectra.spectra.files.asdf import Lines, Table, pairs
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.files.text import decoded_lines
from molspectra.spectra.files.units import AXIS_UNITS, axis_unit, named_modality, quantity

MAX_POINTS = 4_000_000
"""A header that announces more points than this is refused."""

_TABLES = ("XYDATA", "XYPOINTS")
_UNSUPPORTED = {
    "PEAKTABLE": "a table of peaks, not a spectrum",
    "PEAKASSIGNMENTS": "a table of peaks, not a spectrum",
    "NTUPLES": "an NTUPLES block (NMR or mass spectrum)",
    "DATATABLE": "an NTUPLES block (NMR or mass spectrum)",
    "RADATA": "an interferogram",
}
_UNSUPPORTED_TYPES = ("NMR", "MASS", "INTERFEROGRAM")
_ONCE = (*_TABLES, "NPOINTS", "FIRSTX", "LASTX", "XFACTOR", "YFACTOR")
_NUMBERS = ("FIRSTX", "LASTX", "XFACTOR", "YFACTOR", "DELTAX", "FIRSTY")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")


@dataclass
class Block:
    """One block of a file; labels are in capitals, without spaces, dashes and underscores.

    Attributes:
        line: line number of its ##TITLE=.
        entries: value by label; for a table the first line only.
        tables: lines of each table by its label.
    """

    line: int
    entries: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Lines] = field(default_factory=dict)


def read_jcamp(path: Path) -> list[MeasuredSpectrum]:
    """Read all spectra of a JCAMP-DX file, those of a LINK block in their order.

    An ordinate that is not one of `QUANTITIES` (a variance, say) keeps the word of the file as `quantity`,
    and is refused on conversion.

    Raises:
        InputError: the file is not JCAMP-DX, is damaged, or holds no spectrum; the message names the line.
    """
    spectra, unsupported = [], []
    for block in _blocks(path):
        kind = block.entries.get("DATATYPE", "").upper()
        if kind == "LINK":
            continue
        table = next((name for name in _TABLES if name in block.tables), None)
        if table is None:
            unsupported.append(
                next((text for name, text in _UNSUPPORTED.items() if name in block.tables), "no data")
            )
            continue
        try:
            spectra.append(_spectrum(path, block, table))
        except InputError as error:
            title = block.entries.get("TITLE", "").strip()[:40]
            raise error.with_context(f"{path}, block {title!r} (line {block.line})") from error
    if not spectra:
        reason = f": {unsupported[0]}" if unsupported else ""
        raise FormatError(f"{path}: a JCAMP-DX file without an infrared, Raman or UV-Vis spectrum{reason}")
    return spectra


def _blocks(path: Path) -> list[Block]:
    """Split a file into its blocks, in the order of their first lines; LINK blocks contain others."""
    blocks: list[Block] = []
    open_blocks: list[Block] = []
    table: Lines | None = None
    for number, raw in enumerate(decoded_lines(path), start=1):
        line = raw.partition("$$")[0]
        if not line.lstrip().startswith("##"):
            if line.strip():
                if not open_blocks:
                    raise FormatError(f"{path}, line {number}: not a JCAMP-DX file; it begins with ##TITLE=")
                if table is not None:
                    table.append((number, line))
            continue
        label, equals, value = line.lstrip()[2:].partition("=")
        name, value = re.sub(r"[\s_/-]", "", label).upper(), value.strip()
        if not equals and name != "END":
            raise FormatError(f"{path}, line {number}: {line.strip()[:40]!r} has no '='")
        if name == "TITLE":
            open_blocks.append(Block(number))
            blocks.append(open_blocks[-1])
        if not open_blocks:
            raise FormatError(
                f"{path}, line {number}: ##{name[:20]}= outside of a block; ##TITLE= begins one"
            )
        table = None
        if name == "END":
            open_blocks.pop()
            continue
        entries = open_blocks[-1].entries
        if name in _ONCE and name in entries and (name in _TABLES or entries[name] != value):
            raise FormatError(f"{path}, line {number}: a second ##{name}= in one block")
        entries.setdefault(name, value)
        if name in _TABLES or name in _UNSUPPORTED:
            table = open_blocks[-1].tables.setdefault(name, [])
    if not blocks:
        raise FormatError(f"{path}: not a JCAMP-DX file; it holds no ##TITLE=")
    if open_blocks:
        line_number = open_blocks[0].line
        raise DamagedError(f"{path}: the block of line {line_number} has no ##END=: the file is truncated")
    return blocks


def _spectrum(path: Path, block: Block, table: str) -> MeasuredSpectrum:
    """Return the spectrum of a block, from the table with that label."""
    entries, lines = block.entries, block.tables[table]
    kind = entries.get("DATATYPE", "").upper()
    if any(word in kind for word in _UNSUPPORTED_TYPES):
        raise FormatError(f"its DATA TYPE is {kind[:40]!r}, not infrared, Raman or UV-Vis")
    for name in ("XUNITS", "YUNITS"):
        if name not in entries:
            raise UnitError(f"it has no ##{name}=")
    unit = axis_unit(entries["XUNITS"])
    if unit is None:
        raise UnitError(f"XUNITS={entries['XUNITS'][:40]!r} is none of {', '.join(AXIS_UNITS)}")
    if any(_DECIMAL_COMMA.search(entries.get(name, "")) for name in _NUMBERS):
        lines = [(number, _DECIMAL_COMMA.sub(".", line)) for number, line in lines]
    form = re.sub(r"\s", "", entries[table]).upper()
    remarks: list[str] = []
    if form.startswith("(X++(Y..Y))"):
        axis, values = _evenly_spaced(entries, lines, remarks)
    elif form.startswith("(XY..XY)"):
        axis, values = _pairs(entries, lines)
    else:
        raise FormatError(f"{table} of the form {form[:20]!r} is not read; known: (X++(Y..Y)) and (XY..XY)")
    undefined = np.isnan(values)
    if undefined.any():
        remarks.append(f"{int(undefined.sum())} of {len(values)} points without a value ('?') left out")
    title = entries.get("TITLE", "")
    return MeasuredSpectrum(
        axis[~undefined],
        values[~undefined],
        unit,
        quantity(entries["YUNITS"]) or entries["YUNITS"].lower()[:60],
        named_modality(kind),
        title,
        f"{path}, block {title[:40]!r}",
        tuple(remarks),
        header={key: value for key, value in entries.items() if key not in _TABLES},
    )


def _evenly_spaced(
    entries: dict[str, str], lines: Lines, remarks: list[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return axis [n] and values [n] of a table (X++(Y..Y)), checked against what the header says.

    A value that is undefined is nan; a wrong FIRSTY, which is optional, is added to `remarks`.
    """
    count = _count(entries)
    first, last = _number(entries, "FIRSTX"), _number(entries, "LASTX")
    x_factor, y_factor = _number(entries, "XFACTOR", 1.0), _number(entries, "YFACTOR", 1.0)
    if 0.0 in (x_factor, y_factor):
        raise ValueRangeError("XFACTOR and YFACTOR cannot be 0")
    table = Table(count)
    for number, line in lines:
        table.read(number, line)
    if len(table.values) != count:
        raise DamagedError(f"NPOINTS={count}, but there are {len(table.values)} values: truncated or damaged")
    axis = np.linspace(first, last, count)
    step = (last - first) / (count - 1)
    for start, index, number in table.starts:
        expected = float(axis[min(index, count - 1)])
        if abs(start * x_factor - expected) > 1.01 * abs(step) + 0.51 * abs(x_factor):
            raise DamagedError(
                f"line {number}: begins at {start * x_factor:.6g} where FIRSTX, LASTX and NPOINTS give "
                f"{expected:.6g}: lines are missing or damaged"
            )
    given = _number(entries, "DELTAX") if entries.get("DELTAX") else step
    if not 0.9 < (abs(given) if step < 0 else given) / (abs(step) or 1.0) < 1.1:  # often without its sign
        raise DamagedError(f"DELTAX={entries['DELTAX']} does not fit FIRSTX, LASTX and NPOINTS ({step:.6g})")
    values = np.array(table.values) * y_factor
    if entries.get("FIRSTY"):
        first_y, slack = _number(entries, "FIRSTY"), 0.01 * float(np.nanmax(np.abs(values), initial=0.0))
        if min(abs(first_y - values[0]), abs(first_y - table.values[0])) > slack:
            remarks.append(f"FIRSTY={first_y:g}, but the first value times YFACTOR is {values[0]:g}")
    return axis, values


def _pairs(entries: dict[str, str], lines: Lines) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return axis [n] and values [n] of a table (XY..XY)."""
    most = _count(entries) if "NPOINTS" in entries else MAX_POINTS
    points = pairs(lines, most)
    if "NPOINTS" in entries and len(points) != most:
        raise DamagedError(f"NPOINTS={most}, but there are {len(points)} points: truncated or damaged")
    axis = points[:, 0] * _number(entries, "XFACTOR", 1.0)
    values = points[:, 1] * _number(entries, "YFACTOR", 1.0)
    if len(axis) > 1:
        slack = 0.51 * abs(axis[-1] - axis[0]) / (len(axis) - 1)
        for name, position in (("FIRSTX", axis[0]), ("LASTX", axis[-1])):
            if name in entries and abs(_number(entries, name) - position) > slack:
                raise DamagedError(f"{name}={entries[name]}, but the table has {position:g} there")
    return axis, values


def _count(entries: dict[str, str]) -> int:
    """Return NPOINTS, from 2 to `MAX_POINTS`."""
    if "NPOINTS" not in entries:
        raise FormatError("it has no ##NPOINTS=")
    text = entries["NPOINTS"]
    if not re.fullmatch(r"\d{1,9}", text) or not 2 <= int(text) <= MAX_POINTS:
        raise ValueRangeError(f"NPOINTS={text[:20]!r} is not a number from 2 to {MAX_POINTS}")
    return int(text)


def _number(entries: dict[str, str], name: str, default: float | None = None) -> float:
    """Return the finite number of an entry; without a default the entry must exist."""
    if name not in entries and default is not None:
        return default
    text = entries.get(name, "").strip()
    try:
        value = float(_DECIMAL_COMMA.sub(".", text))
    except ValueError as error:
        what = f"##{name}={text[:20]} is not a number" if text else f"it has no ##{name}="
        raise FormatError(what) from error
    if not np.isfinite(value):
        raise ValueRangeError(f"##{name}={text[:20]} is not a finite number")
    return value
