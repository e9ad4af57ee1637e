"""Read outputs of quantum-chemistry programs: structure, lines and level of theory of one calculation.

`molspectra.spectra.files.orca` reads those of ORCA; cclib reads Gaussian, job by job, and the other programs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, FormatError, InputError, MissingExtraError
from molspectra.spectra.files.calculation import (
    Output,
    check_masses,
    check_modes,
    in_job,
    joined_jobs,
    line_spectrum,
    vibrations,
)
from molspectra.spectra.files.gaussian import (
    GaussianJob,
    check_atoms,
    check_weights,
    excited_method,
    gaussian_jobs,
    gaussian_method,
    gaussian_solvent,
    has_general_basis,
    index_of_reference,
    is_anharmonic,
)
from molspectra.spectra.files.orca import is_orca, orca_output
from molspectra.spectra.files.text import decoded_lines
from molspectra.spectra.files.turbomole import complete, is_vibspectrum
from molspectra.spectra.spectrum import LineSpectrum

_GAUSSIAN_MARKS = ("Entering Gaussian System", "Gaussian, Inc.")
_CCLIB_MARKS = ("Q-Chem", "Psi4", "NWChem", "TURBOMOLE", "GAMESS")
_READ = "ORCA, Gaussian, Q-Chem, NWChem, Psi4, Turbomole or GAMESS"
_STARTS = re.compile(
    r"Welcome to Q-Chem|Psi4: An Open-Source Ab Initio|Northwest Computational Chemistry Package \(NWChem\)"
)
_KINDS = re.compile(r"^ +TDDFT(/TDA)? Excitation Energies *$", re.MULTILINE)  # of Q-Chem
_ROOT = re.compile(r" {2}Root +1 (\S.*?)  ")  # of NWChem, with multiplicity and symmetry


def read_output(path: Path | str) -> Output:
    """Read the output of one calculation, or of several jobs on one molecule.

    Raises:
        InputError: the file is not an output of a known program, a calculation did not end normally, the
            vibrations are not those of the molecule, or the package cclib is needed and not installed.
    """
    path = Path(path)
    lines = decoded_lines(path)
    head = "\n".join(lines[:400])
    try:
        if is_orca(lines):
            return orca_output(lines, path.stem)
        is_gaussian = any(mark in head for mark in _GAUSSIAN_MARKS)
        if not is_gaussian and not any(mark in head for mark in _CCLIB_MARKS):
            if is_vibspectrum(path):
                raise FormatError("a table of vibrations has no structure; give the output of aoforce")
            raise FormatError(f"not an output of {_READ}; those of other programs are not read")
        _cclib("io.ccio")  # missing, it is named before anything in the file
        if is_gaussian:
            return _from_gaussian(lines, path.stem)
        return _from_others(lines, path.stem)
    except InputError as error:
        raise error.with_context(path) from error


def _from_gaussian(lines: list[str], name: str) -> Output:
    """Read the jobs of an output of Gaussian."""
    outputs = []
    jobs = gaussian_jobs(lines)
    for number, job in enumerate(jobs, start=1):
        label = f"job {number} of {len(jobs)} ({job.route[:80]})" if len(jobs) > 1 else ""
        with in_job(label):
            check_atoms(job)
            data = _parsed(job.lines)
            if not data.metadata.get("success", False):
                raise FormatError("cclib stopped before the end of it")
            data.metadata.setdefault("excited_states_method", excited_method(job))
            level, index = _gaussian_level(job, data.metadata), index_of_reference(job)
            outputs.append(_output(data, name, level, index, label, anharmonic=is_anharmonic(job)))
            check_weights(job, outputs[-1].molecule.numbers.tolist())
    return joined_jobs(outputs)


def _from_others(lines: list[str], name: str) -> Output:
    """Read the jobs of an output of another program; where they begin is known of Q-Chem, Psi4 and NWChem."""
    starts = [index for index, line in enumerate(lines) if _STARTS.search(line)][1:]
    parts = [lines[start:stop] for start, stop in pairwise([0, *starts, len(lines)])]
    outputs = []
    for number, part in enumerate(parts, start=1):
        label = f"job {number} of {len(parts)}" if len(parts) > 1 else ""
        with in_job(label):
            outputs.append(_output_of_other(part, name, label))
    return joined_jobs(outputs)


def _output_of_other(lines: list[str], name: str, label: str) -> Output:
    """Read one job of a program that is neither Gaussian nor ORCA.

    Raises:
        InputError: it did not end normally, or its lines could be of several structures or methods.
    """
    data = _parsed(lines)
    if not data.metadata.get("success", False):
        raise DamagedError("the calculation did not end normally")
    if data.metadata.get("package") == "Turbomole":
        complete(data, lines)
    if {"HF", "DFT"} <= set(data.metadata.get("methods", ())):
        raise FormatError(
            "it holds results of Hartree-Fock and of a density functional; give each its own file"
        )
    roots = [match[1] for line in lines if (match := _ROOT.match(line))]
    if len(set(roots)) < len(roots):
        raise FormatError("it holds excited states of several structures; give each its own file")
    method = re.search(r"\bDFTTYP=(\w+)", "\n".join(lines))  # GAMESS; cclib keeps RHF or UHF only
    if method and method[1] != "NONE":
        data.metadata["functional"] = method[1]
    if not (data.metadata.get("functional") or data.metadata.get("methods")):
        raise FormatError("cclib finds no method in it, so its level of theory is unknown")
    kinds = _KINDS.findall("\n".join(lines))  # cclib keeps the last
    if kinds:
        data.metadata.setdefault("excited_states_method", "TDA" if kinds[-1] else "TD-DFT")
    return _output(data, name, cclib_level(data.metadata), job=label)


def _gaussian_level(job: GaussianJob, metadata: Mapping[str, Any]) -> str:
    """Return the level of theory of one job of Gaussian."""
    known = {**gaussian_solvent(job), **metadata}
    if has_general_basis(job):
        known["basis_set"] = "Gen"
    return cclib_level({**known, "functional": gaussian_method(job, metadata.get("methods", []))})


def _cclib(module: str) -> Any:
    """Return a module of cclib."""
    try:
        return import_module(f"cclib.{module}")
    except ImportError as error:
        raise MissingExtraError("needs the package cclib; pip install 'molspectra[files]'") from error


def _parsed(lines: list[str]) -> Any:
    """Return what cclib reads from the lines."""
    ccio = _cclib("io.ccio")
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            data = ccio.ccread(io.StringIO("\n".join(lines) + "\n"), loglevel=logging.CRITICAL)
        except Exception as error:  # a parser of free text can fail in any way
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise FormatError(f"cclib cannot read this output ({reason})") from error
    if data is None or not hasattr(data, "atomnos") or not hasattr(data, "atomcoords"):
        raise FormatError("no structure found in it by cclib")
    return data


def _output(
    data: Any, name: str, level: str, index: int = -1, job: str = "", *, anharmonic: bool = False
) -> Output:
    """Return the results that cclib has read of one job; `index` is that of its structure and energy."""
    numbers, positions = np.asarray(data.atomnos, np.int64), np.asarray(data.atomcoords[index], np.float64)
    molecule = Molecule(numbers, positions, None, int(getattr(data, "charge", 0)), name)
    masses = np.asarray(getattr(data, "atommasses", ()), np.float64)
    if masses.shape == molecule.numbers.shape:
        check_masses(molecule.numbers.tolist(), masses.tolist())
    spectra: dict[str, LineSpectrum] = {}
    frequencies = np.asarray(getattr(data, "vibfreqs", ()), np.float64)
    kept = vibrations(molecule, frequencies)
    if kept.any():
        check_modes(molecule, int(kept.sum()))
    for kind, key in (("ir", "vibirs"), ("raman", "vibramans")):
        if kept.any() and hasattr(data, key):
            named = f"harmonic, {level}" if anharmonic else level
            strengths = np.asarray(getattr(data, key), np.float64)
            if strengths.shape == kept.shape:  # else the number of lines is refused
                strengths = strengths[kept]
            spectra[kind] = line_spectrum(kind, frequencies[kept], strengths, named)
    utils = _cclib("parser.utils")
    if hasattr(data, "etenergies") and hasattr(data, "etoscs"):
        energies = [utils.convertor(float(value), "wavenumber", "eV") for value in data.etenergies]
        method = data.metadata.get("excited_states_method", "excited states")
        spectra["uv_vis"] = line_spectrum("uv_vis", energies, data.etoscs, f"{method}, {level}")
    scf: list[float] = list(getattr(data, "scfenergies", []))
    energy = utils.convertor(float(scf[index]), "eV", "hartree") if scf else None
    imaginary = tuple(float(value) for value in frequencies[kept] if value < 0)
    return Output(molecule, spectra, level, energy, imaginary, job)


def cclib_level(metadata: Mapping[str, Any]) -> str:
    """Return the level of theory in cclib's metadata, such as `B3LYP/STO-3G, IEFPCM water (Gaussian 16)`.

    Raises:
        FormatError: a density functional that is not named, so that two levels would have one name.
    """
    methods = metadata.get("methods") or ["unknown method"]
    method = metadata.get("functional") or methods[-1]
    if method == "DFT":
        raise FormatError("the density functional is not found in it, so its level of theory is unknown")
    basis = metadata.get("basis_set") or "unknown basis"
    words = [metadata.get("solvent_model"), metadata.get("solvent_name")]
    if words[0] and not words[1]:
        constant = (metadata.get("solvent_params") or {}).get("epsilon")
        words[1] = f"ε = {constant:g}" if constant is not None else None
    solvent = " ".join(word for word in words if word)
    version = str(metadata.get("legacy_package_version") or metadata.get("package_version") or "")
    program = (metadata.get("package", ""), version.split("revision")[0])
    level = f"{method}/{basis}, {solvent}" if solvent else f"{method}/{basis}"
    return f"{level} ({' '.join(word for word in program if word)})"
