"""The command line as such: help, versions, unknown names, exit codes, and that it starts light."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import molspectra
from molspectra.apps import cli
from molspectra.apps.cli import COMMANDS, main
from molspectra.errors import InputError, MolspectraError, SimulationError

HEAVY = {
    "torch",
    "rdkit",
    "ase",
    "pyarrow",
    "lightning_fabric",
    "scipy",
    "matplotlib",
    "pyscf",
    "tblite",
    "numpy",
    "numba",
    "safetensors",
    "rich",
    "pandas",
    "sklearn",
    "optuna",
    "faiss",
    "plotly",
    "gradio",
    "fastapi",
}


def loaded_by(statement: str) -> tuple[str, set[str]]:
    """What a new interpreter prints, and the top-level modules it has afterwards."""
    code = f"import sys\n{statement}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *printed, modules = done.stdout.splitlines()
    return "\n".join(printed), set(modules.split())


def loaded_by_command(arguments: Sequence[str], code: int) -> tuple[str, set[str]]:
    """What a command that ends with this exit code prints, errors too, and the modules it has loaded."""
    return loaded_by(
        "from molspectra.apps.cli import main\nsys.stderr = sys.stdout\n"
        f"try:\n    code = main({list(arguments)!r})\nexcept SystemExit as end:\n    code = end.code\n"
        f"assert code == {code}, code"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    printed, modules = loaded_by_command(arguments, 0)
    assert molspectra.__version__ in printed
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_loads_no_library_but_numpy(name: str) -> None:
    printed, modules = loaded_by_command([name, "--help"], 0)
    assert f"usage: molspectra {name} " in printed
    assert modules & HEAVY <= {"numpy"}  # which the axes of spectra are made of


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fintune"], "did you mean 'finetune'?"),
        (["finetune", "--out", "run", "--loop.stepz", "3"], "did you mean --loop.steps?"),
        (["finetune", "--out", "run", "--loop.steps", "many"], "--loop.steps: expected an integer"),
        (["pretrain", "--out", "run", "--loop.steps", "0"], "steps must be at least 1"),
        (["pretrain", "--out", "run", "--config", "stage3"], "no such file or recipe"),
        (["tune", "--out", "run", "--trails", "3"], "did you mean --trials?"),
        (["prepare", "qm99", "--raw", "raw", "--out", "qm9.arrow"], "did you mean 'qm9'?"),
        (["evaluate", "run", "--prat", "test"], "did you mean --part?"),
    ],
)
def test_what_is_mistyped_is_told_before_anything_heavy_is_loaded(
    arguments: Sequence[str], message: str
) -> None:
    printed, modules = loaded_by_command(arguments, 2)
    assert message in printed
    assert modules & HEAVY <= {"numpy"}


def test_the_package_loads_nothing_heavy() -> None:
    _, modules = loaded_by("import molspectra")
    assert modules.isdisjoint(HEAVY)


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).with_name("molspectra")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{cli.usage()}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, purpose in COMMANDS.items():
        assert f"  {name}" in printed
        assert purpose in printed
        assert (Path(cli.__file__).parent / "commands" / f"{name.replace('-', '_')}.py").is_file()


def test_without_a_command_it_says_how_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: molspectra COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "unknown command 'pretrian'; did you mean 'pretrain'?"),
        (["xyzzy"], f"unknown command 'xyzzy'; known: {', '.join(COMMANDS)}"),
        (["--verbose"], "unknown command '--verbose'"),
    ],
)
def test_unknown_commands(arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"molspectra: error: {message}")
    assert error.count("\n") == 1


class Stopped(MolspectraError):
    exit_code = 130


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no such file"), 2, "molspectra: error: no such file\n"),
        (SimulationError("no convergence"), 2, "molspectra: error: no convergence\n"),
        (Stopped("stopped at step 3"), 130, "molspectra: stopped at step 3\n"),
        (KeyboardInterrupt(), 130, "molspectra: interrupted\n"),
        (PermissionError(13, "Permission denied", "x/y"), 2, "molspectra: error: x/y: Permission denied\n"),
        (OSError("strange"), 2, "molspectra: error: strange\n"),
        (MemoryError(), 2, "molspectra: error: not enough memory; use smaller batches or a smaller file\n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            2,
            "molspectra: error: not enough memory; use smaller batches or a smaller file\n",
        ),
        (InputError("x" * 5_000), 2, f"molspectra: error: {'x' * 800} … {'x' * 400}\n"),
    ],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main([]) == code
    assert capsys.readouterr().err == message


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "import sys\nfrom molspectra.apps import cli\n"
    code += "cli.usage = lambda: 'x' * 1_000_000\nsys.exit(cli.main(['--help']))"
    command = f"{sys.executable} -c '{code.replace(chr(39), chr(34))}' | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "x"
    assert done.stderr == ""
