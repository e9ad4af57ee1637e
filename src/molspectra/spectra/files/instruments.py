"""Recognise the binary files of instruments by their first bytes, and read the spectra in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from molspectra.chem.records import check_readable
from molspectra.errors import FormatError, InputError, NotFoundError
from molspectra.spectra.files.binary import Bytes, read_bytes
from molspectra.spectra.files.measured import MeasuredSpectrum
from molspectra.spectra.files.opus import MARK as OPUS
from molspectra.spectra.files.opus import read_opus
from molspectra.spectra.files.sp import MARK as SP
from molspectra.spectra.files.sp import read_sp
from molspectra.spectra.files.spa import MARK as SPA
from molspectra.spectra.files.spa import read_spa
from molspectra.spectra.files.spc import is_spc, read_spc
from molspectra.spectra.files.wdf import MARK as WDF
from molspectra.spectra.files.wdf import read_wdf

Reader = Callable[[Path, Bytes, str | None], list[MeasuredSpectrum]]
"""Reads the spectra of a file, given the unit of an axis whose unit the file does not tell."""

ENDINGS = (".spc", ".spa", ".wdf", ".sp")
"""Usual endings, besides the numbers of OPUS (.0, .1, …)."""

_NUMBERED = re.compile(r"\.\d{1,4}")
_EXPORT = "export the spectrum as JCAMP-DX or text in the program of the instrument"
_READERS: dict[bytes, Reader] = {OPUS: read_opus, SP: read_sp, SPA: read_spa, WDF: read_wdf}
_REFUSED = {
    b"\xd0\xcf\x11\xe0": "an OLE container, as programs of Shimadzu and JASCO write",
}


def named_as_instrument(path: Path) -> bool:
    """Whether the name of a file has an ending that instruments use."""
    ending = path.suffix.lower()
    return ending in ENDINGS or _NUMBERED.fullmatch(ending) is not None


def instrument_reader(path: Path) -> Reader | None:
    """Return the reader for the binary file of an instrument; None for any other file.

    Raises:
        InputError: there is no such file, or its format is recognised and not read.
    """
    check_readable(path)
    with path.open("rb") as file:
        head = file.read(64)
    for mark, name in _REFUSED.items():
        if head.startswith(mark):
            raise FormatError(f"{path}: {name}, is not read; {_EXPORT}")
    for mark, reader in _READERS.items():
        if head.startswith(mark):
            return reader
    if is_spc(head):
        return read_spc
    return None


def read_instrument(path: Path, reader: Reader, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the spectra of the binary file of an instrument.

    Raises:
        InputError: the file is damaged, too large, holds no spectrum, or a package is missing; the message
            begins with its path.
    """
    file = read_bytes(path)
    try:
        with np.errstate(all="ignore"):  # what overflows is not finite, and refused
            spectra = reader(path, file, unit)
    except InputError as error:
        raise (error if str(error).startswith(str(path)) else error.with_context(path)) from error
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise FormatError(
            f"{path}: damaged, or not in the format that its first bytes say ({reason})"
        ) from error
    if not spectra:
        raise NotFoundError(f"{path}: no spectrum in it")
    return spectra
