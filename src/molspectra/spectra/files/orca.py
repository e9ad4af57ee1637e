"""Outputs of ORCA 6: the last structure, IR and Raman lines, excitations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from molspectra.chem.elements import atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.errors import InputError
from molspectra.spectra.files.calculation import Output, line_spectrum

_NUMBER = r"-?\d+\.\d+"
_ATOM = re.compile(rf"\s*([A-Z][a-z]?)\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})\s*$")
_IR = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+{_NUMBER}\s+({_NUMBER})\s")  # mode, cm⁻¹, L/(mol·cm), km/mol
_MODE = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+cm\*\*-1")
_VIBRATIONS = re.compile(r"The total number of vibrations considered is (\d{1,6})\s*$")
_RUN = """
freq numfreq anfreq opt tightopt verytightopt looseopt usesym nousesym rks uks rhf uhf sp engrad moread
slowconv noautostart miniprint normalprint largeprint tightscf verytightscf
"""
_RAMAN = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+({_NUMBER})\s")  # mode, cm⁻¹, Å⁴/amu
_STATE = re.compile(rf".*->\s+\S+\s+({_NUMBER})\s+{_NUMBER}\s+{_NUMBER}\s+({_NUMBER})\s")  # eV, cm⁻¹, nm, f
_TABLES = {"ir": ("IR SPECTRUM", _IR), "raman": ("RAMAN SPECTRUM", _RAMAN)}
_EXCITED = "ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS"
_HEAD = 20  # lines between a heading and its first row, at most


def orca_version(lines: list[str]) -> int:
    """Main version of the program, 0 where the output does not tell."""
    for line in lines[:200]:
        found = re.search(r"Program Version (\d+)\.", line)
        if found:
            return int(found[1])
    return 0


def orca_output(path: Path, lines: list[str]) -> Output:
    """What an output of ORCA 6 says.

    Where a section occurs more than once (an optimisation), its last occurrence counts.

    Raises:
        InputError: if the calculation did not end normally, or a section is damaged.
    """
    if not any("ORCA TERMINATED NORMALLY" in line for line in lines[-30:]):
        raise InputError(f"{path}: the calculation did not end normally, or the file is cut short")
    atoms = _rows(lines, "CARTESIAN COORDINATES (ANGSTROEM)", _ATOM)
    if not atoms:
        raise InputError(f"{path}: no structure found in it")
    charge = next((line.split()[-1] for line in reversed(lines) if line.startswith(" Total Charge")), "0")
    try:
        numbers = np.array([atomic_number(symbol) for symbol, *_ in atoms])
        positions = np.array([[float(word) for word in xyz] for _, *xyz in atoms])
        molecule = Molecule(numbers, positions, None, int(charge), path.stem)
    except ValueError as error:
        raise InputError(f"{path}: its total charge is {charge[:20]!r}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    level = _level(lines)
    spectra = {}
    for name, (heading, row) in _TABLES.items():
        found = _rows(lines, heading, row)
        if found:
            stated = [int(count[1]) for line in lines if (count := _VIBRATIONS.match(line))]
            if stated and stated[-1] != len(found):
                raise InputError(f"{path}: {stated[-1]} vibrations, but {len(found)} rows below {heading}")
            table = np.array(found, np.float64)
            spectra[name] = line_spectrum(path, name, table[:, 0], table[:, 1], level)
    found = _rows(lines, _EXCITED, _STATE)
    if found:
        table = np.array(found, np.float64)
        approximate = any(re.search(r"Tamm-Dancoff approximation .*operative", line) for line in lines)
        method = "TDA" if approximate else "TD-DFT"
        spectra["uv_vis"] = line_spectrum(path, "uv_vis", table[:, 0], table[:, 1], f"{method}, {level}")
    energy = next((line for line in reversed(lines) if re.match(r"\s*Total Energy\s+:", line)), None)
    scf = re.search(rf":\s+({_NUMBER}) Eh", energy) if energy else None
    modes = [float(value) for (value,) in _rows(lines, "VIBRATIONAL FREQUENCIES", _MODE)]
    imaginary = tuple(value for value in modes if value < 0)
    return Output(molecule, spectra, level, float(scf[1]) if scf else None, imaginary)


def _rows(lines: list[str], heading: str, row: re.Pattern[str]) -> list[tuple[str, ...]]:
    """Groups of the rows below the last line that is `heading`; they end at the first that is none."""
    starts = [number for number, line in enumerate(lines) if line.strip() == heading]
    found: list[tuple[str, ...]] = []
    for offset, line in enumerate(lines[starts[-1] + 1 :] if starts else []):
        match = row.match(line + " ")
        if match:
            found.append(match.groups())
        elif found or offset > _HEAD:
            break
    return found


def _level(lines: list[str]) -> str:
    """Keywords of the input but for those of the kind of run, and the version of the program."""
    words: list[str] = []
    for line in lines:
        found = re.match(r"\|\s*\d+>\s*!(.*)", line)
        if found:
            words += [word for word in found[1].partition("#")[0].lower().split() if word not in _RUN.split()]
        elif "****END OF INPUT****" in line:
            break
    version = next(
        (found[1] for line in lines[:200] if (found := re.search(r"Program Version (\S+)", line))), ""
    )
    return f"{' '.join(words) or 'unknown method'} (ORCA {version.partition('.')[0]})"
