"""Files in archives and folders, read as streams and never extracted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

from molspectra.chem.records import short_lines
from molspectra.errors import DamagedError, FormatError, NotFoundError, ValueRangeError

MAX_SMALL = 1 << 20
"""Largest file of a single molecule, bytes."""

_LONGEST_NAME = 4096
_WITH_NAMES = (b"L", b"K", b"x", b"g", b"X")  # long names of GNU, pax headers
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
    except (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path} is cut short or damaged ({words}); fetch it again") from error


def is_tar(path: Path) -> bool:
    """Whether a file has the name of a tar archive, packed or not."""
    return path.name.lower().endswith(_TAR)


def small_files(raw: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the wanted small files of a tar archive, in its order, or of a folder, sorted by name.

    Args:
        raw: the archive or folder.
        wanted: whether a file is wanted, given its name without folder.

    Yields:
        The name and a function that returns the content, or raises `ValueRangeError` where the file is too
        large.

    Raises:
        DamagedError: if the archive is damaged.
    """
    if raw.is_dir():
        for name in sorted(entry.name for entry in raw.iterdir() if wanted(entry.name)):
            yield name, partial(_content_of, raw / name)
        return
    with reading(raw), _unpacked(raw) as stream:
        for name, file in _tar_members(stream):
            if wanted(name):
                yield name, partial(_checked, file.read(MAX_SMALL + 1))


@contextmanager
def open_text(raw: Path, name: str) -> Iterator[io.TextIOWrapper]:
    """Open one large text file of a folder, or of a tar or zip archive.

    Args:
        raw: folder or archive.
        name: name of the file without its folder.

    Raises:
        NotFoundError: if there is no such file.
        DamagedError: if the archive is damaged.
        FormatError: if `raw` is neither a folder nor an archive; in reading, at a line without end.
    """
    with (
        reading(raw),
        _opened(raw, name) as file,
        short_lines(file, f"{raw}: {name}", errors="replace") as text,
    ):
        yield text


def holds(raw: Path, name: str) -> bool:
    """Whether a folder or an archive holds a file of that name; a tar archive is read up to it."""
    try:
        with open_text(raw, name):
            return True
    except NotFoundError:
        return False


def first_name(archive: Path) -> str:
    """Return the name, without folder, of the first file in a tar archive; "" where it holds none."""
    with reading(archive), _unpacked(archive) as stream:
        return next((name for name, _ in _tar_members(stream)), "")


@contextmanager
def _opened(raw: Path, name: str) -> Iterator[IO[bytes]]:
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
            with archive.open(members[0]) as content:
                yield content
    elif is_tar(raw):
        with _unpacked(raw) as stream:
            for member_name, content in _tar_members(stream):
                if member_name == name:
                    yield content
                    return
            raise NotFoundError(f"{raw} holds no file {name}")
    else:
        raise FormatError(f"{raw} is neither a folder nor a .tar, .tar.gz, .tar.bz2 or .zip archive")


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


class _EndOfArchive(Exception):
    """The block of zeros behind the last file."""


class _Member(tarfile.TarInfo):
    """A header whose further headers, such as that of a long name, are read into memory only if small."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Parse a header of 512 bytes."""
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            raise _EndOfArchive
        member = super().frombuf(buf, encoding, errors)
        if member.type in _WITH_NAMES and member.size > _LONGEST_NAME:
            raise EOFError("the name of a file in the archive is not one")
        return member


def _tar_members(stream: BinaryIO) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name (without folder) and content, to be read before the next one, of the files in a tar archive.

    It takes constant memory, and is stricter than `TarFile.next`, which takes an archive cut at a header for
    a complete one.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Member) as archive:
            member = archive.next()
            while member is not None:
                content = archive.extractfile(member) if member.type in (b"0", b"\0") else None
                if content is not None:
                    yield member.name.rpartition("/")[2], content
                stream.seek(archive.offset)
                member = _Member.fromtarfile(archive)
    except _EndOfArchive:
        return
    except (ValueError, RecursionError) as error:  # of headers made to do harm
        raise EOFError(str(error)) from error


def _checked(content: bytes) -> bytes:
    if len(content) > MAX_SMALL:
        raise ValueRangeError(f"larger than {MAX_SMALL >> 20} MiB, which no file of one molecule is")
    return content


def _content_of(path: Path) -> bytes:
    with reading(path), path.open("rb") as file:
        return _checked(file.read(MAX_SMALL + 1))
