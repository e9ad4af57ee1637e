"""Spectra and properties of one molecule by quantum chemistry."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from molspectra.chem.drawing import title_of
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import is_single, molecule_from
from molspectra.chem.sanity import check_angstrom
from molspectra.errors import (
    ElementError,
    InputError,
    MissingExtraError,
    SettingError,
    SimulationError,
    ValueRangeError,
    hint,
)
from molspectra.simulation.factors import parameters_version
from molspectra.simulation.geometry import GRADIENT_TOLERANCE, minimise, model_hessian, positive
from molspectra.simulation.threads import one_thread
from molspectra.simulation.units import BOHR, DEBYE, HARTREE
from molspectra.spectra.modality import DOS, modality_names
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

if TYPE_CHECKING:
    from molspectra.simulation.vibrations import Modes
    from molspectra.simulation.xtb import FieldDerivatives

Array = npt.NDArray[np.float64]

DEFAULT_MODALITIES = ("ir", "raman", "uv_vis")

Geometry = Literal["optimised", "given"]
"""Structure that spectra are computed for: the GFN2-xTB minimum, or the one given."""

Level = Literal["gfn2", "scaled", "dft"]
"""Level of theory of vibrational spectra: GFN2-xTB; the same with a scaled force field, near to observed
frequencies (`molspectra.simulation.valence`); or B3LYP/def2-SVP, scaled in the same way."""

LEVELS: tuple[Level, ...] = ("gfn2", "scaled", "dft")

VIBRATIONAL = ("ir", "raman")

OPTIMISED = "//GFN2-xTB"
DFT = "B3LYP/def2-SVP"
GROUND_STATE = f"{DFT}{OPTIMISED}"
SCALED = "scaled valence force field"
"""Name of the correction of force constants in levels of theory."""
EXCITED_STATES = ", TDA singlets, LDA kernel"

MAX_ELEMENT = 86
"""GFN2-xTB and def2-SVP both reach radon."""

SOFT = 5.0
"""Wavenumber of the lowest mode, cm⁻¹, below which the geometry is optimised again."""

FLAT = 10.0
"""Largest imaginary wavenumber, cm⁻¹, that is accepted after the last optimisation.

Such a mode is a free internal rotation, as in 2-butyne; it is reported with a negative wavenumber.
"""

DFT_LIBRARIES = ["pyscf.dft", "pyscf.hessian"]
"""Modules that vibrations at the level dft load, see `one_thread`."""

ATTEMPTS = 4
"""Largest number of optimisations in the search for a minimum."""


@dataclass(frozen=True)
class Property:
    """One computed number with its unit and level of theory."""

    value: float
    unit: str
    level: str


@dataclass(frozen=True, repr=False)
class Simulation:
    """Results of the calculations of one molecule.

    Attributes:
        molecule: the structure, optimised unless the given one was asked for.
        lines: line spectra by modality. `ir` and `raman` hold the same 3N−6 (3N−5, 0) modes in the same
            order; `uv_vis` holds all singlets below 16 eV, dark ones included; `dos_occupied` and
            `dos_virtual` hold one line of intensity 1 per orbital.
        properties: `zpve` (eV) and `cv` (cal/mol/K, 298.15 K) with a vibrational modality; `homo`, `lumo`,
            `gap` (eV) and `dipole` (D, about the centre of nuclear charge for ions) with `uv_vis`.
        levels: level of theory of the `geometry` and of each modality.
    """

    molecule: Molecule
    lines: dict[str, LineSpectrum] = field(default_factory=dict)
    properties: dict[str, Property] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a short description for people."""
        lines = [f"{len(lines.position)} {name} lines" for name, lines in self.lines.items()]
        values = [f"{name} {each.value:.4g} {each.unit}" for name, each in self.properties.items()]
        return f"Simulation({', '.join([self.molecule.formula, *lines, *values])})"

    def _repr_html_(self) -> str:
        """The molecule and its spectra, for notebooks."""
        from molspectra.spectra.plots import picture

        drawn = self.molecule._repr_html_()
        if not self.lines:
            return drawn
        data = b64encode(picture(title_of(self.molecule), self.spectra, self.level)).decode()
        return f'<div>{drawn}</div><img alt="spectra" src="data:image/png;base64,{data}">'

    @property
    def spectra(self) -> dict[str, tuple[SampledSpectrum, LineSpectrum]]:
        """Broadened spectra by modality, each with its lines."""
        return {name: (lines.broadened(), lines) for name, lines in self.lines.items()}

    @property
    def level(self) -> str:
        """Levels of theory of the spectra in one line."""
        return "; ".join(dict.fromkeys(lines.level for lines in self.lines.values()))


def levels_of_theory(
    modalities: Sequence[str] = DEFAULT_MODALITIES, geometry: Geometry = "optimised", level: Level = "gfn2"
) -> dict[str, str]:
    """Return the level of theory, with program versions, of the geometry and of each requested modality.

    Raises:
        InputError: unknown or repeated modality or level, a modality that nothing computes, that the level
            does not have or that needs a minimum, or the `simulate` extra is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    names = modality_names(modalities)
    if not names or len(set(names)) < len(names):
        raise SettingError(
            f"modalities must be one or more different names, not {', '.join(modalities) or 'none'}"
        )
    vibrational = [name for name in names if name in VIBRATIONAL]
    if level not in LEVELS:
        raise SettingError(f"unknown level {level!r}; {hint(level, LEVELS)}")
    if level == "dft" and list(names) != ["ir"]:
        raise SettingError(f"the level dft computes ir alone, not {', '.join(names)}")
    if level == "scaled" and not vibrational:
        raise SettingError(f"the level scaled is one of ir and raman, not of {', '.join(names)}")
    if geometry == "given" and vibrational:
        raise SettingError(f"{', '.join(vibrational)}: frequencies need a minimum; optimise the geometry")
    try:
        xtb = f"GFN2-xTB (tblite {version('tblite')})"
        pyscf = f"PySCF {version('pyscf')}"
        dft = f"{GROUND_STATE}{EXCITED_STATES} ({pyscf})"
        version("threadpoolctl")
    except PackageNotFoundError as error:
        raise MissingExtraError(
            f"simulation needs {error.name}; install it with: pip install 'molspectra[simulate]'"
        ) from None
    if geometry == "given":
        dft = dft.replace(OPTIMISED, "")
    levels = dict.fromkeys((*VIBRATIONAL, *DOS), xtb) | {"uv_vis": dft}
    unknown = [name for name in names if name not in levels]
    if unknown:
        raise SettingError(f"{', '.join(unknown)}: cannot be simulated; choose from {', '.join(levels)}")
    start = "as given" if geometry == "given" else xtb
    if level == "dft":
        start = f"{DFT} ({pyscf})"
        levels["ir"] = f"{DFT}, {SCALED} {parameters_version()} ({pyscf})"
    elif level == "scaled":
        corrected = xtb.replace(" (", f", {SCALED} {parameters_version()} (")
        levels |= dict.fromkeys(VIBRATIONAL, corrected)
    return {"geometry": start} | {name: levels[name] for name in names}


def check_supported(molecule: Molecule) -> None:
    """Check that the methods can describe a molecule.

    Raises:
        ElementError: an element beyond radon.
        ValueRangeError: no electrons, or an odd number of them (tblite would compute a radical without
            warning).
        UnitError: coordinates that seem to be in bohr.
    """
    check_angstrom(molecule.numbers, molecule.positions)
    if int(molecule.numbers.max()) > MAX_ELEMENT:
        symbol = molecule.symbols[int(np.argmax(molecule.numbers))]
        raise ElementError(
            f"{molecule.formula}: element {symbol} is outside GFN2-xTB and def2-SVP, which reach radon (86)"
        )
    if molecule.n_electrons < 1:
        raise ValueRangeError(f"{molecule.formula}: charge {molecule.charge:+d} leaves no electrons")
    if molecule.n_electrons % 2:
        raise ValueRangeError(
            f"{molecule.formula} with charge {molecule.charge:+d} has {molecule.n_electrons} electrons; "
            "only closed-shell molecules are supported, so check the charge or add the missing hydrogen"
        )


@overload
def simulate(
    molecule: Molecule | str, modalities: Sequence[str] = ..., *, geometry: Geometry = ..., level: Level = ...
) -> Simulation: ...
@overload
def simulate(
    molecule: Any, modalities: Sequence[str] = ..., *, geometry: Geometry = ..., level: Level = ...
) -> Any: ...
def simulate(
    molecule: Any,
    modalities: Sequence[str] = DEFAULT_MODALITIES,
    *,
    geometry: Geometry = "optimised",
    level: Level = "gfn2",
) -> Simulation | list[Simulation]:
    """Optimise a molecule and compute its spectra and properties; of several, those of each.

    Geometry, vibrations, IR, Raman and the density of states are GFN2-xTB; UV-Vis, orbital energies and
    dipole are B3LYP/def2-SVP at that geometry. Molecules are isolated closed-shell singlets; ions are
    supported, molecules with an even number of electrons and a triplet ground state (O2) are computed as
    singlets. Frequencies are harmonic and unscaled. It runs on one thread; `simulate_many` uses one process
    per core.

    Args:
        molecule: start structure, whose coordinates determine which minimum is found: a `Molecule`, a SMILES
            (which gets the conformer of `from_smiles`), an RDKit molecule or ASE atoms; or a list or column
            of them.
        modalities: any of `ir`, `raman`, `uv_vis`, `dos_occupied`, `dos_virtual`; `dos` stands for the last
            two.
        geometry: "given" computes UV-Vis spectra and the density of states without optimisation.
        level: of IR and Raman. "scaled" multiplies the force constants of GFN2-xTB by factors, which brings
            the frequencies near to observed ones, and corrects dipole derivatives, at no cost. "dft" computes
            IR alone: minutes for four heavy atoms. Zero-point energy and heat capacity stay unscaled.

    Returns:
        The results, or a list of them where several molecules were given, in their order.

    Raises:
        InputError: unknown modality, or a molecule that the methods do not cover.
        SimulationError: SCF or optimisation failure.
    """
    levels = levels_of_theory(modalities, geometry, level)
    if is_single(molecule):
        return _simulated(molecule_from(molecule), modality_names(modalities), levels, geometry, level)
    if not isinstance(molecule, Iterable):
        molecule = [molecule]
    molecules = []
    for number, item in enumerate(molecule, start=1):  # all are read before the first is computed
        try:
            molecules.append(molecule_from(item))
            check_supported(molecules[-1])
        except InputError as error:
            raise error.with_context(f"item {number}") from error
    return [_simulated(each, modality_names(modalities), levels, geometry, level) for each in molecules]


def _simulated(
    molecule: Molecule, names: Sequence[str], levels: dict[str, str], geometry: Geometry, level: Level
) -> Simulation:
    """Compute the spectra of one molecule."""
    check_supported(molecule)
    lines: dict[str, LineSpectrum] = {}
    properties: dict[str, Property] = {}
    positions = molecule.positions / BOHR
    libraries = ["tblite.interface"]
    if "uv_vis" in names:
        libraries += ["pyscf.dft"]
    if level == "dft":
        libraries += DFT_LIBRARIES
    with one_thread(libraries):
        vibrational = [name for name in names if name in VIBRATIONAL]
        if vibrational:
            positions, lines, properties = _vibrations(molecule, positions, vibrational, levels, level)
        elif geometry == "optimised":
            positions = relax(molecule, positions)
        dos = [name for name in names if name in DOS]
        if dos:
            lines |= _density_of_states(molecule, positions, levels[dos[0]])
        if "uv_vis" in names:
            lines["uv_vis"], electronic_properties = _electrons(molecule, positions, levels["uv_vis"])
            properties |= electronic_properties
    ordered = {name: lines[name] for name in names}
    return Simulation(molecule.with_positions(positions * BOHR), ordered, properties, levels)


def relax(
    molecule: Molecule, positions: Array, hessian: Array | None = None, tolerance: float = GRADIENT_TOLERANCE
) -> Array:
    """Optimise to the stationary point [N, 3] (bohr) of the GFN2-xTB energy next to `positions`.

    Args:
        molecule: elements and charge.
        positions: start [N, 3], bohr.
        hessian: Hessian near the start [3N, 3N], Hartree/bohr²; None uses a model Hessian.
        tolerance: largest gradient component at convergence, Hartree/bohr.

    Raises:
        SimulationError: SCF or optimiser did not converge.
    """
    from molspectra.simulation.xtb import Xtb, energy_gradient

    xtb = Xtb(molecule.numbers, positions, molecule.charge)
    last = [xtb.run(positions)]

    def function(x: Array) -> tuple[float, Array]:
        last[0] = xtb.run(x, last[0])
        return energy_gradient(last[0])

    start = model_hessian(molecule.numbers, positions) if hessian is None else positive(hessian)
    return minimise(function, positions, start, tolerance)


def minimum(molecule: Molecule, positions: Array) -> tuple[Array, Array, Any]:
    """Return a minimum of GFN2-xTB [N, 3] (bohr), its Hessian [3N, 3N] and tblite's result there.

    A geometry with a soft or imaginary mode is displaced along it and optimised again.

    Args:
        molecule: elements and charge.
        positions: start [N, 3], bohr.

    Raises:
        SimulationError: SCF or optimiser did not converge, or no minimum is found.
    """
    from molspectra.simulation import vibrations, xtb

    masses = vibrations.masses_of(molecule.numbers)
    hessian = None
    for attempt in range(ATTEMPTS):
        positions = relax(molecule, positions, hessian, GRADIENT_TOLERANCE / 3**attempt)
        calculator = xtb.Xtb(molecule.numbers, positions, molecule.charge)
        start = calculator.run(positions)
        hessian = xtb.hessian(calculator, positions, start)
        modes = vibrations.normal_modes(masses, positions, hessian)
        lowest = float(modes.wavenumbers[0]) if len(modes.wavenumbers) else SOFT
        if lowest >= SOFT or (lowest > 0 and attempt) or (lowest > -FLAT and attempt == ATTEMPTS - 1):
            return positions, hessian, start
        direction = modes.displacements[0].reshape(-1, 3)
        positions = positions + 0.3 * (attempt + 1) * direction / np.abs(direction).max()
    raise SimulationError(
        f"{molecule.formula}: no minimum in {ATTEMPTS} optimisations (lowest mode {lowest:.1f} cm⁻¹)"
    )


@dataclass(frozen=True, eq=False)
class Vibrations:
    """Vibrations of a molecule at the minimum of a level.

    Attributes:
        positions: the minimum [N, 3], bohr.
        hessian: [3N, 3N], Hartree/bohr², corrected where the level says so.
        derivatives: of dipole and polarisability, likewise; zeros for the latter at "dft".
        modes: M normal modes of `hessian`.
        plain: those before any correction.
    """

    positions: Array
    hessian: Array
    derivatives: FieldDerivatives
    modes: Modes
    plain: Modes

    def intensities(self, name: str) -> Array:
        """Intensity of each mode [M]: km/mol for "ir", Å⁴/amu for "raman"."""
        from molspectra.simulation.vibrations import infrared, raman

        return (infrared if name == "ir" else raman)(self.modes, self.derivatives)


def vibrations_of(molecule: Molecule, positions: Array, level: Level) -> Vibrations:
    """Find the minimum next to `positions` [N, 3] (bohr) and its vibrations.

    Raises:
        SimulationError: SCF or optimiser did not converge, or no minimum is found.
    """
    from molspectra.simulation import valence, xtb
    from molspectra.simulation.harmonic import harmonic
    from molspectra.simulation.vibrations import masses_of, normal_modes

    masses = masses_of(molecule.numbers)
    positions, hessian, start = minimum(molecule, positions)
    modes = normal_modes(masses, positions, hessian)
    if level == "dft":
        result = harmonic(molecule.numbers, positions, molecule.charge, hessian)
        positions, hessian = result.positions, result.hessian
        modes = normal_modes(masses, positions, hessian)
        if len(modes.wavenumbers) and modes.wavenumbers[0] < -FLAT:
            raise SimulationError(
                f"{molecule.formula}: no minimum of B3LYP (lowest mode {modes.wavenumbers[0]:.1f} cm⁻¹)"
            )
        derivatives = xtb.FieldDerivatives(result.dipole, np.zeros((len(hessian), 3, 3)))
    else:
        derivatives = xtb.field_derivatives(molecule.numbers, positions, molecule.charge, start)
    plain = modes
    if level != "gfn2" and len(modes.wavenumbers):
        method = DFT if level == "dft" else "GFN2-xTB"
        hessian, derivatives = valence.corrected(method, molecule.numbers, positions, hessian, derivatives)
        modes = normal_modes(masses, positions, hessian)
    return Vibrations(positions, hessian, derivatives, modes, plain)


def _vibrations(
    molecule: Molecule, positions: Array, names: Sequence[str], levels: dict[str, str], level: Level
) -> tuple[Array, dict[str, LineSpectrum], dict[str, Property]]:
    """Return the minimum [N, 3] (bohr), vibrational line spectra, ZPVE and heat capacity."""
    from molspectra.simulation.vibrations import heat_capacity, zero_point_energy

    found = vibrations_of(molecule, positions, level)
    properties = {
        "zpve": Property(zero_point_energy(found.plain), "eV", levels["geometry"]),
        "cv": Property(heat_capacity(found.plain, len(molecule)), "cal/mol/K", levels["geometry"]),
    }
    lines = {
        name: LineSpectrum(name, found.modes.wavenumbers, found.intensities(name), levels[name])
        for name in names
    }
    return found.positions, lines, properties


def _density_of_states(molecule: Molecule, positions: Array, level: str) -> dict[str, LineSpectrum]:
    """Compute the GFN2-xTB orbital energies at `positions` (bohr): lines of intensity 1, in eV."""
    from molspectra.simulation.xtb import Xtb

    result = Xtb(molecule.numbers, positions, molecule.charge).run(positions)
    energies = np.asarray(result.get("orbital-energies"), np.float64) * HARTREE
    occupied = np.asarray(result.get("orbital-occupations")) > 1.0
    return {
        name: LineSpectrum(name, np.sort(energies[part]), np.ones(int(part.sum())), level)
        for name, part in zip(DOS, (occupied, ~occupied), strict=True)
    }


def _electrons(molecule: Molecule, positions: Array, level: str) -> tuple[LineSpectrum, dict[str, Property]]:
    """Return UV-Vis lines, orbital energies and dipole at `positions` [N, 3] (bohr)."""
    from molspectra.simulation.dft import ground_state
    from molspectra.simulation.tda import excitations

    state = ground_state(molecule.numbers, positions, molecule.charge)
    states = excitations(state)
    spectrum = LineSpectrum("uv_vis", states.energies * HARTREE, states.strengths, level)
    ground = level.replace(EXCITED_STATES, "")
    energies = {"homo": float(state.orbital_energies[state.n_occupied - 1]) * HARTREE}
    if len(state.orbital_energies) > state.n_occupied:
        energies["lumo"] = float(state.orbital_energies[state.n_occupied]) * HARTREE
        energies["gap"] = energies["lumo"] - energies["homo"]
    properties = {name: Property(value, "eV", ground) for name, value in energies.items()}
    properties["dipole"] = Property(float(np.linalg.norm(state.dipole)) * DEBYE, "D", ground)
    return spectrum, properties
