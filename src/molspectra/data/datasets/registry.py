"""The datasets that `molspectra prepare` knows, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from molspectra.data.datasets.importer import Importer
from molspectra.errors import InputError, hint

NAMES: dict[str, str] = {
    "qm9": "molspectra.data.datasets.qm9:QM9",
    "qm8": "molspectra.data.datasets.qm8:QM8",
    "pcqm4mv2": "molspectra.data.datasets.pcqm4mv2:PCQM4MV2",
    "md17": "molspectra.data.datasets.md17:MD17",
    "rmd17": "molspectra.data.datasets.md17:RMD17",
    "qm9s": "molspectra.data.datasets.qm9s:QM9S",
    "qm9s-processed": "molspectra.data.datasets.processed:PROCESSED",
    "sdf": "molspectra.data.datasets.own_structures:SDF",
    "extxyz": "molspectra.data.datasets.own_structures:EXTXYZ",
    "csv": "molspectra.data.datasets.own_structures:CSV",
    "parquet": "molspectra.data.datasets.tables:PARQUET",
    "outputs": "molspectra.data.datasets.outputs:OUTPUTS",
    "npz": "molspectra.data.datasets.own_npz:NPZ",
}
"""Importers by the name of the dataset, as "module:attribute"."""


def importer(name: str) -> Importer:
    """Return the importer of a dataset.

    Raises:
        InputError: if there is none of that name; the message suggests the nearest.
    """
    if name not in NAMES:
        raise InputError(f"unknown dataset {name!r}; {hint(name.lower(), NAMES, cutoff=0.5)}")
    module, attribute = NAMES[name].split(":")
    found: Importer = getattr(import_module(module), attribute)
    return found
