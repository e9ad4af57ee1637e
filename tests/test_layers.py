"""The order of the layers, and that importing the package loads none of its heavy dependencies."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS, lint_imports

import molspectra

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "pyproject.toml"
HEAVY = (
    "ase",
    "lightning_fabric",
    "matplotlib",
    "pyarrow",
    "pyscf",
    "rdkit",
    "scipy",
    "tblite",
    "torch",
)


def test_each_layer_imports_only_from_those_below_it():
    assert lint_imports(config_filename=str(CONFIG), no_cache=True) == EXIT_STATUS_SUCCESS


def test_the_contract_can_fail(tmp_path):
    text = CONFIG.read_text(encoding="utf-8")
    before, layers, after = re.split(r"^layers = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    upside_down = "".join(reversed(layers.splitlines(keepends=True)))
    config = tmp_path / "pyproject.toml"
    config.write_text(f"{before}layers = [\n{upside_down}]{after}", encoding="utf-8")
    assert lint_imports(config_filename=str(config), no_cache=True) == EXIT_STATUS_ERROR


def loaded_after(statement):
    """Top-level modules in a new interpreter after a statement."""
    code = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_imports_stay_light():
    layers = sorted(p.parent.name for p in Path(molspectra.__file__).parent.glob("*/__init__.py"))
    everything = ", ".join(f"molspectra.{layer}" for layer in layers)
    assert loaded_after(f"import molspectra, {everything}").isdisjoint({*HEAVY, "numpy"})


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = molspectra.no_such_name
