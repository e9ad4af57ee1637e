"""Files in archives and folders, read as streams and never extracted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from molspectra.errors import DamagedError, FormatError, NotFoundError, ValueRangeError

MAX_SMALL = 1 << 20
"""Largest file of a single molecule, bytes."""

_BLOCK = 512
_LONGEST_NAME = 4096
_BUFFER = 1 << 18
_TAR = (".tar", ".tar.bz2", ".tbz2", ".tar.gz", ".tgz", ".tar.xz")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of decompression and of the operating system in the block into one line with the path.

    Raises:
        DamagedError: in their place.
    """
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path} is cut short or damaged ({words}); fetch it again") from error


def is_tar(path: Path) -> bool:
    """Whether a file has the name of a tar archive, packed or not."""
    return path.name.lower().endswith(_TAR)


def small_files(
    raw: Path, wanted: Callable[[str], bool], start: int = 0
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the wanted small files of a tar archive, in its order, or of a folder, sorted by name.

    Args:
        raw: the archive or folder.
        wanted: whether a file is wanted, given its name without folder.
        start: number of wanted files to skip.

    Yields:
        The name and a function that returns the content, or raises `ValueRangeError` where the file is too
        large.

    Raises:
        DamagedError: if the archive is damaged.
    """
    if raw.is_dir():
        for name in sorted(entry.name for entry in raw.iterdir() if wanted(entry.name))[start:]:
            yield name, _reader_of_file(raw / name)
        return
    count = 0
    with reading(raw), _unpacked(raw) as stream:
        for name, size in _tar_members(stream):
            if wanted(name):
                count += 1
                if count > start:
                    content = _exactly(stream, size) if size <= MAX_SMALL else None
                    _skip(stream, -size % _BLOCK if content is not None else size + -size % _BLOCK)
                    yield name, _reader_of(content)
                    continue
            _skip(stream, size + -size % _BLOCK)


@contextmanager
def open_text(raw: Path, name: str) -> Iterator[io.TextIOBase]:
    """Open one large text file of a folder, or of a tar or zip archive.

    Args:
        raw: folder or archive.
        name: name of the file without its folder.

    Raises:
        NotFoundError: if there is no such file.
        DamagedError: if the archive is damaged.
        FormatError: if `raw` is neither a folder nor an archive.
    """
    with (
        reading(raw),
        _opened(raw, name) as file,
        io.TextIOWrapper(cast("BinaryIO", file), encoding="utf-8", errors="replace") as text,
    ):
        yield text


def holds(raw: Path, name: str) -> bool:
    """Whether a folder or an archive holds a file of that name; a tar archive is read up to it.

    Raises:
        DamagedError: if the archive is damaged.
        FormatError: if `raw` is neither a folder nor an archive.
    """
    try:
        with open_text(raw, name):
            return True
    except NotFoundError:
        return False


def first_name(archive: Path) -> str:
    """Return the name, without folder, of the first file in a tar archive; "" where it holds none.

    Raises:
        DamagedError: if the archive is damaged.
    """
    with reading(archive), _unpacked(archive) as stream:
        return next(_tar_members(stream), ("", 0))[0]


@contextmanager
def _opened(raw: Path, name: str) -> Iterator[io.BufferedIOBase]:
    if raw.is_dir():
        if not (raw / name).is_file():
            raise NotFoundError(f"{raw} holds no file {name}")
        with (raw / name).open("rb") as file:
            yield file
    elif zipfile.is_zipfile(raw):
        with zipfile.ZipFile(raw) as archive:
            members = [member for member in archive.namelist() if member.rpartition("/")[2] == name]
            if not members:
                raise NotFoundError(f"{raw} holds no file {name}")
            with archive.open(members[0]) as member:
                yield io.BufferedReader(cast("io.RawIOBase", member), _BUFFER)
    elif is_tar(raw):
        with _unpacked(raw) as stream:
            for member_name, size in _tar_members(stream):
                if member_name == name:
                    yield io.BufferedReader(_Member(stream, size), _BUFFER)
                    return
                _skip(stream, size + -size % _BLOCK)
            raise NotFoundError(f"{raw} holds no file {name}")
    else:
        raise FormatError(f"{raw} is neither a folder nor a .tar, .tar.gz, .tar.bz2 or .zip archive")


class _Member(io.RawIOBase):
    """The bytes of one file in a tar archive."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read some bytes."""
        view = memoryview(cast("bytearray", buffer))
        data = self._stream.read(min(len(view), self._left))
        if self._left and not data:
            raise EOFError("the archive ends inside a file")
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file, decompressed as its first bytes require; reading raises where the stream is cut short."""
    with path.open("rb") as file, ExitStack() as stack:
        head = file.read(6)
        file.seek(0)
        stream: object = file
        if head.startswith(b"BZh"):
            stream = stack.enter_context(bz2.BZ2File(file))
        elif head.startswith(b"\x1f\x8b"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif head.startswith(b"\xfd7zXZ\0"):
            stream = stack.enter_context(lzma.LZMAFile(file))
        yield cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", stream), _BUFFER))


def _tar_members(stream: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield name (without folder) and size of the files in a tar archive; the caller reads or skips each one.

    It takes constant memory, and is stricter than the standard module, which takes an archive cut at a header
    for a complete one. The formats are ustar, GNU and pax; long names of pax, which are not needed, are
    skipped.
    """
    long_name = ""
    while True:
        header = _exactly(stream, _BLOCK)
        if not any(header):
            return
        checksum = int(header[148:156].strip(b" \0") or b"0", 8) if _is_octal(header[148:156]) else -1
        if checksum != sum(header) - sum(header[148:156]) + 8 * 32:
            raise EOFError("the header of a file in the archive is not one")
        size, kind = _size(header[124:136]), header[156:157]
        if kind == b"L":
            if size > _LONGEST_NAME:
                raise EOFError("the name of a file in the archive is not one")
            long_name = _exactly(stream, size + -size % _BLOCK)[:size].rstrip(b"\0").decode(errors="replace")
        elif kind in b"0\0":
            name = long_name or header[:100].partition(b"\0")[0].decode(errors="replace")
            long_name = ""
            yield name.rpartition("/")[2], size
        else:
            if kind not in b"Kxg":  # a folder or link, to which the name belongs
                long_name = ""
            _skip(stream, size + -size % _BLOCK)


def _is_octal(field: bytes) -> bool:
    return not field.strip(b" \0").strip(b"01234567")


def _size(field: bytes) -> int:
    """Return a size in a tar header: octal digits, or binary if the first bit is set."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    if not _is_octal(field):
        raise EOFError("the header of a file in the archive is not one")
    return int(field.strip(b" \0") or b"0", 8)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """Return the next `size` bytes."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends before the end of the archive")
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        size -= len(_exactly(stream, min(size, _BUFFER)))


def _reader_of(content: bytes | None) -> Callable[[], bytes]:
    def read() -> bytes:
        if content is None or len(content) > MAX_SMALL:
            raise ValueRangeError(f"larger than {MAX_SMALL >> 20} MiB, which no file of one molecule is")
        return content

    return read


def _reader_of_file(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with reading(path), path.open("rb") as file:
            return _reader_of(file.read(MAX_SMALL + 1))()

    return read
