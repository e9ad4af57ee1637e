"""One molecule: structure, spectra predicted and simulated, properties, and the nearest of the library."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from molspectra.apps.explorer import frames
from molspectra.apps.explorer.frames import card, choices, message
from molspectra.apps.explorer.site import Site
from molspectra.apps.loading import LoadedModel
from molspectra.apps.predict import predict, predicts
from molspectra.apps.predict_spectra import predict_spectra
from molspectra.chem.molecule import Molecule
from molspectra.chem.smiles import from_smiles
from molspectra.errors import FormatError, InputError, NotFoundError, SettingError, ValueRangeError
from molspectra.evaluation.finetuned import in_brackets
from molspectra.printable import printable
from molspectra.reporting.markup import Markup
from molspectra.search.figure import position
from molspectra.search.hits import Hits
from molspectra.simulation.api import (
    VIBRATIONAL,
    Level,
    Simulation,
    check_supported,
    levels_of_theory,
    simulate,
)
from molspectra.simulation.assignment import Assignment, assign
from molspectra.simulation.runner import Calculation
from molspectra.spectra.modality import Modality, modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

KINDS = ("ir", "raman", "uv_vis")
"""Modalities of the panels, in their order."""

LONGEST = 1000
"""Letters of a SMILES that is taken."""

MOST_ATOMS = 60
"""Larger molecules are not simulated, as their Hessian takes too long."""

LIMIT = 600.0
"""Seconds that one simulation may take."""

NEAREST = 8
"""Molecules of the library that are listed."""

_WAIT = 0.5  # seconds between two looks at a calculation; it is cancelled within that time
_FAINT = 0.002  # lines below this share of the highest are not drawn
_MODES = 40  # vibrations that are listed
_HEIGHT, _PANEL = 150, 205  # pixels of a frame without its panels, and of a panel

_BASE = (
    "base learnt GFN2-xTB spectra for IR and Raman, and for UV-Vis the two lowest CC2 excitations: it "
    "predicts no band above these, which a simulation has."
)


@dataclass(frozen=True, eq=False)
class Shown:
    """One molecule and what the model says of it, kept for one visitor.

    Attributes:
        molecule: the structure.
        model: name of the model.
        predicted: its spectra by modality; empty where it predicts none.
        properties: predicted properties, a line each.
        remarks: what could not be predicted, and why.
    """

    molecule: Molecule
    model: str
    predicted: Mapping[str, SampledSpectrum] = field(default_factory=dict)
    properties: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name for people."""
        return printable(self.molecule.name or self.molecule.smiles or self.molecule.formula)


@dataclass(frozen=True, eq=False)
class Simulated:
    """What was simulated so far.

    Attributes:
        lines: by modality.
        modes: the vibrations and what moves in them; None without.
        properties: computed ones, a line each.
    """

    lines: Mapping[str, LineSpectrum] = field(default_factory=dict)
    modes: Assignment | None = None
    properties: tuple[str, ...] = ()


def read(smiles: str | None) -> Molecule:
    """The molecule of a SMILES, with a conformer.

    Raises:
        InputError: no SMILES, one that cannot be read or is too long, or no conformer.
    """
    text = (smiles or "").strip()
    if not text:
        raise SettingError("type a SMILES, such as CCO, or draw a molecule first")
    if len(text) > LONGEST:
        raise FormatError(f"a SMILES of {len(text)} letters is longer than the {LONGEST} that are taken here")
    return from_smiles(text)


def of_library(site: Site, row: Any) -> Molecule:
    """The structure of a row of the library.

    Raises:
        NotFoundError: no such row.
    """
    try:
        number = int(row)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < len(site.library):
        raise NotFoundError("the library has no such molecule; choose one of the list")
    return site.library.molecule(number)


def look(site: Site, molecule: Molecule) -> Shown:
    """Predict spectra and properties of a molecule; what cannot be predicted becomes a remark."""
    try:
        model = site.loaded
    except InputError as error:
        return Shown(molecule, site.model, remarks=(str(error),))
    remarks = []
    spectra: Mapping[str, SampledSpectrum] = {}
    try:
        spectra = predict_spectra([molecule], model)[0]
    except InputError as error:
        remarks.append(f"No predicted spectra: {error}")
    properties: tuple[str, ...] = ()
    if all(net.property_head is None for net in model.members):
        remarks.append(
            f"{model.name} predicts no properties; to see some, start the explorer with a fine-tuned run or "
            "an ensemble: molspectra explore --model RUN"
        )
    else:
        try:
            properties = _properties(molecule, model)
        except InputError as error:
            remarks.append(f"No predicted properties: {error}")
    return Shown(molecule, model.name, spectra, properties, tuple(remarks))


def _properties(molecule: Molecule, model: LoadedModel) -> tuple[str, ...]:
    """Predicted properties with unit, uncertainty and level, a line each."""
    predicts(model)  # refuses with the reason
    found = predict([molecule], model, forces=False)
    lines = []
    for index, (name, quantity) in enumerate(zip(found.targets, found.quantities, strict=True)):
        value = float(found.values.ravel()[index])
        unit = f" {quantity.unit}" if quantity.unit else ""
        sure = ""
        if found.uncertainties is not None and found.half_widths is not None:
            sure = f" ± {found.uncertainties.ravel()[index]:.2g}{unit} (standard deviation)"
            half = float(found.half_widths.ravel()[index])
            if np.isfinite(half):
                share = f"{100 * found.coverage:g} %"
                sure += f", {share} interval {value - half:.4g} to {value + half:.4g}{unit}"
        lines.append(
            f"{name}: {value:.4g}{unit}{sure}{in_brackets(quantity.level)}, predicted by {model.name}"
        )
    return tuple(lines)


def nearest(site: Site, molecule: Molecule) -> Hits:
    """The molecules of the library whose structures its model embeds most alike.

    Raises:
        InputError: no library, or a molecule that its model does not know.
    """
    return site.library.nearest(molecule, NEAREST)


def simulated(
    molecule: Molecule, kinds: Sequence[str], level: Level, limit: float = LIMIT
) -> Iterator[tuple[str, Simulated]]:
    """Simulate spectra in a process of its own; yields what is being done, and the results so far.

    The process is killed when the iterator is closed, and when the time is up.

    Raises:
        InputError: a molecule, modality or level that cannot be simulated, or a missing extra.
        SimulationError: the calculation failed, or took too long.
    """
    levels = levels_of_theory([kind for kind in KINDS if kind in kinds], level=level)
    check_supported(molecule)
    if len(molecule) > MOST_ATOMS:
        raise ValueRangeError(
            f"{molecule.formula} has {len(molecule)} atoms, more than the {MOST_ATOMS} that are simulated "
            "here; molspectra simulate has no such limit"
        )
    start, result = time.monotonic(), Simulated()
    vibrational = tuple(kind for kind in levels if kind in VIBRATIONAL)

    def run(
        what: str, task: Callable[[Molecule], Any], of: Molecule
    ) -> Generator[tuple[str, Simulated], None, Any]:
        """Yield while it runs; returns its result."""
        with Calculation(task, of, max(0.0, start + limit - time.monotonic())) as running:
            while (found := running.result(_WAIT)) is None:
                passed = time.monotonic() - start
                yield f"{what}: {passed:.0f} s, of at most {limit:.0f} s", result
        return found

    if vibrational:
        modes: Assignment = yield from run(
            f"Optimising, and computing the vibrations ({levels[vibrational[0]]})",
            partial(assign, modalities=vibrational, level=level),
            molecule,
        )
        lines = {
            name: LineSpectrum(name, modes.wavenumbers, values, levels[name])
            for name, values in modes.intensities.items()
        }
        result = Simulated(lines, modes)
        yield f"{' and '.join(modality(name).title for name in vibrational)}: done", result
    if "uv_vis" in levels:
        if result.modes is None:
            task, of = partial(simulate, modalities=("uv_vis",)), molecule
        else:  # at the minimum that was just found
            task, of = partial(simulate, modalities=("uv_vis",), geometry="given"), result.modes.molecule
        found: Simulation = yield from run(f"Computing excitations ({levels['uv_vis']})", task, of)
        line = replace(found.lines["uv_vis"], level=levels["uv_vis"])
        properties = tuple(
            f"{name}: {each.value:.4g} {each.unit} ({levels['uv_vis']}), simulated"
            for name, each in found.properties.items()
        )
        result = replace(result, lines={**result.lines, "uv_vis": line}, properties=properties)
    yield f"Simulated in {time.monotonic() - start:.0f} s.", result


def told(shown: Shown) -> Markup:
    """Which molecule it is, and what is predicted of it."""
    molecule = shown.molecule
    charge = f", charge {molecule.charge:+d}" if molecule.charge else ""
    text = f"{shown.title}: {molecule.formula}, {len(molecule)} atoms{charge}."
    return message(text, items=[*shown.properties, *shown.remarks])


def listed(hits: Hits, selected: int | None = None) -> Markup:
    """The nearest molecules as buttons, each with its row as choice."""
    rows = []
    for place, hit in enumerate(hits):
        name = hit["name"] or hit["smiles"] or hit["formula"]
        line = f"{hit['formula']} · similarity {hit['score']:.3f}"
        rows.append((str(hit["row"]), card(hit["smiles"], f"{hit['rank']}. {name}", line, f"n{place}")))
    chosen = None if selected is None else str(selected)
    return frames.whole(choices(rows, "nearest molecules of the library, by structure", chosen))


def drawn(shown: Shown, result: Simulated | None = None) -> Markup:
    """Draw the spectra, the structure, and the motion of a chosen vibration."""
    result = Simulated() if result is None else result
    modes = result.modes
    structure, rotation = frames.structure(shown.molecule if modes is None else modes.molecule)
    listed_modes = [] if modes is None else _strongest(modes)
    panels = [
        _panel(modality(name), shown, result, listed_modes)
        for name in KINDS
        if name in shown.predicted or name in result.lines
    ]
    vibrations = [
        {
            "label": f"{position(float(modes.wavenumbers[mode]), modality('ir'))} cm⁻¹",
            "motion": modes.motion(mode),
            "moves": frames.moves(modes.displacements[mode], rotation),
        }
        for mode in listed_modes
        if modes is not None
    ]
    data = {"name": shown.title, "structure": structure, "panels": panels, "vibrations": vibrations}
    height = _HEIGHT + _PANEL * max(len(panels), 1 + bool(vibrations))
    return frames.frame("molecule", data, f"spectra and structure of {shown.title}", height)


def _strongest(modes: Assignment) -> list[int]:
    """The vibrations that are strong in any modality, strongest first."""
    if not len(modes.wavenumbers):
        return []
    heights = [values / values.max() for values in modes.intensities.values() if values.max() > 0]
    strength = np.max(heights, axis=0) if heights else np.ones(len(modes.wavenumbers))
    return [int(mode) for mode in np.argsort(-strength, kind="stable") if strength[mode] >= _FAINT][:_MODES]


def _panel(kind: Modality, shown: Shown, result: Simulated, listed_modes: list[int]) -> dict[str, Any]:
    """Curves of one modality, each with 1 as its highest value, and the lines of the simulated one."""
    curves, lines = [], []
    if kind.name in shown.predicted:
        curves.append((f"predicted by {shown.model}", "dash", shown.predicted[kind.name].values))
    if kind.name in result.lines:
        line = result.lines[kind.name]
        curves.append(("simulated", "solid", line.broadened().values))
        inside = (line.position >= kind.start) & (line.position <= kind.stop)
        highest = float(line.intensity[inside].max()) if inside.any() else 0.0
        places = {mode: place for place, mode in enumerate(listed_modes)}
        for number in np.flatnonzero(inside & (line.intensity > _FAINT * highest)):
            vibration = places.get(int(number)) if kind.name in VIBRATIONAL else None
            where, height = float(line.position[number]), float(line.intensity[number])
            unit = f" {kind.line_unit}" if kind.line_unit else ""
            motion = ""
            if vibration is not None and result.modes is not None:
                motion = result.modes.motion(int(number))
            lines.append(
                {
                    "at": where,
                    "height": height / highest,
                    "label": f"{position(where, kind)} {kind.unit}: {height:.3g}{unit}",
                    "motion": motion,
                    "vibration": vibration,
                }
            )
    highests = [float(values.max()) for _, _, values in curves]
    scaled = [values / (top or 1.0) for (_, _, values), top in zip(curves, highests, strict=True)]
    axis, *thin = frames.thinned(kind.axis(), *scaled)
    return {
        "name": kind.name,
        "title": kind.title,
        "axisTitle": f"{kind.quantity} / {kind.unit}",
        "range": [kind.start, kind.stop][:: -1 if kind.name == "ir" else 1],
        "axis": frames.numbers(axis, 6),
        "curves": [
            {
                "name": f"{name} (highest {top:.3g} {kind.intensity_unit})",
                "dash": dash,
                "values": frames.numbers(y),
            }
            for (name, dash, _), top, y in zip(curves, highests, thin, strict=True)
        ],
        "lines": lines,
    }


def captions(shown: Shown, result: Simulated | None = None) -> Markup:
    """The level of theory of everything that is drawn."""
    result = Simulated() if result is None else result
    items = []
    if shown.predicted:
        names = ", ".join(modality(name).title for name in KINDS if name in shown.predicted)
        items.append(
            f"Dashed: {names}, predicted by the network {shown.model} from the structure; a prediction, not "
            "a calculation."
        )
        if shown.model == "base":
            items.append(_BASE)
    items += [
        f"Solid: {modality(name).title}, simulated: {line.level}; every line has the width "
        f"{modality(name).fwhm:g} {modality(name).unit}."
        for name, line in result.lines.items()
    ]
    if result.modes is None:
        items.append("Structure: as given by the library, or one conformer (ETKDGv3, MMFF94).")
    else:
        items.append(f"Structure: minimum of {result.modes.levels['geometry']}.")
    items += result.properties
    return message("What is drawn (each curve divided by its highest value):", items=items)
