"""Read outputs of ORCA, version 4 and later: the last structure, IR and Raman lines, excitations."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from molspectra.chem.elements import atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, ElementError, FormatError
from molspectra.spectra.files.calculation import (
    Output,
    check_masses,
    check_modes,
    in_job,
    joined_jobs,
    line_spectrum,
)
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.spectra.units import WAVENUMBERS_PER_EV

_BANNER = re.compile(r"[\s*]*O   R   C   A[\s*]*$")
_NEW_JOB = re.compile(r"\s*\$+\s+JOB NUMBER\s+(\d+)\s+\$+\s*$")
_INPUT = re.compile(r"\|\s*\d+>(.*)")
_END_OF_INPUT = "****END OF INPUT****"
_NUMBER = r"-?\d+\.\d+"
_ATOM = re.compile(rf"\s*(\S+)( :)?\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})\s*$")
_MASS = re.compile(rf"\s*\d+\s+(\S+)\s+{_NUMBER}\s+\d+\s+({_NUMBER})\s+{_NUMBER}\s")  # LB, amu
_ASKED_MASS = re.compile(r"\s*([A-Z][a-z]?)\b.*\sM\s*=\s*(\d+\.?\d*)", re.IGNORECASE)  # in the input
_DUMMIES = ("-", "X", "DA")
_POINT_CHARGE = "Q"
_IR = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+(?:{_NUMBER}\s+(?={_NUMBER}\s+{_NUMBER}\s))?({_NUMBER})\s")
"""Mode, cm⁻¹, from version 5 on L/(mol·cm), km/mol, from version 5 on T² in a.u."""
_SCALING = re.compile(r"Scaling factor for frequencies\s*=\s*(\d+\.\d+)")
_MODE = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+cm\*\*-1")
_VIBRATIONS = re.compile(r"The total number of vibrations considered is (\d{1,6})\s*$")
_RUN_KEYWORDS = """
freq numfreq anfreq opt tightopt verytightopt looseopt usesym nousesym rks uks rhf uhf sp engrad moread
slowconv noautostart miniprint normalprint largeprint tightscf verytightscf
"""
_LEVEL_BLOCKS = ("method", "basis", "cpcm", "rel", "mp2")  # of the input; they set what the lines depend on
_RAMAN = re.compile(rf"\s*\d+:\s+({_NUMBER})\s+({_NUMBER})\s")  # mode, cm⁻¹, Å⁴/amu
_STATE = re.compile(
    rf".*->\s+\S+\s+({_NUMBER})\s+{_NUMBER}\s+{_NUMBER}\s+({_NUMBER})\s"  # from version 6 on: eV, cm⁻¹, nm, f
    rf"|\s*\d+\s+({_NUMBER})\s+{_NUMBER}\s+(?:({_NUMBER})|spin forbidden)\s"  # before: cm⁻¹ or eV, nm, f
)
_TABLES = {"ir": ("IR SPECTRUM", _IR), "raman": ("RAMAN SPECTRUM", _RAMAN)}
_STRUCTURE = "CARTESIAN COORDINATES (ANGSTROEM)"
_MASSES = "CARTESIAN COORDINATES (A.U.)"
_MODES = "VIBRATIONAL FREQUENCIES"
_EXCITED = "ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS"
_MAX_HEAD = 20  # lines between a heading and its first row


def is_orca(lines: list[str]) -> bool:
    """Return whether these are lines of an output of ORCA."""
    return any(_BANNER.match(line) for line in lines[:400])


def orca_version(lines: list[str]) -> int:
    """Return the main version of the program, 0 if the output does not state it."""
    for line in lines[:200]:
        match = re.search(r"Program Version (\d+)\.", line)
        if match:
            return int(match[1])
    return 0


def orca_output(lines: list[str], name: str) -> Output:
    """Parse the lines of an output of ORCA; `name` is that of the molecule.

    Of a section that occurs more than once in a job (in an optimisation), the last one is read. Several jobs
    in one file are joined as `joined_jobs` says.

    Raises:
        InputError: a calculation did not end normally, or a section is damaged.
    """
    starts = [number for number, line in enumerate(lines) if _BANNER.match(line)]
    jobs: list[tuple[list[str], str]] = []  # lines and level
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        run = lines[start:stop]
        if not any("ORCA TERMINATED NORMALLY" in line for line in run[-30:]):
            which = f" (number {starts.index(start) + 1} of {len(starts)})" if len(starts) > 1 else ""
            raise DamagedError(f"the calculation did not end normally, or the file is cut short{which}")
        texts = [match[1] for line in run if (match := _INPUT.match(line))]
        asked = [match.groups() for text in texts if (match := _ASKED_MASS.match(text))]
        check_masses([atomic_number(symbol) for symbol, _ in asked], [float(mass) for _, mass in asked])
        inputs = _inputs(run)
        headings = [(number, _NEW_JOB.match(line)) for number, line in enumerate(run)]
        later = [number for number, match in headings if match and int(match[1]) > 1]
        for index, (first, last) in enumerate(pairwise([0, *later, len(run)])):
            words = inputs[index] if index < len(inputs) else ""
            jobs.append((run[first:last], f"{words or 'unknown method'} (ORCA {orca_version(run)})"))
    outputs = []
    for index, (part, level) in enumerate(jobs, start=1):
        label = f"job {index} of {len(jobs)} ({level})" if len(jobs) > 1 else ""
        with in_job(label):
            outputs.append(_job(part, name, level, label))
    return joined_jobs(outputs)


def _job(lines: list[str], name: str, level: str, label: str) -> Output:
    """Parse the lines of one job."""
    vibrations = [number for number, line in enumerate(lines) if line.strip() == _TABLES["ir"][0]]
    # a Hessian before an optimisation is that of an earlier structure than the last one
    before = lines[: vibrations[-1]] if vibrations else lines
    molecule = _molecule(before, name)
    spectra: dict[str, LineSpectrum] = {}
    modes = [float(value) for (value,) in _rows(lines, _MODES, _MODE)]
    imaginary = tuple(value for value in modes if value < 0)
    factors = [float(match[1]) for line in lines if (match := _SCALING.match(line))]
    scaled = f"scaled by {factors[-1]:g}, " if factors and factors[-1] != 1 else ""
    for kind, (heading, row) in _TABLES.items():
        rows = _rows(lines, heading, row)
        if rows:
            counts = [int(match[1]) for line in lines if (match := _VIBRATIONS.match(line))]
            if counts and counts[-1] != len(rows):
                raise DamagedError(f"{counts[-1]} vibrations, but {len(rows)} rows below {heading}")
            table = np.array(rows, np.float64)
            unlisted = len(imaginary) - int((table[:, 0] < 0).sum())
            check_modes(molecule, len(rows) + max(unlisted, 0))
            spectra[kind] = line_spectrum(kind, table[:, 0], table[:, 1], f"{scaled}{level}")
    rows = _rows(lines, _EXCITED, _STATE)
    if rows:
        table = np.array([(row[0] or row[2], row[1] or row[3] or 0) for row in rows], np.float64)
        approximate = any(re.search(r"Tamm-Dancoff approximation .*operative", line) for line in lines)
        method = "TDA" if approximate else "TD-DFT"
        energies = table[:, 0] if rows[0][0] else table[:, 0] / _per_ev(lines)
        spectra["uv_vis"] = line_spectrum("uv_vis", energies, table[:, 1], f"{method}, {level}")
    energy = next((line for line in reversed(before) if re.match(r"\s*Total Energy\s+:", line)), None)
    scf = re.search(rf":\s+({_NUMBER}) Eh", energy) if energy else None
    return Output(molecule, spectra, level, float(scf[1]) if scf else None, imaginary, label)


def _molecule(lines: list[str], name: str) -> Molecule:
    """Return the last structure; dummy atoms are left out."""
    numbers, positions = [], []
    for row, (symbol, colon, *xyz) in enumerate(_rows(lines, _STRUCTURE, _ATOM), start=1):
        if symbol.upper() in _DUMMIES:
            continue
        if colon or symbol.endswith(":") or symbol == _POINT_CHARGE:
            kind = "a point charge" if symbol == _POINT_CHARGE else "a ghost atom"
            advice = "only calculations of the molecule alone are supported"
            raise ElementError(f"row {row} of the structure ({symbol}) is {kind}: {advice}")
        numbers.append(atomic_number(symbol))
        positions.append([float(word) for word in xyz])
    if not numbers:
        raise FormatError("no structure found in it")
    masses = [float(mass) for symbol, mass in _rows(lines, _MASSES, _MASS) if symbol.upper() not in _DUMMIES]
    if len(masses) == len(numbers):
        check_masses(numbers, masses)
    charge = next((line.split()[-1] for line in reversed(lines) if line.startswith(" Total Charge")), "0")
    try:
        return Molecule(np.array(numbers), np.array(positions), None, int(charge), name)
    except ValueError as error:
        raise FormatError(f"its total charge is {charge[:20]!r}") from error


def _rows(lines: list[str], heading: str, row: re.Pattern[str]) -> list[tuple[str, ...]]:
    """Return the groups of the rows below the last `heading`, up to a blank line or a rule.

    Raises:
        DamagedError: a line between the rows is not one.
    """
    starts = [number for number, line in enumerate(lines) if line.strip() == heading]
    rows: list[tuple[str, ...]] = []
    for offset, line in enumerate(lines[starts[-1] + 1 :] if starts else []):
        match = row.match(line + " ")
        if match:
            rows.append(match.groups())
        elif rows and line.strip(" -*") and not line.startswith("*"):
            raise DamagedError(f"row {len(rows) + 1} below {heading} cannot be read: {line.strip()[:60]!r}")
        elif rows or offset > _MAX_HEAD:
            break
    return rows


def _per_ev(lines: list[str]) -> float:
    """Return how many of the first unit below the last heading of excitations (version 5) are one eV."""
    start = max(number for number, line in enumerate(lines) if line.strip() == _EXCITED)
    for line in lines[start + 1 : start + _MAX_HEAD]:
        unit = re.match(r"\s*\((eV|cm-1|cm\*\*-1)\)", line)
        if unit:
            return 1.0 if unit[1] == "eV" else WAVENUMBERS_PER_EV
    raise FormatError(f"the unit of the energies below {_EXCITED} is missing")


def _inputs(lines: list[str]) -> list[str]:
    """Return the level of theory in the input of each job.

    That are its keywords but those of the kind of run, and the blocks that set method, basis and solvent.
    """
    levels: list[list[str]] = [[]]
    inside = False  # such a block
    for line in lines:
        match = _INPUT.match(line)
        if _END_OF_INPUT in line:
            break
        text = match[1].partition("#")[0].strip().lower() if match else ""
        if text.startswith("$new_job"):
            levels.append([])
        if text[:1] in ("%", "!", "*", "$"):
            inside = text[1:].strip().startswith(_LEVEL_BLOCKS)
        if text.startswith("!"):
            levels[-1] += [word for word in text[1:].split() if not _is_of_the_run(word)]
        elif inside:
            levels[-1] += [word for word in text.replace("%", "% ").split() if word not in ("%", "end")]
    return [" ".join(words) for words in levels]


def _is_of_the_run(keyword: str) -> bool:
    """Return whether a keyword says how to run the calculation, and not what is calculated."""
    return keyword in _RUN_KEYWORDS.split() or re.fullmatch(r"pal\d+", keyword) is not None
