"""Molecular representation learning from 3D structures and energy spectra.

The public names below are imported on first use, so that `import molspectra` stays fast and light.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from molspectra._version import __version__ as __version__

if TYPE_CHECKING:
    from molspectra.apps.api import doctor as doctor
    from molspectra.apps.api import report as report
    from molspectra.apps.calculator import Calculator as Calculator
    from molspectra.apps.embed import embed as embed
    from molspectra.apps.embed_spectra import embed_spectra as embed_spectra
    from molspectra.apps.estimators import MolSpectraEmbedder as MolSpectraEmbedder
    from molspectra.apps.estimators import MolSpectraRegressor as MolSpectraRegressor
    from molspectra.apps.export_model import export_model as export_model
    from molspectra.apps.import_reference import import_reference as import_reference
    from molspectra.apps.loading import load as load
    from molspectra.apps.predict import predict as predict
    from molspectra.chem.molecule import Molecule as Molecule
    from molspectra.chem.readers import from_smiles as from_smiles
    from molspectra.chem.readers import read_molecules as read_molecules
    from molspectra.data.store.bundled import bundled as bundled
    from molspectra.data.store.store import Store as Store
    from molspectra.evaluation.evaluate import evaluate as evaluate
    from molspectra.search.library import Library as Library
    from molspectra.simulation.api import simulate as simulate
    from molspectra.spectra.files.read import read_spectra as read_spectra
    from molspectra.spectra.files.read import read_spectrum as read_spectrum
    from molspectra.spectra.spectrum import LineSpectrum as LineSpectrum
    from molspectra.spectra.spectrum import SampledSpectrum as SampledSpectrum
    from molspectra.training.checkpoint import load_model as load_model
    from molspectra.training.config import FinetuneConfig as FinetuneConfig
    from molspectra.training.config import PretrainConfig as PretrainConfig
    from molspectra.training.run import finetune as finetune
    from molspectra.training.run import pretrain as pretrain

_PUBLIC = {
    "Calculator": "molspectra.apps.calculator",
    "FinetuneConfig": "molspectra.training.config",
    "Library": "molspectra.search.library",
    "LineSpectrum": "molspectra.spectra.spectrum",
    "MolSpectraEmbedder": "molspectra.apps.estimators",
    "MolSpectraRegressor": "molspectra.apps.estimators",
    "Molecule": "molspectra.chem.molecule",
    "PretrainConfig": "molspectra.training.config",
    "SampledSpectrum": "molspectra.spectra.spectrum",
    "Store": "molspectra.data.store.store",
    "bundled": "molspectra.data.store.bundled",
    "doctor": "molspectra.apps.api",
    "embed": "molspectra.apps.embed",
    "embed_spectra": "molspectra.apps.embed_spectra",
    "evaluate": "molspectra.evaluation.evaluate",
    "export_model": "molspectra.apps.export_model",
    "finetune": "molspectra.training.run",
    "from_smiles": "molspectra.chem.readers",
    "import_reference": "molspectra.apps.import_reference",
    "load": "molspectra.apps.loading",
    "load_model": "molspectra.training.checkpoint",
    "predict": "molspectra.apps.predict",
    "pretrain": "molspectra.training.run",
    "read_molecules": "molspectra.chem.readers",
    "read_spectra": "molspectra.spectra.files.read",
    "read_spectrum": "molspectra.spectra.files.read",
    "report": "molspectra.apps.api",
    "simulate": "molspectra.simulation.api",
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
    return sorted({*globals(), *_PUBLIC})
