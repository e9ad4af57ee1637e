"""Results read from the output file of a quantum-chemical calculation: structure, energy, line spectra."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, ElementError, InputError, MismatchError, ValueRangeError
from molspectra.spectra.spectrum import LineSpectrum

DISTANCE_TOLERANCE = 0.02
"""Å between the distances of two structures that are taken as one."""

_MASS_TOLERANCE = 0.1  # amu; programs tabulate average masses of different years
_LINEAR = 5e-3  # Å; atoms that are off a line by less are on it
_BENT = 0.1  # Å; a molecule with atoms that are off every line by more is not linear
_RIGID = 1.0  # cm⁻¹; projected rigid motions are below it
_NOISE = 1e-3
"""Negative oscillator strengths and intensities down to minus this are rounding errors, and become 0."""


@dataclass(frozen=True, eq=False)
class Output:
    """Results of one calculation.

    Attributes:
        molecule: the last structure of the job, Å; named after the file.
        spectra: line spectra by modality; an imaginary frequency is a negative position.
        level: method, basis and program.
        scf_energy: last self-consistent-field energy, Hartree; None if the output has none.
        imaginary: imaginary frequencies, cm⁻¹, as negative numbers; empty for a minimum.
        job: the job that structure, level, energy and vibrations are from, such as `job 2 of 3 (# HF freq)`;
            "" where the output holds one job.
    """

    molecule: Molecule
    spectra: Mapping[str, LineSpectrum] = field(default_factory=dict)
    level: str = ""
    scf_energy: float | None = None
    imaginary: tuple[float, ...] = ()
    job: str = ""


def line_spectrum(name: str, position: npt.ArrayLike, intensity: npt.ArrayLike, level: str) -> LineSpectrum:
    """Sort the lines of an output by position; intensities that are negative by rounding become 0.

    Args:
        name: modality.
        position: positions [n] in the modality's axis unit, in any order.
        intensity: intensities [n].
        level: level of theory.

    Raises:
        InputError: different lengths, negative intensities, or numbers that are not finite.
    """
    position, intensity = np.asarray(position, np.float64), np.asarray(intensity, np.float64)
    if position.shape != intensity.shape or position.ndim != 1:
        raise ValueRangeError(f"{position.size} {name} positions but {intensity.size} intensities")
    lost = np.flatnonzero(~np.isfinite(position) | ~np.isfinite(intensity))
    if lost.size:
        raise ValueRangeError(
            f"{name} line {lost[0] + 1} is not a number; too wide a field is printed as ****"
        )
    order = np.argsort(position, kind="stable")
    intensity = np.where((intensity < 0) & (intensity > -_NOISE), 0.0, intensity)
    return LineSpectrum(name, position[order], intensity[order], level)


def check_modes(molecule: Molecule, count: int) -> None:
    """Refuse a number of vibrations that is not that of the molecule: 3N − 6, or 3N − 5 if it is linear.

    Raises:
        InputError: vibrations are missing, or there are too many.
    """
    atoms = len(molecule.numbers)
    allowed = _numbers_of_modes(molecule)
    if count not in allowed | {3 * atoms}:  # 3N: rigid motions are listed with them
        expected = " or ".join(str(number) for number in sorted(allowed))
        reason = "the list is cut short or only a part was calculated"
        raise DamagedError(f"{count} vibrations, but {molecule.formula} has {expected}: {reason}")


def vibrations(molecule: Molecule, frequencies: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which of the frequencies [n], cm⁻¹, are vibrations: all, or all but the rigid motions.

    Rigid motions are found where all 3N modes are listed and those below 1 cm⁻¹ are as many as they are.
    """
    moving = np.abs(frequencies) >= _RIGID
    listed = len(frequencies) == 3 * len(molecule.numbers)
    rigid = listed and int(moving.sum()) in _numbers_of_modes(molecule)
    return moving if rigid else np.ones(len(frequencies), bool)


def _numbers_of_modes(molecule: Molecule) -> set[int]:
    """Return the numbers of vibrations that a molecule can have: two if it is almost linear."""
    atoms = len(molecule.numbers)
    centred = molecule.positions - molecule.positions.mean(axis=0)
    off_line = np.linalg.svd(centred, compute_uv=False)[1] if atoms > 2 else 0.0
    allowed = {3 * atoms - 5} if off_line < _BENT else set()  # programs differ in what they call linear
    allowed |= {3 * atoms - 6} if off_line > _LINEAR else set()
    allowed = allowed if atoms > 1 else {0}
    return allowed


def check_masses(numbers: Sequence[int], masses: Sequence[float]) -> None:
    """Refuse masses (amu) of other isotopes than the commonest one; averages over isotopes are accepted.

    Raises:
        ElementError: an atom has the mass of a rare isotope, so that the lines are those of another molecule.
    """
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    for index, (number, mass) in enumerate(zip(numbers, masses, strict=True), start=1):
        usual = (table.GetAtomicWeight(int(number)), table.GetMostCommonIsotopeMass(int(number)))
        if min(abs(mass - value) for value in usual) > _MASS_TOLERANCE:
            symbol = table.GetElementSymbol(int(number))
            advice = "isotopes are not supported; calculate with the usual masses"
            raise ElementError(f"atom {index} ({symbol}) has the mass {mass:g}, not {usual[1]:g}: {advice}")


def check_same(one: Molecule, other: Molecule, label: str) -> None:
    """Refuse to join results on different molecules, atom orders or structures; `label` is that of `other`.

    Raises:
        MismatchError: they differ; distances by more than `DISTANCE_TOLERANCE`.
    """
    if one.charge != other.charge or not np.array_equal(one.numbers, other.numbers):
        raise MismatchError(f"{label} is of {other!r}, the other outputs of {one!r}: not the same molecule")
    distances = [np.linalg.norm(m.positions[:, None] - m.positions[None], axis=-1) for m in (one, other)]
    worst = float(np.abs(distances[0] - distances[1]).max())
    if worst > DISTANCE_TOLERANCE:
        raise MismatchError(f"{label}: a distance differs by {worst:.3f} Å from the other outputs")


@contextmanager
def in_job(label: str) -> Iterator[None]:
    """Put the label of a job, if it has one, before the message of an error that is raised inside."""
    try:
        yield
    except InputError as error:
        if not label:
            raise
        raise error.with_context(label) from error


def joined_jobs(jobs: Sequence[Output]) -> Output:
    """Join the jobs of one file, in their order.

    Structure, level, energy and vibrations are those of the last job with vibrations, or else with lines, or
    else of the last one. Lines that it lacks are taken from the last job that has them.

    Raises:
        MismatchError: the jobs are of different molecules, or lines of different structures.
    """
    with_modes = [job for job in jobs if {"ir", "raman"} & set(job.spectra)]
    main = (with_modes or [job for job in jobs if job.spectra] or jobs)[-1]
    spectra: dict[str, LineSpectrum] = {}
    for job in (main, *reversed(jobs)):
        if sorted(job.molecule.numbers) != sorted(main.molecule.numbers):
            formulas = f"{job.molecule.formula}, {main.job} of {main.molecule.formula}"
            raise MismatchError(f"{job.job} is of {formulas}: split the file into one for each molecule")
        missing = {name: lines for name, lines in job.spectra.items() if name not in spectra}
        if missing:
            check_same(main.molecule, job.molecule, job.job)
        spectra |= missing
    return replace(main, spectra=spectra)
