"""The twelve properties of QM9: which head each needs, and the published energies of its free atoms."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from molspectra.errors import InputError
from molspectra.models.heads import PropertyKind
from molspectra.training.config import FinetuneConfig


@dataclass(frozen=True)
class Target:
    """How a property is learnt."""

    head: PropertyKind = "scalar"
    """Head of the model."""
    atoms: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Energy of the free atoms by element symbol in Hartree (B3LYP/6-31G(2df,p), the dataset's own
    `atomref.txt`; Ramakrishnan et al., Sci. Data 2014); empty where the property was published without."""


_U0 = {"H": -0.500273, "C": -37.846772, "N": -54.583861, "O": -75.064579, "F": -99.718730}
_U = {"H": -0.498857, "C": -37.845355, "N": -54.582445, "O": -75.063163, "F": -99.717314}
_H = {"H": -0.497912, "C": -37.844411, "N": -54.581501, "O": -75.062219, "F": -99.716370}
_G = {"H": -0.510927, "C": -37.861317, "N": -54.598897, "O": -75.079532, "F": -99.733544}

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "mu": Target("dipole"),
        "alpha": Target(),
        "homo": Target(),
        "lumo": Target(),
        "gap": Target(),
        "r2": Target("spatial_extent"),
        "zpve": Target(),
        "u0": Target(atoms=_U0),
        "u298": Target(atoms=_U),
        "h298": Target(atoms=_H),
        "g298": Target(atoms=_G),
        "cv": Target(),
    }
)
"""By column of a store of QM9. Any other column is learnt by a scalar head, without references."""

HARTREE = {"Hartree": 1.0, "eV": 27.211386245988, "meV": 27211.386245988, "kcal/mol": 627.5094740631}
"""What one Hartree is, by unit of a column (CODATA 2018)."""


def target(name: str) -> Target:
    """The entry of a column; that of a plain scalar where the table has none."""
    return TARGETS.get(name, Target())


def resolved(config: FinetuneConfig) -> FinetuneConfig:
    """The settings with the head and the kind of atom references that "null" and "auto" stand for.

    Raises:
        InputError: a head was asked for that is not that of the target.
    """
    entry, model = target(config.target), config.model
    head = entry.head if model.property is None else model.property
    if config.target in TARGETS and head != entry.head:
        raise InputError(
            f"model.property: {config.target!r} is learnt by the {entry.head} head, not the {head} one; "
            "leave model.property out (null)"
        )
    kind = model.atom_references
    if kind == "auto":
        kind = "published" if entry.atoms else "none"
    return replace(config, model=replace(model, property=head, atom_references=kind))


def published_references(name: str, unit: str) -> dict[str, float]:
    """Energies of the free atoms by element symbol in the unit of a column.

    Raises:
        InputError: none were published for that property, or the unit is not known.
    """
    atoms = target(name).atoms
    if not atoms:
        known = ", ".join(each for each, entry in TARGETS.items() if entry.atoms)
        raise InputError(f"model.atom_references: none are published for {name!r}, only for {known}; use fit")
    if unit not in HARTREE:
        raise InputError(
            f"model.atom_references: {name!r} is in {unit!r}; the published ones are known in "
            f"{', '.join(HARTREE)}; use fit"
        )
    return {symbol: energy * HARTREE[unit] for symbol, energy in atoms.items()}
