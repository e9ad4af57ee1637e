"""Spectra from any file that the package can read, told apart by suffix and content."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from molspectra.errors import InputError
from molspectra.spectra.files.measured import FLOOR, MeasuredSpectrum, onto_axis
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

JCAMP = (".jdx", ".dx", ".jcm", ".jcamp")
TEXT = (".csv", ".txt", ".tsv", ".dat", ".xy", ".asc", ".dpt")
OUTPUT = (".out", ".log")
SUFFIXES = (*JCAMP, *TEXT, *OUTPUT)
"""Suffixes of files with spectra."""


def read_measured(
    path: str | PathLike[str],
    *,
    modality: str | None = None,
    unit: str | None = None,
    quantity: str | None = None,
) -> list[MeasuredSpectrum]:
    """Measured spectra of a JCAMP-DX or text file, each with the axis that the file has.

    Args:
        path: the file; `.jdx` and its like are JCAMP-DX, everything else is two columns of text.
        modality: kind of spectrum where a text file does not tell it.
        unit: of the axis of a text file, where its header does not tell it.
        quantity: of the values of a text file, where its header does not tell it.

    Raises:
        InputError: if the file is damaged, or does not tell what is needed.
    """
    path = Path(path)
    if path.suffix.lower() in OUTPUT:
        raise InputError(f"{path}: outputs of programs hold lines; read them with read_spectra")
    if path.suffix.lower() in JCAMP:
        from molspectra.spectra.files.jcamp import read_jcamp

        return read_jcamp(path)
    from molspectra.spectra.files.text import read_text

    return [read_text(path, modality=modality, unit=unit, quantity=quantity)]


def read_spectra(
    path: str | PathLike[str],
    modality: str | None = None,
    *,
    unit: str | None = None,
    quantity: str | None = None,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
) -> list[SampledSpectrum | LineSpectrum]:
    """All spectra of a file: lines of a program's output, else samples on the axis of their modality.

    Args:
        path: JCAMP-DX, two columns of text, or an output of Gaussian, ORCA, ….
        modality: take only spectra of this kind; also the kind of a text file whose header does not tell it.
        unit: see `read_measured`.
        quantity: see `read_measured`.
        outside: see `molspectra.spectra.files.measured.onto_axis`.
        floor: see `onto_axis`.
        reflectance: see `onto_axis`.

    Raises:
        InputError: if the file is damaged, holds nothing of that modality, or a spectrum cannot be converted.
    """
    path = Path(path)
    found: list[SampledSpectrum | LineSpectrum]
    if path.suffix.lower() in OUTPUT:
        from molspectra.spectra.files.outputs import read_output

        found = list(read_output(path).spectra.values())
    else:
        measured = read_measured(path, modality=modality, unit=unit, quantity=quantity)
        found = [
            onto_axis(each, outside=outside, floor=floor, reflectance=reflectance).spectrum
            for each in measured
            if modality is None or each.modality in (None, modality)
        ]
    chosen = [each for each in found if modality is None or each.modality == modality]
    if not chosen:
        raise InputError(f"{path} holds no {modality or ''} spectrum".replace("  ", " "))
    return chosen


def read_spectrum(
    path: str | PathLike[str],
    modality: str | None = None,
    *,
    unit: str | None = None,
    quantity: str | None = None,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
) -> SampledSpectrum | LineSpectrum:
    """The spectrum of a file that holds one (of that modality); arguments as for `read_spectra`.

    Raises:
        InputError: as `read_spectra`, and if there are several.
    """
    found = read_spectra(
        path,
        modality,
        unit=unit,
        quantity=quantity,
        outside=outside,
        floor=floor,
        reflectance=reflectance,
    )
    if len(found) > 1:
        kinds = ", ".join(each.modality for each in found)
        raise InputError(
            f"{path} holds {len(found)} spectra ({kinds}); name the modality or use read_spectra"
        )
    return found[0]
