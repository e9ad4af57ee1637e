"""The order of the layers, and that importing the package loads none of its heavy dependencies."""

import ast
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


@pytest.fixture(autouse=True)
def loggers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The linter's configuration of logging would silence the package's loggers in all later tests."""
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda _: None)


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


SOURCE = Path(molspectra.__file__).parent


def modules_below(folder):
    """All modules of a package by name, except the package itself, which imports on first use."""
    names = {
        ".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    del names[folder.name]
    return names


def imported_by(path, modules):
    """Modules that a file imports anywhere: at its top, in functions, and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield from (found for found in [name if name in modules else node.module] if found in modules)


def circles_in(folder):
    """Groups of modules that import each other, directly or through others, each sorted."""
    modules = modules_below(folder)
    imports = {name: set(imported_by(path, modules)) - {name} for name, path in modules.items()}

    def reached(start):
        seen, ahead = set(), [start]
        while ahead:
            ahead += imports[module := ahead.pop()] - seen
            seen |= imports[module]
        return seen

    reach = {name: reached(name) for name in modules}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in modules}
    return groups - {()}


def test_no_two_modules_import_each_other():
    assert circles_in(SOURCE) == set()


@pytest.mark.parametrize(
    "back",
    [
        "from made_up.first import value",
        "from made_up import first",
        "import made_up.first as other",
        "def later():\n    from made_up.first import value",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from made_up.first import value",
    ],
)
def test_modules_that_import_each_other_are_noticed(tmp_path, back):
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "first.py").write_text("from made_up import second")
    (package / "second.py").write_text("from made_up.third import value")
    (package / "third.py").write_text("value = 1")
    assert circles_in(package) == set()
    (package / "third.py").write_text(back)
    assert circles_in(package) == {("made_up.first", "made_up.second", "made_up.third")}
