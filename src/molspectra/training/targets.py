"""The twelve properties of QM9: the head that each needs, and the published energies of free atoms."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from molspectra.data.store.schema import Quantity
from molspectra.datasets.published.qm9_targets import ATOMIC_ENERGIES
from molspectra.errors import SettingError, UnitError
from molspectra.models.config import COMPONENTS, HeadConfig, PropertyKind
from molspectra.models.model import property_heads
from molspectra.simulation.units import HARTREE, KCAL
from molspectra.training.config import FinetuneConfig

HEADS: Mapping[str, PropertyKind] = MappingProxyType(
    {
        "mu": "dipole",
        "alpha": "scalar",
        "homo": "scalar",
        "lumo": "scalar",
        "gap": "scalar",
        "r2": "spatial_extent",
        "zpve": "scalar",
        "u0": "scalar",
        "u298": "scalar",
        "h298": "scalar",
        "g298": "scalar",
        "cv": "scalar",
    }
)
"""Head by column of a store of QM9; any other column is learnt by the scalar head unless told otherwise."""

INTENSIVE = ("gap", "homo", "lumo")
"""Columns that do not grow with the molecule, and are pooled unless told otherwise."""

PROBABILITY = "probability"
"""Unit of what a model predicts of a class: the probability that it is 1."""

UNITS = MappingProxyType(
    {"Hartree": 1.0, "eV": HARTREE, "meV": 1000 * HARTREE, "kcal/mol": KCAL, "kJ/mol": 4.184 * KCAL}
)
"""What one Hartree is, by unit of a column."""


def resolved(config: FinetuneConfig) -> FinetuneConfig:
    """Return the settings with the head, readout and atom references that "null" and "auto" stand for.

    Raises:
        SettingError: a head was asked for that is not that of the target, or forces of a class.
    """
    count = len(config.names)
    if len(config.model.heads) not in (0, count):
        raise SettingError(f"model.heads: {len(config.model.heads)} for {count} targets; leave them out")
    heads = config.model.heads or tuple(_head(config, target) for target in config.names)
    if config.forces and heads[0].property == "binary":
        raise SettingError(
            f"forces: they are the gradient of an energy, and {config.names[0]!r} is a class; "
            "name an energy first, or leave the forces out"
        )
    if count > 1:
        return replace(config, model=replace(config.model, heads=heads))
    (head,) = heads
    return replace(config, model=replace(config.model, **vars(head)))


def classes_of(config: FinetuneConfig) -> tuple[str, ...]:
    """Return the targets of resolved settings that are classes."""
    heads = property_heads(config.model)
    return tuple(name for name, head in zip(config.names, heads, strict=False) if head.property == "binary")


def _head(config: FinetuneConfig, target: str) -> HeadConfig:
    """Return how a target is read from the atoms."""
    model, right = config.model, HEADS.get(target)
    declared: dict[PropertyKind, tuple[str, ...]] = {
        "binary": config.classes,
        "vector": config.vectors,
        "tensor": config.tensors,
    }
    kind: PropertyKind | None = None
    for one, names in declared.items():
        kind = one if target in names else kind
    if kind is None and model.property in COMPONENTS:
        raise SettingError(
            f"model.property: name the targets that are {model.property}s in {model.property}s"
        )
    is_declared = kind is not None
    kind = kind or model.property or right or "scalar"
    if right not in (None, kind) and not is_declared and kind != "binary":  # any column may hold classes
        raise SettingError(
            f"model.property: {target!r} is learnt by the {right} head, not the {kind} one; "
            "leave model.property out (null)"
        )
    beside = is_declared and len(config.names) > 1  # readout and references are then those of the numbers
    references = "none" if beside else model.atom_references
    if references == "auto":
        references = "published" if target in ATOMIC_ENERGIES else "none"
    readout = "auto" if beside else model.readout
    if readout == "auto":
        is_energy = config.forces and target == config.names[0]
        is_intensive = target in INTENSIVE and kind == "scalar" and references == "none" and not is_energy
        readout = "pooled" if is_intensive or kind == "binary" else "sum"
    return HeadConfig(kind, readout, references)


def quantities_of(about: Mapping[str, Any]) -> dict[str, Quantity]:
    """Return unit and level of each property that a fine-tuned model predicts, by name, from its facts."""
    facts = about.get("targets", {str(about.get("target", "property")): about})
    return {
        name: Quantity(str(one.get("unit", "")), str(one.get("level", ""))) for name, one in facts.items()
    }


def published_references(target: str, unit: str) -> dict[int, float]:
    """Return the energies of free atoms by atomic number in the unit of a column (B3LYP/6-31G(2df,p), QM9's).

    Raises:
        SettingError: none were published for that property.
        UnitError: the unit of the column is not known.
    """
    if target not in ATOMIC_ENERGIES:
        known = ", ".join(ATOMIC_ENERGIES)
        raise SettingError(
            f"model.atom_references: none are published for {target!r}, only for {known}; use fit"
        )
    if unit not in UNITS:
        raise UnitError(
            f"model.atom_references: {target!r} is in {unit!r}; the published ones are known in "
            f"{', '.join(UNITS)}; use fit"
        )
    return {number: energy * UNITS[unit] for number, energy in ATOMIC_ENERGIES[target].items()}
