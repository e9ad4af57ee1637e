"""Molecular representation learning from 3D structures and energy spectra.

The public names below are imported on first use, so that `import molspectra` stays fast and light.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "LineSpectrum": "molspectra.spectra.spectrum",
    "Molecule": "molspectra.chem.molecule",
    "SampledSpectrum": "molspectra.spectra.spectrum",
    "from_smiles": "molspectra.chem.readers",
    "read_molecules": "molspectra.chem.readers",
    "simulate": "molspectra.simulate",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first access (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'molspectra' has no attribute {name!r}")
    value: object = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*globals(), *_PUBLIC])
