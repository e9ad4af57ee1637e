"""Files that are published somewhere, and what has come of them so far."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from molspectra.data.atomic import atomic_file, naming
from molspectra.datasets.fetch.remote import Answer
from molspectra.errors import InputError

CHUNK = 1 << 20
"""Bytes that are read and written at a time."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: to be saved as.
        url: https address; plain http only with a known `sha256`.
        size: bytes; None where not known.
        md5: published hash, "" where not known.
        sha256: published hash, "" where not known.
        source: who publishes the hash, or why there is none.
        listing: figshare's description of an article, where address, size and MD5 are looked up by name.
        usual: whether it is fetched when no file is named.
        local: may come from this machine without encryption (tests).
    """

    name: str
    url: str = ""
    size: int | None = None
    md5: str = ""
    sha256: str = ""
    source: str = ""
    listing: str = ""
    usual: bool = True
    local: bool = False

    @property
    def is_pinned(self) -> bool:
        """Whether a hash is known beforehand."""
        return bool(self.md5 or self.sha256)


class PartialFile:
    """What has come of a file: bytes on the disk, their running hashes, and the content they belong to."""

    def __init__(self, file: RemoteFile, path: Path) -> None:
        self.file, self.path = file, path
        self._fresh()
        state = read_mapping(state_of(path))
        if path.exists() and state.get("url") == file.url:
            self.validator = str(state.get("validator", ""))
            with naming(path), path.open("rb") as source:
                while piece := source.read(CHUNK):
                    self._count(piece)

    def _fresh(self) -> None:
        self.size, self.validator = 0, ""
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def _count(self, piece: bytes) -> None:
        self.size += len(piece)
        self._md5.update(piece)
        self._sha256.update(piece)

    def resumable(self) -> int:
        """Bytes to go on from: none of a content that could not be told from another."""
        return self.size if self.validator or self.file.is_pinned else 0

    def begin(self, answer: Answer, target: BinaryIO) -> None:
        """Go on, or start again where the server sends the file from its beginning."""
        too_long = answer.total is not None and self.size > answer.total
        if answer.start != self.size or too_long:
            self._fresh()
        target.truncate(self.size)  # also of bytes that belong to another address
        self.validator = answer.validator
        state = {"url": self.file.url, "validator": self.validator}
        with atomic_file(state_of(self.path)) as file:
            file.write(json.dumps(state).encode())

    def add(self, piece: bytes, target: BinaryIO) -> None:
        """Write the next bytes."""
        try:
            target.write(piece)
            target.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"{self.path}: no space left on the disk after {self.size:,} bytes, which are kept; make "
                "room, and the same command goes on from there"
            ) from error
        self._count(piece)

    def digests(self) -> dict[str, str]:
        """Hashes of all bytes."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        return {"md5": self._md5.hexdigest(), "sha256": self._sha256.hexdigest()}

    def discard(self) -> None:
        """Remove what has come."""
        self.path.unlink(missing_ok=True)
        state_of(self.path).unlink(missing_ok=True)


def state_of(part: Path) -> Path:
    """Where it stands which content a part belongs to."""
    return part.with_name(f"{part.name}.json")


def read_mapping(path: Path) -> dict[str, Any]:
    """A small file's JSON mapping; empty where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
