"""Files of `torch.save`, read by torch's weights-only reader; nothing that a file names is imported or run.

The reader of torch builds plain values and tensors. Every other class or function that a file names is
replaced by an inert `Record` where the caller expects it, and refused otherwise. Instructions that would end
the process are refused before (see `instructions`).

Tensors are views of the mapped file. The structure is in memory as a whole: 32 kB per entry of 17 tensors,
measured on 12,000 entries in the form of the QM9S list; that is 4 GB for the published 129,817 entries.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from molspectra.datasets.formats.instructions import check_instructions
from molspectra.errors import DamagedError, FormatError, NotFoundError, ValueRangeError

if TYPE_CHECKING:
    from torch import Tensor

MAX_PICKLE = 2 << 30
"""Largest structure (`data.pkl`) that is read, bytes; that of 130,000 molecules has a few hundred MB."""
MAX_UNZIPPED = 1 << 30
"""Largest size to which a `.gz` file may grow, bytes."""
MAX_UNZIPPED_PICKLE = 16 << 20
"""Largest structure in a `.gz` file: a byte of it can take ninety of memory, and next to none when zipped."""

_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # magic number of torch.save before version 1.6
_HOSTILE = re.compile(
    r"(os|posix|nt|ntpath|posixpath|sys|subprocess|pty|platform|shutil|socket|_?ctypes|importlib|runpy|_?pickle"
    r"|_?io|pip|code|codeop|webbrowser|operator|timeit|pdb|bdb|multiprocessing|signal|marshal)\..*"
    r"|builtins\.(eval|exec|compile|open|input|[gsd]\w+attr|__import__|breakpoint|globals|locals|vars)"
)
"""Names that give access to the machine: refused rather than replaced, because no file of data has them."""


class Record:
    """Inert stand-in for an object: what the file holds of it, without its class.

    Attributes:
        name: full name of the class, or of the function that would make the object.
        arguments: what it would be called with.
        state: the attributes, mostly a dictionary; None where the file has none.
    """

    name = ""
    arguments: tuple[Any, ...] = ()  # of an object that is made without its class being called
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<inert record of {self.name}>"


def load_pickled(path: Path | str, inert: Collection[str] = ()) -> Any:
    """Read a file of `torch.save`, also gzipped.

    Args:
        path: the file.
        inert: beginnings of the names of classes that become a `Record`; "" stands for all but those that
            give access to the machine. Any other class is refused.

    Returns:
        Numbers, texts, None, lists, tuples, sets, dictionaries, tensors on the CPU and `Record`s; for a class
        itself, a subclass of `Record`.

    Raises:
        NotFoundError: no such file.
        DamagedError: a file that is cut short, or a member without its checksum.
        FormatError: no file of torch ≥ 1.6, a class that is not among `inert`, or a structure that cannot be
            read.
        ValueRangeError: a file that is larger than the limits of this module.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    with ExitStack() as stack:
        if path.suffix == ".gz":  # from a temporary file, because only a mapped one is read within its bounds
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            archive = Path(folder) / "unzipped.pt"
            archive.write_bytes(_unzipped(path))
            _check_archive(archive, path, MAX_UNZIPPED_PICKLE)
        else:
            archive = path
            _check_archive(archive, path, MAX_PICKLE)
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(str(archive))
            stack.enter_context(torch.serialization.safe_globals(_stand_ins(path, named, tuple(inert))))
            stack.enter_context(warnings.catch_warnings(action="ignore"))
            return torch.load(str(archive), map_location="cpu", mmap=True, weights_only=True)
        except FormatError:
            raise
        except Exception as error:  # a wrong structure can fail in every way
            raise FormatError(f"{path}: its structure cannot be read ({_reason(error)})") from error


def is_dense(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor in memory that has a stored number for each of its elements."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def as_array(value: object) -> npt.NDArray[Any]:
    """Return the numbers of a dense tensor as an array that shares its memory.

    Raises:
        TypeError: anything else than a dense tensor, or numbers of a type that numpy lacks (bfloat16).
    """
    if not is_dense(value):
        raise TypeError("not a dense tensor")
    return np.asarray(value.detach().numpy())


def _stand_ins(
    path: Path, names: Collection[str], inert: tuple[str, ...]
) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what torch's reader uses for the names of a file that it does not know itself."""
    harmless: dict[str, Callable[..., Any]] = {
        "builtins.frozenset": frozenset,
        "collections.defaultdict": lambda *_: {},
    }
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for name in names:
        if name not in harmless and (_HOSTILE.fullmatch(name) or not name.startswith(inert)):
            raise FormatError(
                f"{path}: refers to {name[:120]!r}, which data have no need of; the file is of another kind, "
                "or made to do harm (nothing of it was run)"
            )
        stand_in = harmless.get(name) or type(name.rpartition(".")[2], (Record,), {"name": name})
        stand_ins.append((stand_in, name))
    return stand_ins


def _check_archive(archive: Path, path: Path, limit: int) -> None:
    """Check that a file is a whole zip archive as torch writes it, with the checksum of every member.

    Args:
        archive: the file.
        path: its name in errors.
        limit: largest size of its structure, bytes.
    """
    with archive.open("rb") as file:
        head = file.read(16)
    if head[2:].startswith(_LEGACY):
        raise FormatError(
            f"{path}: in the format of torch before version 1.6; load and save it once with a newer torch"
        )
    if not head.startswith(b"PK\x03\x04"):
        raise FormatError(
            f"{path}: {'not a file of torch.save (no zip archive)' if head else 'an empty file'}"
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
                raise FormatError(f"{path}: has compressed or encrypted members; torch writes none")
            if sum(member.file_size for member in members) > archive.stat().st_size:
                raise DamagedError(f"{path}: damaged or incomplete: its members overlap or leave the file")
            names = [member.filename.partition("/")[2].lower() for member in members]  # torch ignores case
            structures = [member for member, name in zip(members, names, strict=True) if name == "data.pkl"]
            if len(structures) != 1:
                raise FormatError(f"{path}: a zip archive, but not one of torch.save (no single data.pkl)")
            size = structures[0].file_size
            if size > limit:
                raise ValueRangeError(
                    f"{path}: data.pkl has {size} bytes, more than the {limit} that are read"
                )
            if (member := opened.testzip()) is not None:  # torch does not compare checksums
                raise DamagedError(f"{path}: damaged: member {member[:80]!r} does not have its checksum")
            check_instructions(opened.read(structures[0]), path)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, zlib.error) as error:
        raise DamagedError(f"{path}: damaged or incomplete ({_reason(error)})") from error


def _unzipped(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_UNZIPPED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedError(f"{path}: cannot be unzipped ({_reason(error)})") from error
    if len(content) > MAX_UNZIPPED:
        raise ValueRangeError(f"{path}: larger than {MAX_UNZIPPED} bytes when unzipped; unzip it by hand")
    return content


def _reason(error: BaseException) -> str:
    """Return the first line of what is wrong; torch's messages begin and end with paragraphs of advice."""
    lines = str(error).rpartition("WeightsUnpickler error: ")[2].strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
