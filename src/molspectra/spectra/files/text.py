"""Read two columns of text: CSV and TXT files as spectrometers and spreadsheets write them."""

from __future__ import annotations

import re
from collections import Counter
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
    axis_unit,
    header_names,
    known_quantity,
    named_modality,
    settled,
)

MAX_BYTES = 64 << 20
"""Larger files are refused, and not read to the end."""

MAX_LINES = 300_000
"""Files of two columns with more lines are refused."""

_MAX_LINE = 20_000  # characters
_MAX_HEADER = 200  # lines
_COMMENTS = ("#", "%", "//", "!", "'")
_POINT = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[EeDd][+-]?\d{1,3})?")
_COMMA = re.compile(r"[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[EeDd][+-]?\d{1,3})?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:[,.' \u00a0\u2009\u202f’]\d{3})+(?:[.,]\d*)?")
_NUMBERS = (_POINT, _COMMA, _NOT_FINITE)
_JCAMP_TABLE = re.compile(r"##\s*XY(?:DATA|POINTS)\s*=\s*\(")
_DOS_END = b"\x1a"
_MAX_HEADER_PAIRS = 2  # lines of two numbers that a header may hold, such as year and month


def decoded_lines(path: Path) -> list[str]:
    """Return the lines of a text file of at most `MAX_BYTES`: UTF-8, UTF-16 with byte order mark, or Latin-1.

    Raises:
        InputError: the file is missing, empty, too large or binary.
    """
    check_readable(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    text, _, rest = data.partition(_DOS_END)
    if not rest.strip(_DOS_END + b"\r\n "):
        data = text
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
    separator is. The data are the longest run of lines of numbers. Lines before it are the header, from which
    unit and quantity are taken if they are not given, and text behind it is a footer. A line that begins with
    a number belongs to the data and is refused if it is not position and value.

    Args:
        path: the file.
        modality: modality, if the header does not name it.
        unit: of the axis, one of `AXIS_UNITS`; it must not contradict the header.
        quantity: of the values, one of `QUANTITIES`; it must not contradict the header.

    Raises:
        InputError: a line is not two numbers, with its number; or unit or quantity are unknown, with the
            choices.
    """
    lines = [
        (number, line) for number, line in enumerate(decoded_lines(path), start=1) if line.strip(" \t;,")
    ]
    if len(lines) > MAX_LINES:
        raise FormatError(f"{path} has {len(lines)} lines; of a spectrum at most {MAX_LINES} are read")
    long = next((number for number, line in lines if len(line) > _MAX_LINE), None)
    if long is not None:
        raise FormatError(
            f"{path}, line {long}: more than {_MAX_LINE} characters; that is no table of numbers"
        )
    separator = _common_separator(path, lines)
    start, stop = _data(path, lines, separator)
    header = [line.strip() for _, line in lines[:start]]
    if any(_JCAMP_TABLE.match(line) for line in header):
        raise FormatError(f"{path}: it holds a JCAMP-DX table; give its name the ending .jdx")
    points = [
        (number, _pair(path, number, line, separator))
        for number, line in lines[start:stop]
        if not line.lstrip().startswith(_COMMENTS)
    ]
    _check_commas(path, points)
    words = " ".join(header)
    units, quantities = header_names([_fields(line, separator) for line in header])
    entries = {"HEADER": words, "FOOTER": " ".join(line.strip() for _, line in lines[stop:])}
    return MeasuredSpectrum(
        np.array([_number(path, number, x) for number, (x, _) in points]),
        np.array([_number(path, number, y) for number, (_, y) in points]),
        _resolved(path, "unit", unit and asked_unit(unit), units, AXIS_UNITS),
        _resolved(path, "quantity", quantity and asked_quantity(quantity), quantities, tuple(QUANTITIES)),
        modality or named_modality(words),
        path.stem,
        str(path),
        header={name: text[:1000] for name, text in entries.items() if text},
    )


def _common_separator(path: Path, lines: list[tuple[int, str]]) -> re.Pattern[str]:
    """Return the separator of most lines of numbers; `lines` have their numbers."""
    counts: Counter[re.Pattern[str]] = Counter()
    for index, (number, line) in enumerate(lines):
        separator = None if line.lstrip().startswith(_COMMENTS) else _separator(line)
        if separator is not None:
            counts[separator] += 1
        elif index >= _MAX_HEADER and not counts:
            raise FormatError(f"{path}: no line of two numbers among the first {number}")
    if not counts:
        raise FormatError(f"{path}: no line of two numbers")
    return counts.most_common(1)[0][0]


def _data(path: Path, lines: list[tuple[int, str]], separator: re.Pattern[str]) -> tuple[int, int]:
    """Return where the data begin and end in `lines`: the longest run of lines of numbers.

    Raises:
        FormatError: lines of numbers before or behind the run are more than a header may hold.
    """
    kinds = [_kind(line, separator) for _, line in lines]
    if kinds[0] == "damaged" and not _fields(lines[0][1], separator)[0]:
        kinds[0] = "text"  # a table with numbered columns, of which the first has no name
    runs: list[list[int]] = [[]]  # indices of lines that begin with a number, apart where text stands between
    for index, kind in enumerate(kinds):
        if kind == "text":
            runs.append([])
        elif kind != "comment":
            runs[-1].append(index)
    run = max(runs, key=lambda run: sum(kinds[index] == "pair" for index in run))
    # numbers alone in a line may end a header: before a comment, or the number of points
    pairs = [index for index in run if kinds[index] == "pair"]
    while kinds[run[0]] == "alone" and (
        "comment" in kinds[run[0] : pairs[0]] or lines[run[0]][1].strip() == str(len(pairs))
    ):
        run = run[1:]
    start, stop = run[0], run[-1] + 1
    before = [index for index in range(start) if kinds[index] in ("pair", "damaged")]
    behind = [index for index in range(stop, len(lines)) if kinds[index] == "pair"]
    if before:
        between = [index for index in range(before[0], start) if kinds[index] == "text"]
        heads = any(any(header_names([_fields(lines[index][1], separator)])) for index in between)
        if len(before) > _MAX_HEADER_PAIRS or not heads:
            raise _interrupted(path, *lines[between[0]])
    if behind:
        raise _interrupted(path, *lines[stop + kinds[stop:].index("text")])
    return start, stop


def _interrupted(path: Path, number: int, line: str) -> FormatError:
    """Return the error of a line of text between lines of numbers."""
    return FormatError(
        f"{path}, line {number}: {line.strip()[:40]!r} stands between lines of numbers; "
        "a file holds one table of position and value"
    )


def _kind(line: str, separator: re.Pattern[str]) -> str:
    """Return what a line is: comment, pair (two numbers or more), alone (one), damaged, or text.

    Damaged is what begins like data, with a number, and goes on otherwise.
    """
    if line.lstrip().startswith(_COMMENTS):
        return "comment"
    fields = _fields(line, separator)
    if not fields:
        return "comment"
    if not fields[0]:
        return "damaged" if _is_number(fields[1]) else "text"
    if not _is_number(fields[0]) and not _THOUSANDS.fullmatch(fields[0]):
        return "text"
    if len(fields) == 1:
        return "damaged" if separator.search(line.lstrip().rstrip("\r\n ")) else "alone"
    if all(_is_number(field) for field in fields):
        return "pair"
    words = len(fields) > 2 and separator.pattern == r"\s+"
    return "text" if words or axis_unit(fields[1]) else "damaged"


def _is_number(field: str) -> bool:
    """Return whether a field is a number in any format, or nan."""
    return any(number.fullmatch(field) for number in _NUMBERS)


def _check_commas(path: Path, points: list[tuple[int, list[str]]]) -> None:
    """Refuse numbers with a comma that may separate thousands; `points` are line numbers and fields."""
    commas = [(number, field) for number, fields in points for field in fields if "," in field]
    if not commas:
        return
    dotted = any("." in field for _, fields in points for field in fields)
    for column in zip(*(fields for _, fields in points), strict=True):
        with_comma = [field for field in column if "," in field]
        grouped = all(_THOUSANDS.fullmatch(field) for field in with_comma)
        dotted |= bool(with_comma) and grouped and len(with_comma) < len(column)
    if dotted:
        number, field = commas[0]
        raise FormatError(
            f"{path}, line {number}: the comma of {field!r} may be a decimal sign or separate thousands; "
            "write all numbers with a decimal point and without separators"
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


def _pair(path: Path, number: int, line: str, separator: re.Pattern[str]) -> list[str]:
    """Return the fields position and value of a line; `path` and line `number` are for messages."""
    fields = _fields(line, separator)
    if len(fields) != 2:
        advice = "keep position and value only" if len(fields) > 2 else "expected position and value"
        raise FormatError(f"{path}, line {number}: {len(fields)} columns in {line[:40]!r}; {advice}")
    for field in fields:
        if _THOUSANDS.fullmatch(field) and not _is_number(field):
            raise FormatError(f"{path}, line {number}: write {field[:40]!r} without separators of thousands")
        if not _is_number(field):
            raise FormatError(f"{path}, line {number}: {field[:40]!r} is not a number")
    return fields


def _number(path: Path, number: int, field: str) -> float:
    """Return the number in a field, with either decimal sign."""
    if _NOT_FINITE.fullmatch(field):
        raise ValueRangeError(f"{path}, line {number}: {field!r} is not a finite number")
    return float(field.replace(",", ".").upper().replace("D", "E"))


def _resolved(path: Path, what: str, given: str | None, named: set[str], known: tuple[str, ...]) -> str:
    """Return the unit or quantity (`what`) given by the user, else the only one that the header names."""
    names = " and ".join(sorted(named))
    if given:
        agreed = settled(given, named)
        if agreed is None:
            raise UnitError(f"{path}: the header says {names}, not {given}")
        return agreed
    if len(named) == 1:
        return known_quantity(named.pop())
    reason = f"names {names or 'none'}"
    raise UnitError(
        f"{path}: which {what}? The header {reason}; give {what}= (command line: --{what}; "
        f"prepare: spectra_{what}=) one of {', '.join(known)}"
    )
