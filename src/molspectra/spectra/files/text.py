"""Read two columns of text: CSV and TXT files as spectrometers and spreadsheets write them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from molspectra.chem.records import check_readable
from molspectra.errors import FormatError, UnitError, ValueRangeError
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.files.units import (
    AXIS_UNITS,
    QUANTITIES,
    asked_quantity,
    asked_unit,
    header_quantity,
    header_unit,
)

MAX_BYTES = 64 << 20
"""Larger files are refused, and not read to the end."""

_MAX_HEADER = 200  # lines
_COMMENTS = ("#", "%", "//", "!", "'")
_POINT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][+-]?\d{1,3})?")
_COMMA = re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[EeDd][+-]?\d{1,3})?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)


def decoded_lines(path: Path) -> list[str]:
    """Return the lines of a text file of at most `MAX_BYTES`: UTF-8, UTF-16 with byte order mark, or Latin-1.

    Raises:
        InputError: the file is missing, empty, too large or binary.
    """
    check_readable(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if not data.strip():
        raise FormatError(f"{path} is empty")
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} is larger than {MAX_BYTES >> 20} MiB; that is no spectrum")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return data.decode("utf-16").splitlines()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: not a text file") from error
    if b"\0" in data or sum(byte < 9 or 13 < byte < 32 for byte in data[:4096]) > 8:
        raise FormatError(f"{path}: not a text file")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return data.decode("latin-1").splitlines()


def read_text(
    path: Path, *, modality: str | None = None, unit: str | None = None, quantity: str | None = None
) -> MeasuredSpectrum:
    """Read the spectrum of a file of two columns, position and value.

    Columns are separated by tab, semicolon, comma or spaces; the decimal sign may be a comma unless the
    separator is. Lines before the first pair of numbers are the header, from which unit and quantity are
    taken if they are not given.

    Args:
        path: the file.
        modality: modality, if the header does not name it.
        unit: of the axis, one of `AXIS_UNITS`; it must not contradict the header.
        quantity: of the values, one of `QUANTITIES`.

    Raises:
        InputError: a line is not two numbers, with its number; or unit or quantity are unknown, with the
            choices.
    """
    header: list[str] = []
    separator: re.Pattern[str] | None = None
    positions, values = [], []
    for number, line in enumerate(decoded_lines(path), start=1):
        text = line.strip()
        if not text:
            continue
        if separator is None:
            separator = None if text.startswith(_COMMENTS) else _separator(text)
            if separator is None:
                if len(header) == _MAX_HEADER:
                    raise FormatError(f"{path}: no line of two numbers among the first {number}")
                header.append(text)
                continue
        elif text.startswith(_COMMENTS):
            continue
        x, y = _pair(path, number, text, separator)
        positions.append(x)
        values.append(y)
    if not positions:
        raise FormatError(f"{path}: no line of two numbers")
    words = " ".join(header[-20:])
    return MeasuredSpectrum(
        np.array(positions),
        np.array(values),
        _resolved(path, "unit", unit and asked_unit(unit), header_unit(words), AXIS_UNITS),
        _resolved(
            path, "quantity", quantity and asked_quantity(quantity), header_quantity(words), tuple(QUANTITIES)
        ),
        modality or _modality(words),
        path.stem,
        str(path),
        header={"HEADER": words[:1000]} if words else {},
    )


def _separator(line: str) -> re.Pattern[str] | None:
    """Return what separates the columns of lines like this one; None if it is not a line of numbers."""
    separators = (r"\t", ";", ",", r"\s+")
    # a comma is the decimal sign or the separator, not both
    formats = [(s, number) for s in separators for number in (_POINT, _COMMA) if s != "," or number is _POINT]
    for text, number in formats:
        separator = re.compile(text)
        fields = _fields(line, separator)
        if len(fields) > 1 and all(
            number.fullmatch(field) or _NOT_FINITE.fullmatch(field) for field in fields
        ):
            return separator
    return None


def _fields(line: str, separator: re.Pattern[str]) -> list[str]:
    """Return the fields of a line, without empty ones at its end."""
    fields = [field.strip().strip('"') for field in separator.split(line.strip())]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def _pair(path: Path, number: int, line: str, separator: re.Pattern[str]) -> tuple[float, float]:
    """Return position and value of a line; `path` and line `number` are for messages."""
    fields = _fields(line, separator)
    if len(fields) != 2:
        advice = "keep position and value only" if len(fields) > 2 else "expected position and value"
        raise FormatError(f"{path}, line {number}: {len(fields)} columns in {line[:40]!r}; {advice}")
    point = [field.replace(",", ".") for field in fields]
    for text, field in zip(point, fields, strict=True):
        if _NOT_FINITE.fullmatch(text):
            raise ValueRangeError(f"{path}, line {number}: {field!r} is not a finite number")
        if not _POINT.fullmatch(text):
            raise FormatError(f"{path}, line {number}: {field[:40]!r} is not a number")
    x, y = (float(text.upper().replace("D", "E")) for text in point)
    return x, y


def _resolved(path: Path, what: str, given: str | None, named: set[str], known: tuple[str, ...]) -> str:
    """Return the unit or quantity (`what`) given by the user, else the only one that the header names."""
    names = " and ".join(sorted(named))
    if given:
        if named and given not in named and what == "unit":
            raise UnitError(f"{path}: the header says {names}, not {given}")
        return given
    if len(named) == 1:
        return named.pop()
    reason = f"names {names or 'none'}"
    raise UnitError(f"{path}: which {what}? The header {reason}; give {what}= one of {', '.join(known)}")


def _modality(header: str) -> str | None:
    """Return the modality that a header names, None if it names none or several."""
    words = header.casefold()
    names = {"raman": "raman", "infrared": "ir", "ftir": "ir", "ft-ir": "ir", "uv": "uv_vis"}
    modalities = {name for word, name in names.items() if word in words}
    return modalities.pop() if len(modalities) == 1 else None
