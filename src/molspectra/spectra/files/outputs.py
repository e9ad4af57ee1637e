"""Read outputs of quantum-chemistry programs: structure, lines and level of theory of one calculation.

`molspectra.spectra.files.orca` reads ORCA 6 and later, on which cclib 1.8 fails; cclib reads older ORCA,
Gaussian and the other programs.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, FormatError, InputError, MissingExtraError
from molspectra.spectra.files.calculation import Output, line_spectrum
from molspectra.spectra.files.orca import orca_output, orca_version
from molspectra.spectra.files.text import decoded_lines
from molspectra.spectra.spectrum import LineSpectrum

_CCLIB_MARKS = ("Gaussian", "Q-Chem", "Psi4", "NWChem", "TURBOMOLE", "GAMESS", "Molpro")


def read_output(path: Path | str) -> Output:
    """Read the output of one calculation.

    Raises:
        InputError: the file is not an output of a known program, the calculation did not end normally, or
            the package cclib is needed and not installed.
    """
    path = Path(path)
    lines = decoded_lines(path)
    head = "\n".join(lines[:400])
    is_orca = "O   R   C   A" in head
    try:
        if not is_orca and not any(mark in head for mark in _CCLIB_MARKS):
            raise FormatError("not an output of Gaussian, ORCA or another program that is known")
        if is_orca and orca_version(lines) >= 6:
            return orca_output(lines, path.stem)
        return _from_cclib(path)
    except InputError as error:
        raise error.with_context(path) from error


def _from_cclib(path: Path) -> Output:
    """Read an output with cclib."""
    try:
        ccio, utils = import_module("cclib.io.ccio"), import_module("cclib.parser.utils")
    except ImportError as error:
        raise MissingExtraError("needs the package cclib; pip install 'molspectra[files]'") from error
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            data = ccio.ccread(str(path), loglevel=logging.CRITICAL)
        except Exception as error:  # a parser of free text can fail in any way
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            raise FormatError(f"cclib cannot read this output ({reason})") from error
    if data is None or not hasattr(data, "atomnos") or not hasattr(data, "atomcoords"):
        raise FormatError("no structure found in it by cclib")
    if not data.metadata.get("success", False):
        raise DamagedError("the calculation did not end normally")
    metadata, level = data.metadata, cclib_level(data.metadata)
    positions = np.asarray(data.atomcoords[-1], np.float64)
    charge = int(getattr(data, "charge", 0))
    molecule = Molecule(np.asarray(data.atomnos, np.int64), positions, None, charge, path.stem)
    spectra: dict[str, LineSpectrum] = {}
    for name, key in (("ir", "vibirs"), ("raman", "vibramans")):
        if hasattr(data, key) and hasattr(data, "vibfreqs"):
            spectra[name] = line_spectrum(name, data.vibfreqs, getattr(data, key), level)
    if hasattr(data, "etenergies") and hasattr(data, "etoscs"):
        energies = [utils.convertor(float(value), "wavenumber", "eV") for value in data.etenergies]
        method = metadata.get("excited_states_method", "excited states")
        spectra["uv_vis"] = line_spectrum("uv_vis", energies, data.etoscs, f"{method}, {level}")
    scf: list[float] = list(getattr(data, "scfenergies", []))
    energy = utils.convertor(float(scf[-1]), "eV", "hartree") if scf else None
    imaginary = tuple(float(value) for value in getattr(data, "vibfreqs", ()) if value < 0)
    return Output(molecule, spectra, level, energy, imaginary)


def cclib_level(metadata: Mapping[str, Any]) -> str:
    """Return the level of theory in cclib's metadata, such as `B3LYP/STO-3G (Gaussian 16)`."""
    methods = metadata.get("methods") or ["unknown method"]
    method = metadata.get("functional") or methods[-1]
    basis = metadata.get("basis_set") or "unknown basis"
    version = str(metadata.get("legacy_package_version") or metadata.get("package_version") or "")
    program = (metadata.get("package", ""), version.split("revision")[0])
    return f"{method}/{basis} ({' '.join(word for word in program if word)})"
