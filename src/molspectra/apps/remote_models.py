"""Models from elsewhere: an archive whose content is pinned by its hash, or a Hugging Face repository."""

from __future__ import annotations

import re
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from molspectra.data.atomic import naming
from molspectra.datasets.fetch.download import RemoteFile, fetch
from molspectra.errors import (
    DamagedError,
    FormatError,
    MissingExtraError,
    NotFoundError,
    SettingError,
    WriteError,
)
from molspectra.training.checkpoint import CONFIG, WEIGHTS
from molspectra.training.seen import SEEN

HUB = "hf:"
"""Prefix of a Hugging Face repository."""

LARGEST = {WEIGHTS: 8 << 30, CONFIG: 4 << 20, SEEN: 1 << 30}
"""Files of a model, and the largest size of each in bytes; the last one may be missing."""

EXPANSION = 100
"""Largest total size of the files of an archive in sizes of the archive; weights hardly shrink."""

_ARCHIVE = "model.zip"


def from_url(address: str, cache: Path) -> Path:
    """The directory of a model from a ZIP archive at `URL#sha256=…`, downloaded once and kept.

    Args:
        address: of the archive; https, or http because the content is pinned.
        cache: where it is kept, in a folder named by its hash.

    Raises:
        InputError: an address without a hash, a failed download, another content, or no model in it.
    """
    url, _, pin = address.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", pin)
    if match is None:
        raise SettingError(f"{url}: pin the archive's content: add #sha256= and its 64 hexadecimal digits")
    digest = match[1].lower()
    folder = cache / digest
    if not (folder / "model").is_dir():
        fetch(RemoteFile(_ARCHIVE, url, sha256=digest), folder)
        unpack(folder / _ARCHIVE, folder / "model")
        (folder / _ARCHIVE).unlink(missing_ok=True)
    return folder / "model"


def unpack(archive: Path, target: Path) -> None:
    """Extract a model's files from a ZIP archive into a new directory, which appears complete or not at all.

    Other files of the archive are ignored, and so are the folders inside it.

    Raises:
        InputError: no archive, a file that is missing, twice there or too large.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            members: dict[str, zipfile.ZipInfo] = {}
            for info in source.infolist():
                name = PurePosixPath(info.filename).name
                if name not in LARGEST or info.is_dir():
                    continue
                if name in members:
                    raise FormatError(f"{archive}: {name} is in it twice; give an archive of one model")
                if info.file_size > LARGEST[name]:
                    raise FormatError(
                        f"{archive}: {name} has {info.file_size:,} bytes, more than a model has"
                    )
                members[name] = info
            missing = [name for name in (WEIGHTS, CONFIG) if name not in members]
            if missing:
                raise NotFoundError(f"{archive}: no model in it ({missing[0]} is missing)")
            _check_total(archive, sum(info.file_size for info in members.values()))
            _extract(source, members, target)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DamagedError(f"{archive}: not a readable ZIP archive ({error})") from error


def _check_total(archive: Path, total: int) -> None:
    """Refuse files of `total` bytes that are out of proportion to their archive or to the free space."""
    packed, free = archive.stat().st_size, shutil.disk_usage(archive.parent).free
    if total > EXPANSION * packed:
        raise FormatError(
            f"{archive}: its files take {total:,} bytes, more than {EXPANSION} times the archive; "
            "a model does not"
        )
    if total > free:
        raise WriteError(f"{archive}: its files take {total:,} bytes, and {free:,} are free")


def _extract(source: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], target: Path) -> None:
    """Write members of an archive, by their new names, into a new directory."""
    hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with naming(target):
            hidden.mkdir(parents=True)
            for name, info in members.items():
                with source.open(info) as packed, (hidden / name).open("xb") as file:
                    shutil.copyfileobj(packed, file)
            try:
                hidden.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first, with the same content
                    raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def from_hub(address: str) -> Path:
    """The directory of a model from `hf:owner/name` or `hf:owner/name@revision`, in the library's own cache.

    Raises:
        InputError: not such a name, the extra `hub` is missing, or the repository cannot be fetched.
    """
    repository, _, revision = address.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SettingError(f"{address}: expected hf:owner/name, or hf:owner/name@revision")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(
            f"{address}: needs huggingface_hub (pip install 'molspectra[hub]'), or download the repository "
            "and give its directory"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(LARGEST)))
    except Exception as error:  # the library, its HTTP client and the server raise many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NotFoundError(f"{address}: cannot be fetched ({reason})") from error
