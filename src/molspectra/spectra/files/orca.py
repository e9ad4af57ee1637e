"""Read outputs of ORCA 6: the last structure, IR and Raman lines, excitations."""

from __future__ import annotations

import re

import numpy as np

from molspectra.chem.elements import atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, FormatError
from molspectra.spectra.files.calculation import Output, line_spectrum

_NUMBER = r"-?\d+\.\d+"
_ATOM = re.compile(rf"\s*([A-Z][a-z]?)\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})\s*$")
_IR = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+{_NUMBER}\s+({_NUMBER})\s")  # mode, cm⁻¹, L/(mol·cm), km/mol
_MODE = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+cm\*\*-1")
_VIBRATIONS = re.compile(r"The total number of vibrations considered is (\d{1,6})\s*$")
_RUN_KEYWORDS = """
freq numfreq anfreq opt tightopt verytightopt looseopt usesym nousesym rks uks rhf uhf sp engrad moread
slowconv noautostart miniprint normalprint largeprint tightscf verytightscf
"""
_RAMAN = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+({_NUMBER})\s")  # mode, cm⁻¹, Å⁴/amu
_STATE = re.compile(rf".*->\s+\S+\s+({_NUMBER})\s+{_NUMBER}\s+{_NUMBER}\s+({_NUMBER})\s")  # eV, cm⁻¹, nm, f
_TABLES = {"ir": ("IR SPECTRUM", _IR), "raman": ("RAMAN SPECTRUM", _RAMAN)}
_EXCITED = "ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS"
_MAX_HEAD = 20  # lines between a heading and its first row


def orca_version(lines: list[str]) -> int:
    """Return the main version of the program, 0 if the output does not state it."""
    for line in lines[:200]:
        match = re.search(r"Program Version (\d+)\.", line)
        if match:
            return int(match[1])
    return 0


def orca_output(lines: list[str], name: str) -> Output:
    """Parse the lines of an output of ORCA 6; `name` is that of the molecule.

    Of a section that occurs more than once (in an optimisation), the last one is read.

    Raises:
        InputError: the calculation did not end normally, or a section is damaged.
    """
    if not any("ORCA TERMINATED NORMALLY" in line for line in lines[-30:]):
        raise DamagedError("the calculation did not end normally, or the file is cut short")
    atoms = _rows(lines, "CARTESIAN COORDINATES (ANGSTROEM)", _ATOM)
    if not atoms:
        raise FormatError("no structure found in it")
    charge = next((line.split()[-1] for line in reversed(lines) if line.startswith(" Total Charge")), "0")
    try:
        numbers = np.array([atomic_number(symbol) for symbol, *_ in atoms])
        positions = np.array([[float(word) for word in xyz] for _, *xyz in atoms])
        molecule = Molecule(numbers, positions, None, int(charge), name)
    except ValueError as error:
        raise FormatError(f"its total charge is {charge[:20]!r}") from error
    level = _level(lines)
    spectra = {}
    for name, (heading, row) in _TABLES.items():
        rows = _rows(lines, heading, row)
        if rows:
            counts = [int(match[1]) for line in lines if (match := _VIBRATIONS.match(line))]
            if counts and counts[-1] != len(rows):
                raise DamagedError(f"{counts[-1]} vibrations, but {len(rows)} rows below {heading}")
            table = np.array(rows, np.float64)
            spectra[name] = line_spectrum(name, table[:, 0], table[:, 1], level)
    rows = _rows(lines, _EXCITED, _STATE)
    if rows:
        table = np.array(rows, np.float64)
        approximate = any(re.search(r"Tamm-Dancoff approximation .*operative", line) for line in lines)
        method = "TDA" if approximate else "TD-DFT"
        spectra["uv_vis"] = line_spectrum("uv_vis", table[:, 0], table[:, 1], f"{method}, {level}")
    energy = next((line for line in reversed(lines) if re.match(r"\s*Total Energy\s+:", line)), None)
    scf = re.search(rf":\s+({_NUMBER}) Eh", energy) if energy else None
    modes = [float(value) for (value,) in _rows(lines, "VIBRATIONAL FREQUENCIES", _MODE)]
    imaginary = tuple(value for value in modes if value < 0)
    return Output(molecule, spectra, level, float(scf[1]) if scf else None, imaginary)


def _rows(lines: list[str], heading: str, row: re.Pattern[str]) -> list[tuple[str, ...]]:
    """Return the groups of the rows below the last `heading`, up to the first line that is not a row."""
    starts = [number for number, line in enumerate(lines) if line.strip() == heading]
    rows: list[tuple[str, ...]] = []
    for offset, line in enumerate(lines[starts[-1] + 1 :] if starts else []):
        match = row.match(line + " ")
        if match:
            rows.append(match.groups())
        elif rows or offset > _MAX_HEAD:
            break
    return rows


def _level(lines: list[str]) -> str:
    """Return the level of theory: keywords of the input but those of the kind of run, and the version."""
    words: list[str] = []
    for line in lines:
        match = re.match(r"\|\s*\d+>\s*!(.*)", line)
        if match:
            keywords = match[1].partition("#")[0].lower().split()
            words += [word for word in keywords if word not in _RUN_KEYWORDS.split()]
        elif "****END OF INPUT****" in line:
            break
    return f"{' '.join(words) or 'unknown method'} (ORCA {orca_version(lines)})"
