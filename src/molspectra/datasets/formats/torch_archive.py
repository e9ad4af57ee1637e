"""Files that `torch.save` writes, as what they are: zip archives of stored members, read through a map.

Nothing is decompressed or extracted: a member is a stretch of the file, whose place, size and checksum are
checked before it is used. One table of integers serves archives of millions of tensors.
"""

from __future__ import annotations

import gzip
import mmap
import struct
import zlib
from array import array
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError

MAX_PICKLE = 2 << 30
"""Largest structure (`data.pkl`) that is read; that of 130,000 molecules has a few hundred MB."""
MAX_UNZIPPED = 1 << 30
"""Largest size to which a `.gz` file may grow."""
MAX_UNZIPPED_PICKLE = 16 << 20
"""Largest structure in a `.gz` file: a byte of it can take ninety of memory, and next to none when zipped."""

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # magic number of torch.save before version 1.6
_FULL = 0xFFFFFFFF  # "see the 64-bit field"


class TorchArchive:
    """The members of one file of `torch.save`.

    Attributes:
        name: of the file, for errors.
        pickle: the pickled structure, checked against its checksum.

    Raises:
        InputError: no such file, the format of torch before 1.6, no archive of torch, or a damaged one.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        self.name = str(path)
        self._data = _mapped(path)
        if bytes(self._data[2:15]).startswith(_LEGACY):
            raise InputError(
                f"{path}: in the format of torch before version 1.6; load and save it once with a newer torch"
            )
        if bytes(self._data[:4]) != _LOCAL:
            raise InputError(f"{path}: not a file of torch.save (no zip archive)")
        try:
            self._read_directory()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise self._damaged("its table of contents leaves the file") from error
        self.pickle = self._checked("data.pkl", MAX_UNZIPPED_PICKLE if path.suffix == ".gz" else MAX_PICKLE)
        if "byteorder" in self._named and bytes(self._checked("byteorder", 16)) != b"little":
            raise InputError(f"{path}: numbers of another byte order than this machine's")

    def __len__(self) -> int:
        """Number of storages."""
        return len(self._keys)

    def size(self, key: int) -> int:
        """Bytes of a storage.

        Raises:
            InputError: there is no such storage.
        """
        return int(self._sizes[self._row(key)])

    def storage(self, key: int) -> memoryview:
        """The bytes of a storage, read-only and not copied; their checksum is compared the first time.

        Raises:
            InputError: there is no such storage, or it is damaged.
        """
        row = self._row(key)
        place, size = int(self._places[row]), int(self._sizes[row])
        checksum = None if self._good[row] else int(self._sums[row])
        content = self._member(f"data/{key}", place, size, checksum)
        self._good[row] = True
        return content

    def _row(self, key: int) -> int:
        if self._dense and 0 <= key < len(self._keys):
            return key
        row = int(np.searchsorted(self._keys, key))
        if row == len(self._keys) or self._keys[row] != key:
            raise self._damaged(f"it has no storage {key}")
        return row

    def _checked(self, name: str, limit: int) -> memoryview:
        if name not in self._named:
            raise InputError(f"{self.name}: a zip archive, but not one of torch.save (no {name})")
        place, size, checksum = self._named[name]
        if size > limit:
            raise InputError(f"{self.name}: {name} has {size} bytes, more than the {limit} that are read")
        return self._member(name, place, size, checksum)

    def _member(self, name: str, place: int, size: int, checksum: int | None) -> memoryview:
        """Return the bytes of a member with its local header at `place`; a checksum is compared if given."""
        head = self._data[place : place + 30]
        if len(head) < 30 or bytes(head[:4]) != _LOCAL:
            raise self._damaged(f"member {name} is not where its table of contents says")
        length, extra = struct.unpack_from("<HH", head, 26)
        start = place + 30 + length + extra
        stated = bytes(self._data[place + 30 : place + 30 + length])
        if stated != f"{self._root}/{name}".encode() or start + size > self._directory:
            raise self._damaged(f"member {name} is not where its table of contents says")
        content = self._data[start : start + size]
        if checksum is not None and zlib.crc32(content) != checksum:
            raise self._damaged(f"member {name} does not have its checksum")
        return content

    def _read_directory(self) -> None:
        """Read the table of contents: storages into columns of integers, the rest by name."""
        count, size, place = self._end_record()
        if place + size > len(self._data):
            raise self._damaged("its table of contents leaves the file")
        self._directory, self._root = place, ""
        self._named: dict[str, tuple[int, int, int]] = {}
        columns = array("q"), array("q"), array("q"), array("q")
        for _ in range(count):
            place, name, member = self._entry(place)
            self._root = self._root or name.partition("/")[0]
            root, _, rest = name.partition("/")
            key = rest.removeprefix("data/")
            if root != self._root or rest in self._named:
                raise self._damaged(
                    f"its member {name[:80]!r} is there twice or not in one folder with others"
                )
            if rest != key and key.isascii() and key.isdigit() and len(key) < 12:
                for column, value in zip(columns, (int(key), *member), strict=True):
                    column.append(value)
            else:
                self._named[rest] = member
        self._keys, self._places, self._sizes, self._sums = _sorted(columns)
        if (np.diff(self._keys) == 0).any():
            raise self._damaged("a storage is there twice")
        by_place = np.argsort(self._places, kind="stable")
        stops = (self._places + self._sizes)[by_place]
        if (stops[:-1] > self._places[by_place][1:]).any():  # reading them all would take forever
            raise self._damaged("its storages overlap")
        self._good = np.zeros(len(self._keys), dtype=bool)
        self._dense = len(self._keys) > 0 and self._keys[-1] == len(self._keys) - 1

    def _entry(self, place: int) -> tuple[int, str, tuple[int, int, int]]:
        """Return the place of the next entry, and this one's name, (place, size, checksum)."""
        data = self._data
        if bytes(data[place : place + 4]) != _ENTRY:
            raise self._damaged("its table of contents is broken")
        flags, method = struct.unpack_from("<HH", data, place + 8)
        checksum, packed, size = struct.unpack_from("<III", data, place + 16)
        name_length, extra_length, comment_length = struct.unpack_from("<HHH", data, place + 28)
        (header,) = struct.unpack_from("<I", data, place + 42)
        start = place + 46
        name = bytes(data[start : start + name_length]).decode()
        if method != 0 or flags & 1:
            raise InputError(
                f"{self.name}: member {name[:80]!r} is compressed or encrypted; torch writes none"
            )
        after = start + name_length + extra_length
        if _FULL in (packed, size, header):
            wide = self._wide(
                start + name_length, after, sum(each == _FULL for each in (size, packed, header))
            )
            size, packed, header = (wide.pop(0) if each == _FULL else each for each in (size, packed, header))
        if packed != size or header + size > self._directory:
            raise self._damaged(f"member {name[:80]!r} leaves the file")
        return after + comment_length, name, (header, size, checksum)

    def _wide(self, place: int, stop: int, count: int) -> list[int]:
        """Return the 64-bit sizes and places of a large member, from its extra fields."""
        while place + 4 <= stop:
            kind, length = struct.unpack_from("<HH", self._data, place)
            if kind == 1 and length >= 8 * count:
                return list(struct.unpack_from(f"<{count}Q", self._data, place + 4))
            place += 4 + length
        raise self._damaged("the size of a large member is missing")

    def _end_record(self) -> tuple[int, int, int]:
        """Return number of members, size and place of the table of contents."""
        tail = bytes(self._data[-(22 + 0xFFFF) :])
        at = tail.rfind(_END)
        if at < 0:
            raise self._damaged("the end of the archive is missing")
        place = len(self._data) - len(tail) + at
        count, size, start = struct.unpack_from("<HII", self._data, place + 10)
        if count == 0xFFFF or _FULL in (size, start):
            if place < 20 or bytes(self._data[place - 20 : place - 16]) != _LOCATOR64:
                raise self._damaged("the end of the archive is missing")
            (place,) = struct.unpack_from("<Q", self._data, place - 12)
            if bytes(self._data[place : place + 4]) != _END64:
                raise self._damaged("the end of the archive is missing")
            count, size, start = struct.unpack_from("<QQQ", self._data, place + 32)
        return int(count), int(size), int(start)

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.name}: damaged or incomplete: {what}")


def _mapped(path: Path) -> memoryview:
    """Return the bytes of a file, mapped; those of a gzipped one in memory."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".gz":
        return memoryview(_unzipped(path))
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise InputError(f"{path}: an empty file")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_UNZIPPED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unzipped ({error})") from error
    if len(content) > MAX_UNZIPPED:
        raise InputError(f"{path}: larger than {MAX_UNZIPPED} bytes when unzipped; unzip it by hand")
    return content


def _sorted(columns: tuple[array[int], ...]) -> list[npt.NDArray[np.int64]]:
    """Return columns ordered by the first."""
    arrays = [np.frombuffer(column, dtype=np.int64) for column in columns]
    order = np.argsort(arrays[0], kind="stable")
    return [each[order] for each in arrays]
