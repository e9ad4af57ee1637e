"""Downloads that can be interrupted, resumed and trusted.

A file grows as `.NAME.part`, is hashed while it comes, and gets its name only when size and hash are right.
What was fetched stands in `downloads.json` beside it, so that a file without a published hash is at least
known to be the same the next time.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from molspectra.data.atomic import atomic_file, exclusive_lock, naming
from molspectra.datasets.fetch.remote import Answer, Dropped, ask, check_url
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


LOCK = "downloads.json"
"""Name of the file that remembers what was fetched."""

MARGIN = 64 << 20
"""Bytes that must stay free on the disk."""

LARGEST = 64 << 30
"""Bytes of the largest file that is fetched without a known size."""


@dataclass(frozen=True)
class Patience:
    """How long failures are put up with.

    Attributes:
        attempts: failures in a row without a new byte before giving up.
        first: seconds to wait after the first, doubled after each.
        longest: most seconds to wait, also if the server asks for more.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 120.0

    def wait(self, failures: int, asked: float | None) -> None:
        """Wait after so many failures in a row.

        Raises:
            Dropped: the server asks for more time than is acceptable.
        """
        seconds = min(self.first * 2 ** (failures - 1), self.longest) if asked is None else asked
        if seconds > self.longest:
            raise Dropped(f"the server asks to come back in {seconds:.0f} s")
        time.sleep(seconds)


@dataclass(frozen=True)
class Fetched:
    """What a download did.

    Attributes:
        path: of the file.
        size: bytes.
        sha256: of its content.
        was_there: it had been fetched before and is unchanged.
        checked: against what: "pinned hash", "hash published with the file" or "nothing".
    """

    path: Path
    size: int
    sha256: str
    was_there: bool
    checked: str


Advance = Callable[[int, int | None], None]
"""Told the bytes that are there and the bytes in all after every piece."""


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    accept_unverified: bool = False,
    overwrite: bool = False,
    advance: Advance | None = None,
    patience: Patience | None = None,
) -> Fetched:
    """Fetch a file into a folder, going on where an earlier attempt stopped.

    Args:
        file: what to fetch.
        folder: made where it is missing.
        accept_unverified: also fetch a file without a known hash.
        overwrite: replace a file of that name with other content.
        advance: shows progress.
        patience: with dropped connections.

    Raises:
        InputError: an address that is gone or not encrypted, a wrong hash or size, a full disk, a server that
            does not answer. The part that came stays unless it is known to be wrong.
    """
    if not file.is_pinned and not accept_unverified:
        raise InputError(
            f"{file.name}: no hash of it is known ({file.source or 'none is published'}), so it cannot be "
            "verified; --accept-unverified fetches it all the same and remembers its SHA-256"
        )
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.name, folder / f".{file.name}.part"
    known = _locked(folder).get(file.name, {})
    if path.exists() and not overwrite:
        return _present(file, path, known)
    with _alone(part):
        wanted = _described(file)
        check_url(wanted.url, local=file.local, plain=bool(file.sha256))
        size, digests = _complete(wanted, part, advance or _silent, patience or Patience())
        expected = "" if overwrite else known.get("sha256", "")
        _verify(wanted, size, digests, expected if not file.is_pinned else "", part)
        with naming(path):
            part.replace(path)
            state_of(part).unlink(missing_ok=True)
    checked = "pinned hash" if file.is_pinned else "hash published with the file" if wanted.md5 else "nothing"
    _remember(folder, file.name, wanted, size, digests, checked)
    return Fetched(path, size, digests["sha256"], False, checked)


def _present(file: RemoteFile, path: Path, known: dict[str, Any]) -> Fetched:
    """A file that is there: right, or in the way.

    Raises:
        InputError: its content is not the one that is known.
    """
    digests = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    size = 0
    with naming(path), path.open("rb") as source:
        while piece := source.read(CHUNK):
            size += len(piece)
            for digest in digests.values():
                digest.update(piece)
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    wanted = {"md5": file.md5, "sha256": file.sha256 or ("" if file.md5 else known.get("sha256", ""))}
    if any(wanted.values()) and all(found[name] == value for name, value in wanted.items() if value):
        return Fetched(
            path, size, found["sha256"], True, "pinned hash" if file.is_pinned else "earlier download"
        )
    if not file.is_pinned and not known:  # from a browser
        _remember(path.parent, file.name, file, size, found, "nothing")
        return Fetched(path, size, found["sha256"], True, "nothing")
    why = "has another hash than was published" if file.is_pinned else "has changed since it was fetched"
    raise InputError(f"{path}: {why}; move it away, or replace it with --overwrite")


def _described(file: RemoteFile) -> RemoteFile:
    """The file with address, size and MD5 from its article's description, where that is where they stand.

    Raises:
        InputError: the description cannot be read or does not name the file.
    """
    if not file.listing:
        return file
    try:
        answer = ask(file.listing, local=file.local)
        with answer.body:
            values = json.loads(answer.read(4 << 20))
        for each in values["files"]:
            if each["name"] == file.name:
                md5 = str(each.get("computed_md5") or each.get("supplied_md5") or "")
                found = {"url": str(each["download_url"]), "size": int(each["size"]), "md5": md5}
                return RemoteFile(**{**asdict(file), **found})
    except Dropped as error:
        raise InputError(f"{file.listing}: {error}; try again later") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file.listing}: not the description of an article") from error
    raise InputError(f"{file.listing}: names no file {file.name}")


def _complete(
    file: RemoteFile, part: Path, advance: Advance, patience: Patience
) -> tuple[int, dict[str, str]]:
    """Make the part whole; returns its size and hashes.

    Raises:
        InputError: a failure that will not pass, or too many that may.
    """
    failures = 0
    writer = PartialFile(file, part)
    with naming(part), part.open("ab") as target:
        while True:
            before = writer.size
            try:
                if _receive(file, writer, target, advance):
                    return writer.size, writer.digests()
                raise Dropped(f"the connection ended after {writer.size:,} bytes")
            except Dropped as error:
                failures = 1 if writer.size > before else failures + 1
                try:
                    if failures >= patience.attempts:
                        raise error
                    patience.wait(failures, error.wait)
                except Dropped as last:
                    raise InputError(
                        f"{file.url}: {last} ({failures} failures in a row); {writer.size:,} bytes are kept, "
                        "and the same command goes on from there"
                    ) from error


def _receive(file: RemoteFile, writer: PartialFile, target: BinaryIO, advance: Advance) -> bool:
    """One connection's worth of the file; returns whether it is whole now.

    Raises:
        Dropped: the connection broke.
        InputError: a size that cannot be right, or a full disk.
    """
    answer = ask(file.url, writer.resumable(), writer.validator, local=file.local, plain=bool(file.sha256))
    with answer.body:
        total = _agreed(file, answer)
        writer.begin(answer, target)
        if total is not None and writer.size == total:
            return True
        _room_for(target, file, total, writer.size)
        limit = total if total is not None else LARGEST
        while piece := answer.read(CHUNK):
            if writer.size + len(piece) > limit:
                writer.discard()
                raise InputError(f"{file.url}: sends more than {limit:,} bytes; nothing was kept")
            writer.add(piece, target)
            advance(writer.size, total)
    return writer.size == total if total is not None else True


def _agreed(file: RemoteFile, answer: Answer) -> int | None:
    """Bytes of the whole file, on which the server and the published size have to agree."""
    if file.size is not None and answer.total is not None and answer.total != file.size:
        raise InputError(
            f"{file.url}: has {answer.total:,} bytes, published were {file.size:,}; the file has changed"
        )
    if file.size is None and answer.total is not None and answer.total > LARGEST:
        raise InputError(
            f"{file.url}: has {answer.total:,} bytes, more than the {LARGEST:,} that are fetched"
        )
    return answer.total if file.size is None else file.size


def _room_for(target: BinaryIO, file: RemoteFile, total: int | None, there: int) -> None:
    """Refuse what would fill the disk."""
    free = shutil.disk_usage(Path(target.name).parent).free
    needed = (total or 0) - there + MARGIN
    if free < needed:
        raise InputError(
            f"{Path(target.name).parent}: {file.name} needs {needed:,} more bytes, {free:,} are free; make "
            "room or choose another folder"
        )


def _verify(file: RemoteFile, size: int, digests: dict[str, str], before: str, part: Path) -> None:
    """Compare with what is known; a wrong file is removed.

    Raises:
        InputError: another size or hash.
    """
    wanted = {"md5": file.md5, "sha256": file.sha256 or before}
    problem = next(
        (
            f"{name} {digests[name]} instead of {value}"
            for name, value in wanted.items()
            if value != digests[name] and value
        ),
        "",
    )
    if file.size is not None and size != file.size:
        problem = f"{size:,} bytes instead of {file.size:,}"
    if not problem:
        return
    part.unlink(missing_ok=True)
    state_of(part).unlink(missing_ok=True)
    known = "than before" if before and not file.is_pinned else "than published"
    raise InputError(f"{file.url}: another content {known} ({problem}); what came was removed, try again")


def _locked(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in read_mapping(folder / LOCK).items() if isinstance(each, dict)}


def _remember(
    folder: Path, name: str, file: RemoteFile, size: int, digests: dict[str, str], checked: str
) -> None:
    """Add a file to those that were fetched into the folder."""
    entry = {"url": file.url, "size": size, **digests, "checked": checked}
    with exclusive_lock(folder):  # else one of two downloads at once would forget the other's
        entries = _locked(folder) | {name: entry}
        with atomic_file(folder / LOCK) as target:
            target.write(json.dumps(entries, indent=1, sort_keys=True).encode())


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Keep other processes from writing the same part."""
    with naming(part):
        part.touch()
    with exclusive_lock(part, "fetching this file"):
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
                state_of(part).unlink(missing_ok=True)


def _silent(there: int, total: int | None) -> None:
    return
