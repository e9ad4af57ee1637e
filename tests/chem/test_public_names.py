import ast
import inspect
import pydoc
import re
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


def test_help_lists_every_public_name_once_with_an_example():
    about = ms.__doc__
    listed = re.findall(r"^    (\w+): \S.*\n {8}\S.*$", about, re.MULTILINE)
    assert sorted(listed) == sorted(set(listed)) == sorted(ms._PUBLIC)
    for name in listed:
        assert f"{name}(" in about.partition(f"    {name}: ")[2].splitlines()[1]
    shown = [line.strip() for line in pydoc.plain(pydoc.render_doc(ms)).splitlines()]
    start = shown.index("Molecules and spectra")
    wanted = [line.strip() for line in about.partition("::\n\n")[2].splitlines()]
    assert shown[start : start + len(wanted)] == wanted


def test_the_examples_call_what_is_there_with_arguments_that_it_takes():
    checked = set()
    for line in re.findall(r"^ {8}(.*)$", ms.__doc__, re.MULTILINE):
        for node in ast.walk(ast.parse(line)):
            if isinstance(node, ast.Call) and re.fullmatch(r"ms\.\w+", ast.unparse(node.func)):
                name = ast.unparse(node.func).removeprefix("ms.")
                keywords = {each.arg: None for each in node.keywords if each.arg}
                inspect.signature(getattr(ms, name)).bind(*node.args, **keywords)
                checked.add(name)
    assert checked == set(ms._PUBLIC)


def test_all_and_dir_have_the_public_names_and_nothing_private():
    scope = {}
    exec("from molspectra import *", scope)
    assert set(ms.__all__) == scope.keys() - {"__builtins__"}
    assert {name for name in dir(ms) if not name.startswith("__")} == set(ms.__all__)
    assert {node.name for node in _typed_names()} == set(ms._PUBLIC)
    without_extras = {name for name in ms._PUBLIC if not name.startswith("MolSpectra")}
    assert set(ms.__all__) == without_extras  # neither * nor help() needs scikit-learn


def _typed_names():
    """The names that type checkers see."""
    tree = ast.parse(inspect.getsource(ms))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return [alias for node in block.body for alias in node.names]


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
