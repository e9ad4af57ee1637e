"""Simulations as rows of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Row

if TYPE_CHECKING:
    from molspectra.simulation.api import Simulation


def simulated_row(simulation: Simulation) -> Row:
    """Return the row of one simulation: its optimised structure, its lines and its properties."""
    values = {name: each.value for name, each in simulation.properties.items()}
    return Row(simulation.molecule, simulation.lines, values)


def simulated_metadata(
    example: Simulation, *, source: str, licence: str, notes: Mapping[str, str] | None = None
) -> Metadata:
    """Return the metadata of a store of simulations that were all asked for the same as `example`.

    Args:
        example: any of them; it gives the modalities, properties, units and levels of theory.
        source: where the molecules come from.
        licence: under which terms.
        notes: further facts in words.
    """
    return Metadata(
        source=source,
        licence=licence,
        level=example.levels.get("geometry", ""),
        lines={name: lines.level for name, lines in example.lines.items()},
        properties={name: Quantity(each.unit, each.level) for name, each in example.properties.items()},
        notes=dict(notes or {}),
    )
