"""Molecular representation learning from 3D structures and energy spectra.

The public names below are imported on first use, so that `import molspectra` stays fast and light. A molecule
is given as a SMILES, a `Molecule`, an RDKit molecule or ASE atoms; several as a list or a column of a frame.
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
    from molspectra.apps.estimators import MolSpectraClassifier as MolSpectraClassifier
    from molspectra.apps.estimators import MolSpectraEmbedder as MolSpectraEmbedder
    from molspectra.apps.estimators import MolSpectraRegressor as MolSpectraRegressor
    from molspectra.apps.export_model import export_model as export_model
    from molspectra.apps.import_reference import import_reference as import_reference
    from molspectra.apps.model import load as load
    from molspectra.apps.predict import predict as predict
    from molspectra.apps.predict_spectra import predict_spectra as predict_spectra
    from molspectra.chem.molecule import Molecule as Molecule
    from molspectra.chem.readers import from_ase as from_ase
    from molspectra.chem.readers import from_rdkit as from_rdkit
    from molspectra.chem.readers import from_smiles as from_smiles
    from molspectra.chem.readers import read_molecules as read_molecules
    from molspectra.data.store.bundled import bundled as bundled
    from molspectra.data.store.store import Store as Store
    from molspectra.datasets.prepare import prepare as prepare
    from molspectra.evaluation.ensemble import finetune_ensemble as finetune_ensemble
    from molspectra.evaluation.evaluate import evaluate as evaluate
    from molspectra.search.explain import explain as explain
    from molspectra.search.library import Library as Library
    from molspectra.simulation.api import simulate as simulate
    from molspectra.spectra.files.read import read_spectra as read_spectra
    from molspectra.spectra.files.read import read_spectrum as read_spectrum
    from molspectra.spectra.spectrum import LineSpectrum as LineSpectrum
    from molspectra.spectra.spectrum import SampledSpectrum as SampledSpectrum
    from molspectra.training.checkpoint import load_model as load_model
    from molspectra.training.config import FinetuneConfig as FinetuneConfig
    from molspectra.training.config import PretrainConfig as PretrainConfig
    from molspectra.training.configuration import recipe as recipe
    from molspectra.training.run import finetune as finetune
    from molspectra.training.run import pretrain as pretrain
    from molspectra.training.tune import tune as tune

_GROUPS = {
    "Molecules and spectra": """
from_smiles      molspectra.chem.readers         the molecule of a SMILES, with a 3D structure
                 ms.from_smiles("CCO")
from_rdkit       molspectra.chem.readers         the molecule of an RDKit molecule
                 ms.from_rdkit(Chem.MolFromSmiles("CCO"))
from_ase         molspectra.chem.readers         the molecule of ASE atoms
                 ms.from_ase(ase.build.molecule("H2O"))
read_molecules   molspectra.chem.readers         the molecules of a file, one by one
                 list(ms.read_molecules("some.sdf"))
Molecule         molspectra.chem.molecule        one structure: elements and coordinates in Å
                 ms.Molecule([1, 1], [[0, 0, 0], [0, 0, 0.74]])
read_spectrum    molspectra.spectra.files.read   the measured spectrum in a file
                 ms.read_spectrum("sample.jdx")
read_spectra     molspectra.spectra.files.read   all spectra in a file
                 ms.read_spectra("samples.csv", modality="ir")
LineSpectrum     molspectra.spectra.spectrum     a computed spectrum: lines with their intensities
                 ms.LineSpectrum("ir", [1200.0, 1700.0], [3.0, 9.0])
SampledSpectrum  molspectra.spectra.spectrum     a spectrum sampled on the axis of its modality
                 ms.SampledSpectrum("uv_vis", values)
simulate         molspectra.simulation.api       spectra and properties by quantum chemistry
                 ms.simulate("CCO")
""",
    "Data": """
bundled          molspectra.data.store.bundled   a store that comes with the package
                 ms.bundled()
Store            molspectra.data.store.store     an open store: rows, slices, batches, a pandas frame
                 ms.Store("qm9s.arrow")[:10]
prepare          molspectra.datasets.prepare     make a store of the files of a dataset
                 ms.prepare("csv", "mine.csv", "mine.arrow")
""",
    "Training": """
recipe           molspectra.training.configuration  the configuration of a recipe, with settings of one's own
                 ms.recipe("small-gap", **{"loop.steps": 500})
pretrain         molspectra.training.run         pre-train an encoder
                 ms.pretrain("small-stage1", "runs/stage1")
finetune         molspectra.training.run         fine-tune a model on one property or several
                 ms.finetune({"init": "base", "target": "gap"}, "runs/gap")
finetune_ensemble  molspectra.evaluation.ensemble  fine-tune several members, whose spread is calibrated
                 ms.finetune_ensemble("base-gap", "runs/five", members=5)
tune             molspectra.training.tune        search for the settings of a fine-tuning
                 ms.tune("base-gap", "runs/search", trials=20)
evaluate         molspectra.evaluation.evaluate  test a run on molecules that it was not trained on
                 ms.evaluate("runs/gap")
report           molspectra.apps.api             one HTML page about runs
                 ms.report(["runs/gap"], "report.html")
PretrainConfig   molspectra.training.config      all settings of a pre-training run
                 ms.PretrainConfig().replace(init="small")
FinetuneConfig   molspectra.training.config      all settings of a fine-tuning run
                 ms.FinetuneConfig(target="gap,homo")
""",
    "Models in use": """
load             molspectra.apps.model           a model by name, run or address; it can embed and predict
                 ms.load("base").embed(["CCO"])
embed            molspectra.apps.embed           molecules as vectors
                 ms.embed(["CCO", "CO"])
embed_spectra    molspectra.apps.embed_spectra   spectra as vectors, to compare with those of molecules
                 ms.embed_spectra("samples.csv")
predict          molspectra.apps.predict         properties of molecules by a fine-tuned run
                 ms.predict(["CCO"], "runs/gap")
predict_spectra  molspectra.apps.predict_spectra  IR, Raman and UV-Vis spectra of molecules, by a network
                 ms.predict_spectra(["CCO"])[0]["ir"]
MolSpectraEmbedder  molspectra.apps.estimators  a scikit-learn transformer: molecules to vectors
                 make_pipeline(ms.MolSpectraEmbedder(), Ridge())
MolSpectraRegressor  molspectra.apps.estimators  a scikit-learn regressor that fine-tunes a model
                 ms.MolSpectraRegressor(steps=300).fit(smiles, values)
MolSpectraClassifier  molspectra.apps.estimators  a scikit-learn classifier that fine-tunes a model
                 ms.MolSpectraClassifier(steps=300).fit(smiles, labels)
export_model     molspectra.apps.export_model    a model as a file that PyTorch runs alone
                 ms.export_model("runs/gap", "gap.pt2")
Calculator       molspectra.apps.calculator      an ASE calculator from a fine-tuned run
                 atoms.calc = ms.Calculator("runs/ethanol")
Library          molspectra.search.library       a library of molecules, searched by spectra
                 ms.Library("library").search({"ir": spectrum})
explain          molspectra.search.explain       why a search gave its first answers, band by band
                 ms.explain(library, hits, {"ir": spectrum})
load_model       molspectra.training.checkpoint  the bare torch module of a run, with its settings
                 ms.load_model("runs/gap")
import_reference  molspectra.apps.import_reference  a model from a checkpoint of the published code
                 ms.import_reference("published.ckpt", "runs/paper")
doctor           molspectra.apps.api             check versions, devices and optional parts
                 ms.doctor()
""",
}
"""Public names by group: module, what they are, and an example in the line below."""


def _listed(groups: dict[str, str]) -> tuple[dict[str, str], str]:
    """The modules of the public names, and the text about them for `help`."""
    modules, text = {}, []
    for title, entries in groups.items():
        lines = entries.strip().splitlines()
        text += ["", f"  {title}"]
        for entry, example in zip(lines[::2], lines[1::2], strict=True):
            name, modules[name], about = entry.split(maxsplit=2)
            text += [f"    {name}: {about}", f"        {example.strip()}"]
    return modules, "\n".join(text)


_PUBLIC, _about = _listed(_GROUPS)
__doc__ = f"{__doc__ or ''}\n::\n{_about}\n"
__all__ = sorted(name for name, module in _PUBLIC.items() if module != "molspectra.apps.estimators")
"""Without the estimators: `from molspectra import *` must not need scikit-learn."""


def __getattr__(name: str) -> object:
    """Import a public name from its module on first access (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'molspectra' has no attribute {name!r}")
    value: object = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return [*__all__, "__doc__", "__version__"]
