"""The datasets of `molspectra prepare`; an importer is loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from molspectra.errors import NotFoundError, hint

if TYPE_CHECKING:
    from molspectra.datasets.importer import Importer

NAMES: dict[str, str] = {
    "qm9": "molspectra.datasets.published.qm9:QM9",
    "qm8": "molspectra.datasets.published.qm8:QM8",
    "pcqm4mv2": "molspectra.datasets.published.pcqm4mv2:PCQM4MV2",
    "md17": "molspectra.datasets.published.md17:MD17",
    "rmd17": "molspectra.datasets.published.md17:RMD17",
    "qm9s": "molspectra.datasets.published.qm9s:QM9S",
    "qm9s-processed": "molspectra.datasets.published.processed:PROCESSED",
    "sdf": "molspectra.datasets.own.structures:SDF",
    "extxyz": "molspectra.datasets.own.structures:EXTXYZ",
    "csv": "molspectra.datasets.own.structures:CSV",
    "parquet": "molspectra.datasets.own.parquet:PARQUET",
    "outputs": "molspectra.datasets.own.outputs:OUTPUTS",
    "npz": "molspectra.datasets.own.npz:NPZ",
}
"""Importers by the name of the dataset, as "module:attribute"."""


def importer(name: str) -> Importer:
    """Return the importer of a dataset."""
    if name not in NAMES:
        raise NotFoundError(f"unknown dataset {name!r}; {hint(name.lower(), NAMES, cutoff=0.5)}")
    module, attribute = NAMES[name].split(":")
    loaded: Importer = getattr(import_module(module), attribute)
    return loaded
