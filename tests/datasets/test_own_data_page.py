"""Everything that docs/datasets_own.md shows is done here, in its order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from molspectra.apps.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/datasets_own.md"
OUTPUTS = ROOT.parent / "shared/data/spectra/orca6"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)\n```", re.DOTALL)


def test_the_files_and_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if OUTPUTS.is_dir():
        shutil.copytree(OUTPUTS, "outputs")
    said, done = "", []
    for language, caption, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, PAGE.name, "exec"), {})
        elif language == "bash":
            said = ""
            for command in body.splitlines():
                program, *arguments = shlex.split(command)
                assert program == "molspectra"
                if arguments[1] == "outputs" and not OUTPUTS.is_dir():
                    continue
                assert main(arguments) == 0, capsys.readouterr().err
                done.append(" ".join(arguments[:2]))
                said += capsys.readouterr().out
        elif caption == "output":
            assert said == body + "\n"
        else:
            path = Path(caption)
            path.parent.mkdir(exist_ok=True)
            path.write_text(body + "\n", encoding="utf-8")
    expected = [f"prepare {name}" for name in ("csv", "sdf", "extxyz", "npz", "parquet", "outputs")]
    if not OUTPUTS.is_dir():
        expected.pop()
    assert [each for each in done if each.startswith("prepare")] == expected


def test_the_page_names_every_format_and_option():
    from molspectra.datasets.registry import NAMES, importer

    text = PAGE.read_text(encoding="utf-8")
    for name in NAMES:
        if importer(name).title.startswith("own data"):
            assert f"| `{name}` |" in text


@pytest.mark.parametrize("name", ["csv", "sdf", "extxyz", "npz", "parquet", "outputs"])
def test_help_lists_the_options(name, capsys):
    assert main(["prepare", name, "--help"]) == 0
    said = capsys.readouterr().out
    assert "--option level=..." in said
    assert name == "outputs" or "--option unit.NAME=..." in said
