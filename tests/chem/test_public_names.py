import subprocess
import sys
import types

import pytest

import molspectra as ms
from molspectra.errors import InputError, MolspectraError, SimulationError


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()


def test_public_names_come_from_their_modules():
    from molspectra.chem.molecule import Molecule
    from molspectra.spectra.spectrum import LineSpectrum

    assert ms.Molecule is Molecule
    assert ms.LineSpectrum is LineSpectrum
    assert {"Molecule", "SampledSpectrum", "from_smiles", "read_molecules", "simulate"} <= set(dir(ms))


def test_every_public_name_exists():
    for name in ms._PUBLIC:
        assert not isinstance(getattr(ms, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ms.nonsense


def test_errors_share_one_base():
    assert issubclass(InputError, MolspectraError)
    assert issubclass(SimulationError, MolspectraError)
    assert not issubclass(SimulationError, InputError)


def test_simulate_is_a_plain_function():
    from molspectra.simulation.api import simulate

    assert ms.simulate is simulate
    assert isinstance(ms.simulate, types.FunctionType)


def test_importing_the_light_parts_loads_nothing_heavy():
    code = (
        "import sys, molspectra, molspectra.errors, molspectra.chem, molspectra.chem.molecule, "
        "molspectra.chem.identity, molspectra.chem.readers, molspectra.spectra, molspectra.spectra.modality, "
        "molspectra.spectra.spectrum, molspectra.spectra.plots, molspectra.spectra.units\n"
        "heavy = {'torch', 'rdkit', 'ase', 'pyarrow', 'scipy', 'matplotlib', 'lightning_fabric'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    assert run(code) == []


def test_importing_the_package_alone_does_not_even_load_numpy():
    assert run("import sys, molspectra; print('numpy' in sys.modules)") == ["False"]
