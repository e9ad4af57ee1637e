"""Read spectra from any supported file, recognised by its suffix and content."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path

from molspectra.errors import FormatError, NotFoundError, SettingError, UnitError
from molspectra.spectra.files.instruments import instrument_reader, named_as_instrument, read_instrument
from molspectra.spectra.files.measured import FLOOR, MeasuredSpectrum, onto_axis
from molspectra.spectra.files.turbomole import is_vibspectrum, read_vibspectrum
from molspectra.spectra.files.units import asked_quantity, asked_unit, named_quantities, settled
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

JCAMP = (".jdx", ".dx", ".jcm", ".jcamp")
TEXT = (".csv", ".txt", ".tsv", ".dat", ".xy", ".asc", ".dpt")
OUTPUT = (".out", ".log")


def named_as_measured(path: Path) -> bool:
    """Whether a file has an ending of measured spectra: JCAMP-DX, text, or the file of an instrument."""
    return path.suffix.lower() in (*JCAMP, *TEXT) or named_as_instrument(path)


def holds_lines(path: Path) -> bool:
    """Whether a file holds lines: an output by its ending, a table of vibrations by its content.

    Raises:
        InputError: there is no such file.
    """
    return path.suffix.lower() in OUTPUT or is_vibspectrum(path)


def read_measured(
    path: str | PathLike[str],
    *,
    modality: str | None = None,
    unit: str | None = None,
    quantity: str | None = None,
) -> list[MeasuredSpectrum]:
    """Read the measured spectra of a file, each on the axis of the file.

    Args:
        path: the file; that of an instrument by its first bytes, whatever its suffix; JCAMP-DX by its suffix;
            else two columns of text.
        modality: modality of the spectra whose file does not name it.
        unit: axis unit of a text file whose header does not name it; it must not contradict the file, of
            other files those of its spectra that have the modality.
        quantity: quantity of the values, likewise; of the file of an instrument with several quantities,
            only the spectra of this one are read.

    Raises:
        InputError: the file is damaged, says another unit or quantity than was given, or unit, quantity or
            modality are neither given nor in the file.
    """
    path = Path(path)
    if holds_lines(path):
        raise FormatError(f"{path}: outputs of programs hold lines; read them with read_spectra")
    reader = instrument_reader(path)
    if reader is not None or path.suffix.lower() in JCAMP:
        from molspectra.spectra.files.jcamp import read_jcamp

        if reader is not None:
            found = read_instrument(path, reader, None if unit is None else asked_unit(unit))
            wanted = None if quantity is None else asked_quantity(quantity)
            found = [each for each in found if each.quantity == wanted] or found
        else:
            found = read_jcamp(path)
        spectra = [replace(each, modality=each.modality or modality) for each in found]
        return [
            each if modality not in (None, each.modality) else _agreeing(each, unit, quantity)
            for each in spectra
        ]
    from molspectra.spectra.files.text import read_text

    return [read_text(path, modality=modality, unit=unit, quantity=quantity)]


def _agreeing(spectrum: MeasuredSpectrum, unit: str | None, quantity: str | None) -> MeasuredSpectrum:
    """Return a spectrum of a file, no text, with what its words leave open; refuse a contradiction to them.

    An ordinate whose words mean no known quantity stays, and is refused on conversion.
    """
    asked = None if unit is None else asked_unit(unit)
    if asked is not None and asked != spectrum.unit:
        raise UnitError(f"{spectrum.source}: the file says {spectrum.unit}, not {asked}")
    named = named_quantities(spectrum.header["YUNITS"])
    if spectrum.quantity == "percent" and quantity is not None:  # the file does not tell of what
        named = {f"percent {asked_quantity(quantity).removeprefix('percent ')}"}
    if quantity is None or not named:
        return spectrum
    agreed = settled(asked_quantity(quantity), named)
    if agreed is None:
        says = " and ".join(sorted(named))
        raise UnitError(f"{spectrum.source}: the file says {says}, not {asked_quantity(quantity)}")
    return replace(spectrum, quantity=agreed)


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
    """Read all spectra of a file: lines from an output of a program, else samples on the modality's axis.

    Args:
        path: JCAMP-DX, two columns of text, a file of an instrument, an output of Gaussian, ORCA, …, or
            a table of vibrations (`vibspectrum`) of Turbomole or xtb.
        modality: read only spectra of this modality; also that of a file that does not name it.
        unit: see `read_measured`.
        quantity: see `read_measured`.
        outside: see `molspectra.spectra.files.measured.onto_axis`.
        floor: see `onto_axis`.
        reflectance: see `onto_axis`.

    Raises:
        InputError: the file is damaged, has no spectrum of that modality, or a spectrum cannot be converted.
    """
    path = Path(path)
    spectra: list[SampledSpectrum | LineSpectrum]
    if is_vibspectrum(path):
        spectra = [read_vibspectrum(path)]
    elif path.suffix.lower() in OUTPUT:
        from molspectra.spectra.files.outputs import read_output

        spectra = list(read_output(path).spectra.values())
    else:
        spectra = [
            onto_axis(measured, outside=outside, floor=floor, reflectance=reflectance).spectrum
            for measured in read_measured(path, modality=modality, unit=unit, quantity=quantity)
            if modality is None or measured.modality in (None, modality)
        ]
    if modality is not None:
        spectra = [spectrum for spectrum in spectra if spectrum.modality == modality]
    if not spectra:
        raise NotFoundError(f"{path} holds no {modality or ''} spectrum".replace("  ", " "))
    return spectra


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
    """Read the only spectrum (of that modality) of a file; arguments as for `read_spectra`.

    Raises:
        InputError: as `read_spectra`, and if there are several.
    """
    spectra = read_spectra(
        path,
        modality,
        unit=unit,
        quantity=quantity,
        outside=outside,
        floor=floor,
        reflectance=reflectance,
    )
    if len(spectra) > 1:
        kinds = ", ".join(spectrum.modality for spectrum in spectra)
        raise SettingError(
            f"{path} holds {len(spectra)} spectra ({kinds}); name the modality or use read_spectra"
        )
    return spectra[0]
