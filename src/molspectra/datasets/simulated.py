"""Simulations as rows of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Row

if TYPE_CHECKING:
    from molspectra.simulation.api import Simulation


def simulated_row(simulation: Simulation) -> Row:
    """Return the row of one simulation: its optimised structure, its lines and its properties.

    Spectra without any intensity, such as the IR spectrum of N2, are left out, with their reason.
    """
    values = {name: quantity.value for name, quantity in simulation.properties.items()}
    return Row(simulation.molecule, simulation.lines, values).with_usable_spectra()


def simulated_metadata(
    example: Simulation, *, source: str, licence: str, notes: Mapping[str, str] | None = None
) -> Metadata:
    """Return the metadata of a store of simulations with the settings of `example`.

    Args:
        example: any of them; it gives the modalities, properties, units and levels of theory.
        source: origin of the molecules.
        licence: terms of use.
        notes: further facts as text.
    """
    return Metadata(
        source=source,
        licence=licence,
        level=example.levels.get("geometry", ""),
        lines={name: lines.level for name, lines in example.lines.items()},
        properties={name: Quantity(value.unit, value.level) for name, value in example.properties.items()},
        notes=dict(notes or {}),
    )
