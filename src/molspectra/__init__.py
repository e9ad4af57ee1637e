"""Molecular representation learning from 3D structures and energy spectra.

The public names below are imported on first use, so that `import molspectra` stays fast and light.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from molspectra.chem.molecule import Molecule as Molecule
    from molspectra.chem.readers import from_smiles as from_smiles
    from molspectra.chem.readers import read_molecules as read_molecules
    from molspectra.simulate.api import simulate as simulate
    from molspectra.spectra.spectrum import LineSpectrum as LineSpectrum
    from molspectra.spectra.spectrum import SampledSpectrum as SampledSpectrum

__version__ = "0.1.0"

_PUBLIC = {
    "LineSpectrum": "molspectra.spectra.spectrum",
    "Molecule": "molspectra.chem.molecule",
    "SampledSpectrum": "molspectra.spectra.spectrum",
    "from_smiles": "molspectra.chem.readers",
    "read_molecules": "molspectra.chem.readers",
}


class _SimulatePackage(ModuleType):
    """The subpackage `simulate`, callable because it shares its name with the public function."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Do what `molspectra.simulate.api.simulate` does."""
        return import_module("molspectra.simulate.api").simulate(*args, **kwargs)


import_module("molspectra.simulate").__class__ = _SimulatePackage


def __getattr__(name: str) -> object:
    """Import a public name from its module on first access (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'molspectra' has no attribute {name!r}")
    value: object = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *_PUBLIC})
