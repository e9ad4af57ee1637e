"""The packed numbers of JCAMP-DX data tables: AFFN, PAC, SQZ, DIF and DUP.

After McDonald and Wilks, Appl. Spectrosc. 42, 151 (1988). Strict where a table could be damaged: a failed
check of a line, a character that belongs to no number, or more values than were announced are errors, since
any of them shifts or scales all that follows.
"""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError

_PLAIN = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]\d{1,3}(?!\d))?"
_TOKEN = re.compile(
    rf"(?P<plain>{_PLAIN})"
    r"|(?P<squeezed>[@A-Ia-i]\d*\.?\d*)"
    r"|(?P<difference>[%J-Rj-r]\d*\.?\d*)"
    r"|(?P<repeat>[S-Zs]\d*)"
    r"|(?P<gap>[\s,;]+)"
)
_FIRST = re.compile(rf"\s*(?P<x>{_PLAIN})[\s,;]*")
_POINT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[Ee][+-]?\d{1,3})?")
_DIGITS: dict[str, str] = {"@": "0", "%": "0"}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("ABCDEFGHI", start=1)}
_DIGITS |= {letter: f"-{digit}" for digit, letter in enumerate("abcdefghi", start=1)}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("JKLMNOPQR", start=1)}
_DIGITS |= {letter: f"-{digit}" for digit, letter in enumerate("jklmnopqr", start=1)}
_DIGITS |= {letter: str(digit) for digit, letter in enumerate("STUVWXYZs", start=1)}

Lines = list[tuple[int, str]]
"""Lines of a table with their numbers in the file."""


class Table:
    """The ordinates of a table (X++(Y..Y)), decoded line by line.

    Attributes:
        values: ordinates decoded so far.
        starts: for each line, its abscissa, the number of values before it, and its line number.
    """

    def __init__(self, most: int) -> None:
        """Begin; `most` is the number of values announced."""
        self.most = most
        self.values: list[float] = []
        self.starts: list[tuple[float, int, int]] = []
        self._check = False  # the last line ended in a difference, so the next repeats its value

    def read(self, number: int, line: str) -> None:
        """Decode one line.

        Raises:
            InputError: naming the line, where it is damaged.
        """
        first = _FIRST.match(line)
        if first is None:
            raise InputError(f"line {number}: {line.strip()[:30]!r} does not begin with a number")
        self.starts.append((float(first["x"]), len(self.values) - self._check, number))
        place, last, difference, step = first.end(), "", False, 0.0
        fresh = self._check
        while place < len(line):
            token = _TOKEN.match(line, place)
            if token is None:
                raise InputError(f"line {number}: {line[place : place + 10]!r} belongs to no number")
            place, kind, text = token.end(), str(token.lastgroup), token[0]
            if kind == "gap":
                continue
            if kind == "repeat":
                self._repeat(number, last, difference, step, text)
            elif kind == "difference":
                if not self.values or not last:
                    raise InputError(f"line {number}: it begins with a difference")
                difference, step = True, float(_DIGITS[text[0]] + text[1:])
                self._append(number, self.values[-1] + step)
            else:
                value = float(text if kind == "plain" else _DIGITS[text[0]] + text[1:])
                difference = False
                if fresh:
                    self._checked(number, value)
                else:
                    self._append(number, value)
            fresh, last = False, kind
        if not last:
            raise InputError(f"line {number}: no values after the abscissa")
        self._check = difference

    def _append(self, number: int, value: float) -> None:
        if len(self.values) >= self.most:
            raise InputError(f"line {number}: more than the {self.most} values that NPOINTS announces")
        self.values.append(value)

    def _checked(self, number: int, value: float) -> None:
        """Compare the first value of a line with the last of the line before."""
        if not math.isclose(value, self.values[-1], rel_tol=1e-9, abs_tol=1e-9):
            last = self.values[-1]
            raise InputError(
                f"line {number}: begins with {value:.12g}, the line before ended with {last:.12g}: damaged"
            )

    def _repeat(self, number: int, last: str, difference: bool, step: float, text: str) -> None:
        count = int((_DIGITS[text[0]] + text[1:])[:12]) - 1
        if not last or last == "repeat" or count < 0:
            raise InputError(f"line {number}: {text[:10]!r} repeats nothing")
        if len(self.values) + count > self.most:
            raise InputError(f"line {number}: more than the {self.most} values that NPOINTS announces")
        for _ in range(count):
            self.values.append(self.values[-1] + (step if difference else 0.0))


def pairs(lines: Lines, most: int) -> npt.NDArray[np.float64]:
    """The points [n, 2] of a table (XY..XY): numbers in pairs, separated by commas, semicolons or spaces.

    Raises:
        InputError: naming the line, where it is damaged or holds more than `most` points in all.
    """
    found: list[float] = []
    for number, line in lines:
        words = re.split(r"[\s,;]+", line.strip().strip(",;"))
        if not all(_POINT.fullmatch(word) for word in words):
            raise InputError(f"line {number}: {line.strip()[:30]!r} are not pairs of numbers")
        found.extend(float(word) for word in words)
        if len(found) % 2:
            raise InputError(f"line {number}: {line.strip()[:30]!r} leaves a position without a value")
        if len(found) > 2 * most:
            raise InputError(f"line {number}: more than the {most} points that NPOINTS announces")
    return np.array(found).reshape(-1, 2)
