"""The tables of QM9S: one spectrum per line, read line by line or at any row without an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError
from molspectra.spectra.modality import Modality

_STREAM, _PROBE = 4 << 20, 1 << 17  # bytes read at once: on the way through the file, and to look at one row
_MAX_LINE = 1 << 20
_HEAD = 24  # bytes that hold a row number and its comma
_TOLERANCE = 1e-6  # steps of the axis that a point may be off


class SpectrumTable:
    """One CSV file: a header `,500.0,501.0,...` that is the axis, then `0,…`, `1,…` with the samples.

    Attributes:
        path: the file.
        kind: the modality, whose axis the header must have.
        rows: number of rows, as the last one says.

    Raises:
        InputError: if the file is missing, empty or cut short, or has another axis.
    """

    def __init__(self, path: Path, kind: Modality) -> None:
        self.path, self.kind = path, kind
        with self._opened(_PROBE) as file:
            header = file.readline(_MAX_LINE)
            _check_axis(path, kind, header)
            self._body, self._size = file.tell(), file.seek(0, 2)
            self._line = max(64, len(header))
            self.rows = self._last(file) + 1

    def values(self, line: bytes) -> npt.NDArray[np.float32]:
        """The samples [points] of one line.

        Raises:
            InputError: if it holds something that is no number, or has another number of cells.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = line.rstrip(b"\r\n").partition(b",")[2]
        text = pa.StringArray.from_buffers(
            1, pa.py_buffer(np.array([0, len(cells)], np.int32)), pa.py_buffer(cells)
        )
        found = pc.split_pattern(text, ",").values
        if len(found) != self.kind.points:
            raise InputError(f"{len(found)} samples instead of {self.kind.points}")
        try:
            samples: npt.NDArray[np.float32] = found.cast(pa.float32()).to_numpy()
        except pa.ArrowInvalid as error:
            raise InputError("a sample that is no number") from error
        return samples

    def lines(self, start: int = 0) -> Iterator[bytes]:
        """Yield the lines of the rows from `start` on.

        Raises:
            InputError: if a row has another number than its place.
        """
        if start >= self.rows:
            return
        with self._opened(_PROBE) as file:
            place = self._place(file, start)
        with self._opened(_STREAM) as file:
            file.seek(place)
            for row in range(start, self.rows):
                line = file.readline(_MAX_LINE)
                if _number(line) != row:
                    raise InputError(f"{self.path}: row {row} is numbered {line[:_HEAD]!r}: rows are missing")
                yield line

    def line(self, row: int) -> bytes:
        """The line of one row.

        Raises:
            InputError: if there is no such row.
        """
        with self._opened(_PROBE) as file:
            file.seek(self._place(file, row))
            return file.readline(_MAX_LINE)

    def _opened(self, buffer: int) -> BinaryIO:
        try:
            return self.path.open("rb", buffering=buffer)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def _last(self, file: BinaryIO) -> int:
        """Return the number of the last row, which must be complete."""
        file.seek(max(self._body, self._size - _MAX_LINE))
        tail = file.read().rstrip(b"\r\n")
        line = tail[tail.rfind(b"\n") + 1 :]
        number = _number(line)
        if number is None or line.count(b",") != self.kind.points:
            raise InputError(f"{self.path}: its last row is not complete; the download may be cut short")
        return number

    def _place(self, file: BinaryIO, row: int) -> int:
        """Return where the line of a row begins, by halving the file: row numbers ascend."""
        low, high = self._body, self._size
        while high - low > 4 * self._line:
            middle = (low + high) // 2
            file.seek(middle)
            middle += len(file.readline(_MAX_LINE))
            number = _number(file.read(_HEAD)) if middle < high else None
            if number is None or number > row:
                high = (low + high) // 2
            else:
                low = middle
        file.seek(low)
        while low < self._size:
            line = file.readline(_MAX_LINE)
            if _number(line) == row:
                return low
            low += len(line)
        raise InputError(f"{self.path}: row {row} is missing")


def _number(line: bytes) -> int | None:
    """Return the row number that a line begins with."""
    cell = line[:_HEAD].partition(b",")[0]
    return int(cell) if cell.isdigit() else None


def _check_axis(path: Path, kind: Modality, header: bytes) -> None:
    """Refuse another axis than the modality's: its samples would get wrong positions, or need inventing."""
    cells = header.removeprefix(b"\xef\xbb\xbf").strip().split(b",")
    try:
        found = np.array([float(cell.strip(b'" ')) for cell in cells[1:]])
    except ValueError as error:
        raise InputError(f"{path}: its first line must be an empty cell and then the axis") from error
    if cells[0].strip(b'"') or len(found) < 2:
        raise InputError(f"{path}: its first line must be an empty cell and then the axis")
    axis = kind.axis()
    if len(found) != len(axis) or not np.abs(found - axis).max() <= _TOLERANCE * kind.step:
        raise InputError(
            f"{path}: its axis is {_axis_text(found)} {kind.unit}, that of {kind.name} spectra is "
            f"{_axis_text(axis)} {kind.unit}; spectra are not resampled, fetch the published file"
        )


def _axis_text(axis: npt.NDArray[np.float64]) -> str:
    return f"{axis[0]:g} to {axis[-1]:g} in {len(axis)} points"
