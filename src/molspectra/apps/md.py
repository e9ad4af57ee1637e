"""Molecular dynamics with a trained model: frames as extended XYZ, and the conservation of energy."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from ase import units
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from molspectra.data.atomic import flush, naming
from molspectra.data.output import free_path
from molspectra.errors import MolspectraError, SettingError, ValueRangeError
from molspectra.simulation.dynamics import MAX_HEAT, DynamicsSettings
from molspectra.training.interrupt import Interrupted, stop_requests
from molspectra.training.progress import progress

Ensemble = Literal["nve", "langevin"]

RELAX_STEPS = 500
"""Largest number of steps of a relaxation."""


@dataclass(frozen=True)
class MdResult:
    """Figures of a finished trajectory.

    Attributes:
        frames: frames written, the first at time 0.
        temperature: mean kinetic temperature of all 3N velocities, K.
        drift: slope of the total energy over time, meV/ps; meaningless in a heat bath.
        fluctuation: root mean square deviation of the total energy from that line, meV.
        uncertain: frames with a larger spread of an ensemble's forces than `Calculator.max_force_spread`;
            None for a calculator without an ensemble.
    """

    frames: int
    temperature: float
    drift: float
    fluctuation: float
    uncertain: int | None = None


def relax(atoms: Any, fmax: float = 0.02) -> None:
    """Move atoms with a calculator to the nearest minimum of the energy.

    Args:
        atoms: `ase.Atoms`, changed in place.
        fmax: largest force at the end, eV/Å.

    Raises:
        MolspectraError: there is none within `RELAX_STEPS` steps.
    """
    if not BFGS(atoms, logfile=None).run(fmax=fmax, steps=RELAX_STEPS):
        raise MolspectraError(
            f"no minimum of the model's energy in {RELAX_STEPS} steps; the model may be trained too little, "
            "or start from a structure like those it has seen without relaxing it"
        )


def run_md(
    atoms: Any,
    out: str | Path,
    settings: DynamicsSettings,
    time_ps: float = 1.0,
    ensemble: Ensemble = "nve",
    *,
    overwrite: bool = False,
    show: bool = True,
) -> MdResult:
    """Move atoms and write a frame every `settings.interval_fs`, with all results of the calculator.

    Velocities are drawn from a Maxwell-Boltzmann distribution; the time before the first frame is Langevin
    dynamics in either ensemble. Frames go to `NAME.part.SUFFIX` beside `out`, each flushed as a whole, so
    that it can be read at any moment; it is renamed to `out` at the end. A killed process leaves it under
    the first name, where it is not overwritten unasked. `info["time_fs"]` is the time of a frame, and
    `info["polarisability"]` its polarisability [3, 3], Å³, if the calculator has one.

    Args:
        atoms: `ase.Atoms` with a calculator, changed in place.
        out: extended XYZ file.
        settings: temperature, time step and so on.
        time_ps: from the first frame to the last, ps; a whole number of intervals.
        ensemble: "nve", velocity Verlet, or "langevin", a heat bath.
        overwrite: replace an existing file, also the unfinished one of a killed process.
        show: progress on standard error.

    Raises:
        InputError: a value out of range, the file exists, or the calculator refuses the atoms.
        MolspectraError: the molecule comes apart; the frames until then, if any, are in the file.
        Interrupted: Ctrl-C, SIGTERM or SIGUSR1; the frames until then, if any, are in the file.
    """
    out = Path(out)
    total = _intervals(time_ps, settings)
    if ensemble not in get_args(Ensemble):
        raise SettingError(f"ensemble must be one of {', '.join(get_args(Ensemble))}, not {ensemble!r}")
    free_path(out, overwrite=overwrite)
    part = free_path(out.with_name(f"{out.stem}.part{out.suffix}"), overwrite=overwrite)
    atoms.get_forces()  # raises for atoms that it cannot compute, before the file is made
    generator = np.random.default_rng(settings.seed)
    deviation = np.sqrt(atoms.get_masses() * units.kB * settings.temperature)
    atoms.set_momenta(deviation[:, None] * generator.standard_normal((len(atoms), 3)))
    bath = Langevin(
        atoms,
        settings.timestep_fs * units.fs,
        temperature_K=settings.temperature,
        friction=settings.friction_per_ps / (1000 * units.fs),
        fixcm=False,  # the mass centre moves freely, which is exact
        rng=generator,
    )
    mover = bath if ensemble == "langevin" else VelocityVerlet(atoms, settings.timestep_fs * units.fs)
    steps = round(settings.interval_fs / settings.timestep_fs)
    heating, first_steps = divmod(round(settings.equilibration_fs / settings.timestep_fs), steps)
    energies: list[float] = []
    temperatures: list[float] = []
    spreads: list[float] = []  # of an ensemble's forces
    stopped: MolspectraError | None = None
    with naming(part):
        opened = part.open("w", encoding="utf-8")
    with (
        opened as file,
        stop_requests() as stop,
        progress("molecular dynamics", heating + total, show=show) as advance,
    ):
        bath.run(first_steps)
        for done in range(heating + total + 1):
            if done > 0:
                (bath if done <= heating else mover).run(steps)
            temperature = float(atoms.get_temperature())
            if not temperature < MAX_HEAT * settings.temperature:  # also NaN
                stopped = MolspectraError(f"came apart at {temperature:.0f} K")
                break
            if done >= heating:
                energies.append(float(atoms.get_total_energy()))
                temperatures.append(temperature)
                if "force_spread" in atoms.calc.results:
                    spreads.append(float(atoms.calc.results["force_spread"].max()))
                    atoms.info["force_spread"] = spreads[-1]
                    atoms.info["energy_uncertainty"] = atoms.calc.results["energy_uncertainty"]
                frame = _frame(atoms, (done - heating) * settings.interval_fs)
                with naming(part):
                    file.write(frame)
                    file.flush()
            advance(done, f"{temperature:.0f} K")
            if stop.is_set() and done < heating + total:
                stopped = Interrupted("interrupted")
                break
    with naming(out):
        if energies:
            flush(part)
            part.replace(out)
        else:
            part.unlink()
    if stopped is not None:
        where = f"{len(energies)} frames are in {out}" if energies else "before the first frame"
        raise type(stopped)(f"{stopped}; {where}")
    result = _result(np.array(energies), np.array(temperatures), settings.interval_fs)
    if not spreads:
        return result
    uncertain = sum(spread > atoms.calc.max_force_spread for spread in spreads)
    return replace(result, uncertain=uncertain)


def _intervals(time_ps: float, settings: DynamicsSettings) -> int:
    """Number of intervals of a trajectory."""
    count = 1000 * time_ps / settings.interval_fs
    if not 1 - 1e-6 <= count < np.inf or abs(count - round(count)) > 1e-6:
        raise ValueRangeError(
            f"time_ps must be a whole number of intervals of {settings.interval_fs} fs, not {time_ps}"
        )
    return round(count)


def _frame(atoms: Any, time_fs: float) -> str:
    """A frame as text, with all results of the calculator."""
    if "dipole" in atoms.calc.implemented_properties:
        atoms.get_dipole_moment()
    if "polarisability" in atoms.calc.implemented_properties:  # not among the properties that ASE writes
        atoms.info["polarisability"] = atoms.calc.get_property("polarisability", atoms)
    atoms.info["time_fs"] = time_fs
    text = io.StringIO()
    write(text, atoms, format="extxyz")
    return text.getvalue()


def _result(energies: Any, temperatures: Any, interval_fs: float) -> MdResult:
    """Figures from the total energies (eV), to which a line is fitted, and temperatures (K) of the frames."""
    time = np.arange(len(energies)) * interval_fs / 1000
    slope, start = np.polyfit(time, energies - energies[0], 1)
    residuals = energies - energies[0] - (slope * time + start)
    fluctuation = float(np.sqrt(np.mean(residuals**2)))
    return MdResult(len(energies), float(temperatures.mean()), 1000 * float(slope), 1000 * fluctuation)
