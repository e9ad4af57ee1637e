"""Turbomole: what cclib does not tell about its outputs, and its table of vibrations (`vibspectrum`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.records import check_readable
from molspectra.errors import DamagedError, FormatError, InputError, MismatchError, UnitError, ValueRangeError
from molspectra.spectra.files.calculation import line_spectrum
from molspectra.spectra.files.text import decoded_lines
from molspectra.spectra.spectrum import LineSpectrum

_TABLE = "$vibrational spectrum"
_ROW = re.compile(  # mode, symmetry, wavenumber, intensity, selection rules; a rigid motion has no symmetry
    r"(\d{1,6})\s+(?:[A-Za-z]\S*\s+)?(i?-?\d{1,9}\.\d+)\s+(-?\d{1,9}\.\d+)(?:\s+(?:YES|NO|-))*"
)
_RIGID = 1.0  # cm⁻¹; projected rigid motions are below it
_EXCITATION = re.compile(r"\s+(\d+ (?:[a-z]+ )?\S+) excitation\s*")
_WEIGHT = re.compile(r"[\s*]*\d+[\s*]+[a-z]{1,2}[\s*]+(\d{1,9}\.\d+)[\s*]*")
_ELECTRONS = re.compile(r"\s*Integral of ground state density: N =\s*(\d{1,9}\.\d+)")
_SPINS = re.compile(r"\s*(?:ALPHA|BETA)-Occupation\s*:\s*(\d{1,9})")
_OCCUPIED = re.compile(r"\s*number of occupied orbitals\s*:\s*(\d{1,9})")
_TOTAL = re.compile(r"Charge:\s+elec\s+nuc\s+total\s+-?[\d.]+\s+-?[\d.]+\s+(-?\d{1,9}\.\d+)")  # of escf
_OPEN_SHELL = re.compile(r" (RPA|CI SINGLES) UHF-")  # cclib knows the headings of closed shells alone
_LARGEST_CHARGE = 9  # electrons that are missing beyond it are those of effective core potentials


def is_vibspectrum(path: Path) -> bool:
    """Whether a file is a table of vibrations, as Turbomole and xtb write it; its name has no ending.

    Raises:
        InputError: there is no such file.
    """
    check_readable(path)
    with path.open("rb") as file:
        return file.read(256).lstrip().startswith(_TABLE.encode())


def read_vibspectrum(path: Path) -> LineSpectrum:
    """Read the infrared lines, cm⁻¹ and km/mol, of a table of vibrations, without the rigid motions.

    An imaginary wavenumber becomes negative. The table tells neither structure nor level of theory.

    Raises:
        InputError: the table is cut short, not in km/mol, without intensities, or not that of a molecule.
    """
    lines = [line.strip() for line in decoded_lines(path)]
    try:
        return _table(lines)
    except InputError as error:
        raise error.with_context(path) from error


def _table(lines: Sequence[str]) -> LineSpectrum:
    """Read the table of vibrations in the lines of a file."""
    start = next(index for index, line in enumerate(lines, start=1) if line.startswith(_TABLE))
    stop = next((index for index, line in enumerate(lines) if line.startswith("$") and index >= start), None)
    if stop is None:
        raise DamagedError("the table of vibrations is cut short: it has no $end")
    if any(line.startswith(_TABLE) for line in lines[start:]):
        raise FormatError("it holds several tables of vibrations; give each its own file")
    if not any(re.search(r"\bkm(/|\*)mol", line) for line in lines[start:stop] if line.startswith("#")):
        raise UnitError("the header of the table does not say that the intensities are in km/mol")
    wavenumbers: list[float] = []
    intensities: list[float] = []
    for number, line in enumerate(lines[start:stop], start=start + 1):
        if not line or line.startswith("#"):
            continue
        row = _ROW.fullmatch(line)
        if row is None:
            columns = "mode, symmetry, wavenumber, intensity and selection rules"
            raise FormatError(f"line {number}: {line[:60]!r} is not {columns}")
        if int(row[1]) != len(wavenumbers) + 1:
            raise DamagedError(f"line {number}: mode {row[1]} follows mode {len(wavenumbers)}")
        wavenumbers.append(float(row[2].replace("i", "-").replace("--", "-")))
        intensities.append(float(row[3]))
    position, intensity = np.array(wavenumbers), np.array(intensities)
    moving = np.abs(position) >= _RIGID
    rigid = len(position) - int(moving.sum())
    if len(position) % 3 or rigid not in (5, 6):
        motions = f"{len(position)} modes, {rigid} of them below {_RIGID:g} cm⁻¹"
        raise DamagedError(f"{motions}; a molecule has three for each atom, 5 or 6 of them rigid motions")
    if not intensity[moving].any():
        raise ValueRangeError("no intensities: all are zero; calculate with derivatives of the dipole moment")
    return line_spectrum("ir", position[moving], intensity[moving], "vibspectrum, level of theory unknown")


def complete(data: Any, lines: Sequence[str]) -> None:
    """Put into cclib's data what it leaves out: functional, charge, masses; of triplets, no intensity.

    Raises:
        InputError: results of several methods or structures, or the charge cannot be found.
    """
    if any("|  %t1   |  %t2   |" in line for line in lines):
        raise FormatError("excited states of ricc2 are not read; calculate them with escf")
    headings = [index for index, line in enumerate(lines) if line.strip() == "density functional"]
    names = sorted({_functional(lines, index) for index in headings})
    if len(names) > 1:
        raise FormatError(f"it holds results of several functionals ({', '.join(names)}); split the file")
    if names:
        data.metadata["functional"] = names[0]
    elif not data.metadata["methods"]:  # aoforce and escf calculate no other method
        data.metadata["methods"] = ["HF"]
    if not hasattr(data, "charge"):
        data.charge = _charge(data.atomnos.tolist(), lines)
    weights = _weights(lines)
    if weights:
        if len(weights) != len(data.atomnos):
            raise MismatchError(f"{len(weights)} atomic weights for {len(data.atomnos)} atoms")
        data.atommasses = weights
    kinds = [match[1] for line in lines if (match := _OPEN_SHELL.match(line))]
    if kinds:
        known = {"RPA": "TD-DFT" if names else "RPA", "CI SINGLES": "TDA" if names else "CIS"}
        data.metadata.setdefault("excited_states_method", known[kinds[-1]])
    excitations = [match[1] for line in lines if (match := _EXCITATION.fullmatch(line))]
    if len(set(excitations)) < len(excitations):
        raise FormatError("it holds excited states of several structures; give each its own file")
    if hasattr(data, "etoscs"):  # of triplets, the strength without spin is printed; they are forbidden
        pairs = zip(data.etsyms, data.etoscs, strict=True)
        data.etoscs = [0.0 if symmetry.startswith("Triplet") else value for symmetry, value in pairs]


def _functional(lines: Sequence[str], index: int) -> str:
    """Return the name of the functional below the heading in line `index`."""
    below = (line.strip() for line in lines[index + 1 : index + 5])
    text = next((line for line in below if line.strip("- ")), "")
    name = re.sub(r"( hybrid| meta-GGA)* functional$", "", text.rpartition(": ")[2])
    if not name:
        raise FormatError("the density functional is not named below its heading")
    return name


def _charge(numbers: Sequence[int], lines: Sequence[str]) -> int:
    """Return the charge: as escf prints it, else that of the nuclei less the number of electrons.

    Raises:
        FormatError: the number of electrons is not printed, or does not count those of the cores.
    """
    total = _TOTAL.search("\n".join(lines))
    if total is not None:
        return round(float(total[1]))
    missing = "add the output of dscf or ridft to the file, before this one"
    electrons = _electrons(lines)
    if electrons is None:
        raise FormatError(f"the number of electrons, and so the charge, is not found in it; {missing}")
    charge = sum(numbers) - electrons
    if abs(charge) > _LARGEST_CHARGE:
        raise FormatError(f"with effective core potentials the charge is not found in it; {missing}")
    return charge


def _electrons(lines: Sequence[str]) -> int | None:
    """Return the number of electrons; None where it is not printed."""
    density = [match[1] for line in lines if (match := _ELECTRONS.match(line))]
    if density:
        return round(float(density[-1]))
    spins = [int(match[1]) for line in lines if (match := _SPINS.match(line))]
    if spins:
        return sum(spins[-2:])
    occupied = [int(match[1]) for line in lines if (match := _OCCUPIED.match(line))]
    closed = not any("$uhfmo" in line for line in lines)
    return 2 * occupied[-1] if occupied and closed else None


def _weights(lines: Sequence[str]) -> list[float]:
    """Return the last atomic weights, amu, that are listed; empty where none are."""
    found: list[float] = []
    for index, line in enumerate(lines):
        if line.strip().startswith("ATOMIC WEIGHTS"):
            matches = takewhile(bool, map(_WEIGHT.fullmatch, lines[index + 3 :]))
            found = [float(match[1]) for match in matches if match]
    return found
