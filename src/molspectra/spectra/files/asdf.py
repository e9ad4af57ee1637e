"""Decode the compressed numbers of JCAMP-DX data tables: AFFN, PAC, SQZ, DIF and DUP.

After McDonald and Wilks, Appl. Spectrosc. 42, 151 (1988). A failed Y check, a character that is part of no
number, and more values than NPOINTS are errors, since any of them shifts or scales all later values.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from molspectra.errors import DamagedError, FormatError

_PLAIN = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[Ee][+-]\d{1,3}(?!\d))?"
_TOKEN = re.compile(
    rf"(?P<plain>{_PLAIN})"
    r"|(?P<squeezed>[@A-Ia-i]\d*\.?\d*)"
    r"|(?P<difference>[%J-Rj-r]\d*\.?\d*)"
    r"|(?P<repeat>[S-Zs]\d*)"
    r"|(?P<undefined>\?)"
    r"|(?P<gap>[\s,;]+)"
)
_FIRST = re.compile(rf"\s*(?P<x>{_PLAIN})[\s,;]*")
_POINT = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[Ee][+-]?\d{1,3})?")
_DIGITS: dict[str, str] = {"@": "0", "%": "0", "?": ""}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("ABCDEFGHI", start=1)}
_DIGITS |= {letter: f"-{digit}" for digit, letter in enumerate("abcdefghi", start=1)}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("JKLMNOPQR", start=1)}
_DIGITS |= {letter: f"-{digit}" for digit, letter in enumerate("jklmnopqr", start=1)}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("STUVWXYZs", start=1)}

Lines = list[tuple[int, str]]
"""Lines of a table, each with its line number in the file."""


class Table:
    """The ordinates of a table (X++(Y..Y)), decoded line by line.

    Attributes:
        values: ordinates decoded so far, before the factor YFACTOR; nan for "?", one that is undefined.
        starts: per line its abscissa, the index of its first value, and its line number.
    """

    def __init__(self, announced: int) -> None:
        """Start an empty table; `announced` is NPOINTS."""
        self.announced = announced
        self.values: list[float] = []
        self.starts: list[tuple[float, int, int]] = []
        self._repeats = False  # the last line ended in a difference: the next repeats its value

    def read(self, number: int, line: str) -> None:
        """Decode one line.

        Raises:
            InputError: the line is damaged; the message has its number.
        """
        # `last` is the kind of the last number on this line, `step` its difference if it is one
        first = _FIRST.match(line)
        if first is None:
            raise FormatError(f"line {number}: {line.strip()[:30]!r} does not begin with a number")
        self.starts.append((float(first["x"]), len(self.values) - self._repeats, number))
        offset, last, difference, step = first.end(), "", False, 0.0
        check = self._repeats
        while offset < len(line):
            token = _TOKEN.match(line, offset)
            if token is None:
                raise FormatError(f"line {number}: {line[offset : offset + 10]!r} belongs to no number")
            offset, kind, text = token.end(), str(token.lastgroup), token[0]
            if kind == "gap":
                continue
            if kind == "repeat":
                self._repeat(number, last, difference, step, text)
            elif kind == "difference":
                if not self.values or not last or math.isnan(self.values[-1]):
                    where = "it begins with a difference" if not last else "a difference follows '?'"
                    raise FormatError(f"line {number}: {where}")
                difference, step = True, float(_DIGITS[text[0]] + text[1:])
                self._append(number, self.values[-1] + step)
            else:
                digits = text if kind == "plain" else _DIGITS[text[0]] + text[1:]
                value = math.nan if kind == "undefined" else float(digits)
                difference = False
                if check:
                    self._check(number, value)
                else:
                    self._append(number, value)
            check, last = False, kind
        if not last:
            raise FormatError(f"line {number}: no values after the abscissa")
        self._repeats = difference

    def _append(self, number: int, value: float) -> None:
        if len(self.values) >= self.announced:
            raise DamagedError(f"line {number}: more than the {self.announced} values that NPOINTS announces")
        self.values.append(value)

    def _check(self, number: int, value: float) -> None:
        """Compare the first value of a line with the last one of the line before (Y check)."""
        if not math.isclose(value, self.values[-1], rel_tol=1e-9, abs_tol=1e-9):
            last = self.values[-1]
            raise DamagedError(
                f"line {number}: begins with {value:.12g}, the line before ended with {last:.12g}: damaged"
            )

    def _repeat(self, number: int, last: str, difference: bool, step: float, text: str) -> None:
        """Repeat the last value, or the last difference, as often as the DUP number `text` says."""
        count = int((_DIGITS[text[0]] + text[1:])[:12]) - 1
        if not last or last == "repeat" or count < 0:
            raise FormatError(f"line {number}: {text[:10]!r} repeats nothing")
        for _ in range(count):
            self._append(number, self.values[-1] + (step if difference else 0.0))


def pairs(lines: Lines, most: int) -> npt.NDArray[np.float64]:
    """Points [n, 2] of a table (XY..XY): pairs of numbers, separated by commas, semicolons or spaces.

    A value "?", one that is undefined, is nan.

    Raises:
        InputError: a line is damaged, or there are more than `most` points; the message has its number.
    """
    numbers: list[float] = []
    for number, line in lines:
        words = re.split(r"[\s,;]+", line.strip().strip(",;"))
        if not all(_POINT.fullmatch(word) or (word == "?" and i % 2) for i, word in enumerate(words)):
            raise FormatError(f"line {number}: {line.strip()[:30]!r} are not pairs of numbers")
        numbers.extend(math.nan if word == "?" else float(word) for word in words)
        if len(numbers) % 2:
            raise FormatError(f"line {number}: {line.strip()[:30]!r} leaves a position without a value")
        if len(numbers) > 2 * most:
            raise DamagedError(f"line {number}: more than the {most} points that NPOINTS announces")
    return np.array(numbers).reshape(-1, 2)
