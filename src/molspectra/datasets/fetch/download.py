"""Downloads that can be interrupted and resumed, and that are verified.

A file grows as `.NAME.part`, is hashed while it arrives, and gets its name only when size and hash are right.
`downloads.json` beside it records the files that were fetched, so that a file without a published hash is at
least known to be the same the next time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from molspectra.data.atomic import atomic_file, exclusive_lock, naming
from molspectra.datasets.fetch.remote import Response, TransientError, check_url, request
from molspectra.errors import (
    DamagedError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    ValueRangeError,
    WriteError,
)

RECORD = "downloads.json"
"""Name of the file that records what was fetched into a folder."""

CHUNK = 1 << 20
"""Bytes that are read and written at a time."""

MARGIN = 64 << 20
"""Bytes that must stay free on the disk."""

LARGEST = 64 << 30
"""Bytes of the largest file that is fetched without a known size."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: of the file on the disk.
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


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again after a failure, and when to give up.

    Attributes:
        attempts: failures in a row without a new byte before giving up.
        first: seconds to wait after the first failure, doubled after each further one.
        longest: most seconds to wait, also if the server asks for more.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 120.0

    def wait(self, failures: int, retry_after: float | None) -> None:
        """Wait after a number of failures in a row, as long as the server asks for if it does.

        Raises:
            TransientError: the server asks for more time than is acceptable.
        """
        seconds = min(self.first * 2 ** (failures - 1), self.longest) if retry_after is None else retry_after
        if seconds > self.longest:
            raise TransientError(f"the server asks to come back in {seconds:.0f} s")
        time.sleep(seconds)


@dataclass(frozen=True)
class Fetched:
    """Result of a download.

    Attributes:
        path: of the file.
        size: bytes.
        sha256: of its content.
        was_there: it had been fetched before and is unchanged.
        checked: against what: "pinned hash", "hash published with the file", "earlier download" or "nothing".
    """

    path: Path
    size: int
    sha256: str
    was_there: bool
    checked: str


Advance = Callable[[int, int | None], None]
"""Called after every piece with the bytes so far and the bytes in all."""


class RunningHashes:
    """Size, MD5 and SHA-256 of the bytes so far."""

    def __init__(self) -> None:
        self.size = 0
        self._md5, self._sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()

    def update(self, piece: bytes) -> None:
        """Add the next bytes."""
        self.size += len(piece)
        self._md5.update(piece)
        self._sha256.update(piece)

    def update_from(self, path: Path) -> None:
        """Add the content of a file."""
        with naming(path), path.open("rb") as file:
            while piece := file.read(CHUNK):
                self.update(piece)

    def digests(self) -> dict[str, str]:
        """Return the hashes in hexadecimal digits by "md5" and "sha256"."""
        return {"md5": self._md5.hexdigest(), "sha256": self._sha256.hexdigest()}


class PartialFile:
    """The part of a file that has arrived.

    Its state file says which address and version of the content (`validator`) the part belongs to; a part
    of another address is overwritten.
    """

    def __init__(self, file: RemoteFile, path: Path) -> None:
        self.file, self.path = file, path
        self.hashes, self.validator = RunningHashes(), ""
        state = read_mapping(state_of(path))
        if path.exists() and state.get("url") == file.url:
            self.validator = str(state.get("validator", ""))
            self.hashes.update_from(path)

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.hashes.size

    def resumable(self) -> int:
        """Return the bytes to go on from: 0 if another version of the content could not be noticed."""
        return self.size if self.validator or self.file.is_pinned else 0

    def begin(self, response: Response, target: BinaryIO) -> None:
        """Go on, or start again where the server sends the file from its beginning."""
        too_long = response.total is not None and self.size > response.total
        if response.start != self.size or too_long:
            self.hashes = RunningHashes()
        target.truncate(self.size)  # also of bytes that belong to another address
        self.validator = response.validator
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
            raise WriteError(
                f"{self.path}: no space left on the disk after {self.size:,} bytes, which are kept; make "
                "room, and the same command goes on from there"
            ) from error
        self.hashes.update(piece)

    def discard(self) -> None:
        """Remove the part and its state."""
        self.path.unlink(missing_ok=True)
        state_of(self.path).unlink(missing_ok=True)


def state_of(part: Path) -> Path:
    """Return the path of a part's state file."""
    return part.with_name(f"{part.name}.json")


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a small JSON file; empty where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    accept_unverified: bool = False,
    overwrite: bool = False,
    advance: Advance | None = None,
    retries: RetryPolicy | None = None,
) -> Fetched:
    """Fetch a file into a folder, going on where an earlier attempt stopped.

    Args:
        file: what to fetch.
        folder: made where it is missing.
        accept_unverified: also fetch a file without a known hash.
        overwrite: replace a file of that name with other content.
        advance: shows progress.
        retries: what to do after dropped connections.

    Raises:
        InputError: an address that is gone or not encrypted, a wrong hash or size, a full disk, a server that
            does not answer. The part that has arrived stays unless it is known to be wrong.
    """
    if not file.is_pinned and not accept_unverified:
        raise SettingError(
            f"{file.name}: no hash of it is known ({file.source or 'none is published'}), so it cannot be "
            "verified; --accept-unverified fetches it all the same and remembers its SHA-256"
        )
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.name, folder / f".{file.name}.part"
    earlier = _records(folder).get(file.name, {})
    if path.exists() and not overwrite:
        return _check_present(file, path, earlier)
    with _only_writer(part):
        published = _look_up(file)
        check_url(published.url, local=file.local, plain=bool(file.sha256))
        partial = PartialFile(published, part)
        _complete(partial, advance or (lambda received, total: None), retries or RetryPolicy())
        _verify(partial, "" if overwrite or file.is_pinned else earlier.get("sha256", ""))
        with naming(path):
            part.replace(path)
            state_of(part).unlink(missing_ok=True)
    checked = "nothing"
    if published.is_pinned:
        checked = "pinned hash" if file.is_pinned else "hash published with the file"
    _record(folder, published, partial.hashes, checked)
    return Fetched(path, partial.size, partial.hashes.digests()["sha256"], False, checked)


def _check_present(file: RemoteFile, path: Path, earlier: dict[str, Any]) -> Fetched:
    """Compare a file that is there with its published hash, else with the record of the earlier download."""
    hashes = RunningHashes()
    hashes.update_from(path)
    digests = hashes.digests()
    expected = {"md5": file.md5, "sha256": file.sha256 or ("" if file.md5 else earlier.get("sha256", ""))}
    if any(expected.values()) and all(digests[name] == value for name, value in expected.items() if value):
        checked = "pinned hash" if file.is_pinned else "earlier download"
    elif not file.is_pinned and not earlier:  # from a browser
        checked = "nothing"
        _record(path.parent, file, hashes, checked)
    else:
        why = "has another hash than was published" if file.is_pinned else "has changed since it was fetched"
        raise DamagedError(f"{path}: {why}; move it away, or replace it with --overwrite")
    return Fetched(path, hashes.size, digests["sha256"], True, checked)


def _look_up(file: RemoteFile) -> RemoteFile:
    """Return the file with address, size and MD5 from its article's description, if it has one."""
    if not file.listing:
        return file
    try:
        response = request(file.listing, local=file.local)
        with response.body:
            article = json.loads(response.read(4 << 20))
        for entry in article["files"]:
            if entry["name"] == file.name:
                md5 = str(entry.get("computed_md5") or entry.get("supplied_md5") or "")
                return replace(file, url=str(entry["download_url"]), size=int(entry["size"]), md5=md5)
    except TransientError as error:
        raise InputError(f"{file.listing}: {error}; try again later") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{file.listing}: not the description of an article") from error
    raise NotFoundError(f"{file.listing}: names no file {file.name}")


def _complete(partial: PartialFile, advance: Advance, retries: RetryPolicy) -> None:
    """Receive the rest of a file over as many connections as it takes, and flush it to the disk."""
    failures = 0
    with naming(partial.path), partial.path.open("ab") as target:
        while True:
            before = partial.size
            try:
                if _receive(partial, target, advance):
                    os.fsync(target.fileno())
                    return
                raise TransientError(f"the connection ended after {partial.size:,} bytes")
            except TransientError as error:
                failures = 1 if partial.size > before else failures + 1
                try:
                    if failures >= retries.attempts:
                        raise error
                    retries.wait(failures, error.retry_after)
                except TransientError as last:
                    raise InputError(
                        f"{partial.file.url}: {last} ({failures} failures in a row); {partial.size:,} bytes "
                        "are kept, and the same command goes on from there"
                    ) from error


def _receive(partial: PartialFile, target: BinaryIO, advance: Advance) -> bool:
    """Receive what one connection delivers; return whether the file is complete."""
    file = partial.file
    response = request(
        file.url, partial.resumable(), partial.validator, local=file.local, plain=bool(file.sha256)
    )
    with response.body:
        total = _total_size(file, response)
        partial.begin(response, target)
        if total is not None and partial.size == total:
            return True
        _check_space(partial, total)
        limit = total if total is not None else LARGEST
        while piece := response.read(CHUNK):
            if partial.size + len(piece) > limit:
                partial.discard()
                raise ValueRangeError(f"{file.url}: sends more than {limit:,} bytes; nothing was kept")
            partial.add(piece, target)
            advance(partial.size, total)
    return total is None or partial.size == total


def _total_size(file: RemoteFile, response: Response) -> int | None:
    """Return the bytes of the whole file, which the server and the published size have to agree on."""
    if response.total is None or response.total == file.size:
        return file.size
    if file.size is not None:
        raise MismatchError(
            f"{file.url}: has {response.total:,} bytes, published were {file.size:,}; the file has changed"
        )
    if response.total > LARGEST:
        raise ValueRangeError(
            f"{file.url}: has {response.total:,} bytes, more than the {LARGEST:,} that are fetched"
        )
    return response.total


def _check_space(partial: PartialFile, total: int | None) -> None:
    """Refuse a file that would fill the disk."""
    folder = partial.path.parent
    free = shutil.disk_usage(folder).free
    needed = (total or 0) - partial.size + MARGIN
    if free < needed:
        raise WriteError(
            f"{folder}: {partial.file.name} needs {needed:,} more bytes, {free:,} are free; make room or "
            "choose another folder"
        )


def _verify(partial: PartialFile, earlier: str) -> None:
    """Compare a complete file with its published size and hashes, or the SHA-256 of an earlier download."""
    file, digests = partial.file, partial.hashes.digests()
    expected = {"md5": file.md5, "sha256": file.sha256 or earlier}
    wrong = [name for name, value in expected.items() if value and value != digests[name]]
    if file.size is not None and partial.size != file.size:
        difference = f"{partial.size:,} bytes instead of {file.size:,}"
    elif wrong:
        difference = f"{wrong[0]} {digests[wrong[0]]} instead of {expected[wrong[0]]}"
    else:
        return
    partial.discard()
    than = "than before" if earlier and not file.is_pinned else "than published"
    raise DamagedError(f"{file.url}: another content {than} ({difference}); what came was removed, try again")


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of the files that were fetched into a folder, by name."""
    return {name: entry for name, entry in read_mapping(folder / RECORD).items() if isinstance(entry, dict)}


def _record(folder: Path, file: RemoteFile, hashes: RunningHashes, checked: str) -> None:
    """Record a file that was fetched into a folder."""
    entry = {"url": file.url, "size": hashes.size, **hashes.digests(), "checked": checked}
    with exclusive_lock(folder):  # else one of two downloads at once would lose the other's record
        entries = _records(folder) | {file.name: entry}
        with atomic_file(folder / RECORD) as target:
            target.write(json.dumps(entries, indent=1, sort_keys=True).encode())


@contextmanager
def _only_writer(part: Path) -> Iterator[None]:
    """Keep other processes from writing the same part; an empty part is removed at the end."""
    with naming(part):
        part.touch()
    with exclusive_lock(part, "fetching this file"):
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
                state_of(part).unlink(missing_ok=True)
